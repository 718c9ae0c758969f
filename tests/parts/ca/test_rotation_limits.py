"""What cannot be written ends a rotation, or is told before one begins; none is tried again for ever."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.api.ca import RotateRequest
from cluster.base.errors import InternalError, Refused
from fsm.ca import AbortRotation, AdvanceRotation, FinishRotation
from fsm.commands import Command
from tests.kit import handmade, pki
from tests.kit.fake_cluster import Fate, Node, put, update
from tests.kit.wait import until


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.reconfigure._ROTATION_SECONDS", 5.0)


def _own(node: Node, extension_bytes: int) -> dict[str, object]:
    private = ec.generate_private_key(ec.SECP256R1())
    now = datetime.fromtimestamp(int(node.clock.now()), UTC)
    root_pem = handmade.root(
        private,
        f"spiffe://{node.cluster.state.trust_domain}",
        extensions=(handmade.extension("1.2.3.4", b"x" * extension_bytes),),
        not_before=handmade.utc(now - timedelta(days=1)),
        not_after=handmade.utc(now + timedelta(days=3650)),
    )
    return {"PrivateKey": pki.key_pem(private), "RootCert": root_pem}


@pytest.mark.parametrize("fate", [Fate.REJECTED, Fate.TOO_LARGE])
@pytest.mark.parametrize(
    ("is_staged", "step"), [*((False, step) for step in range(3)), *((True, step) for step in (2, 3))]
)
async def test_step_that_is_refused_ends_the_rotation_and_leaves_everything_as_it_was(
    node: Node, step: int, fate: Fate, is_staged: bool
) -> None:
    steps = 0
    before = node.cluster.state

    def decide(command: Command) -> Fate:
        nonlocal steps
        if not isinstance(command, AdvanceRotation | FinishRotation):
            return Fate.COMMITTED
        steps += 1
        return fate if steps > step else Fate.COMMITTED

    node.cluster.on_propose = decide
    rotation_id = await put(node, update({"PrivateKeyBits": 384}, is_staged=is_staged, wait_seconds=1))
    reason = "the rotation cannot go on: .*(too large|odd: not as things stand)"
    if step == 3:
        await node.reconfigurer.wait_for_rotation(rotation_id)  # published
        node.clock.advance(60)
        await until(lambda: node.cluster.state.rotation is None)
    else:
        with pytest.raises(InternalError, match=reason):
            await node.reconfigurer.wait_for_rotation(rotation_id)
    state = node.cluster.state
    assert steps == step + 1
    assert isinstance(node.cluster.committed[-1], AbortRotation)
    assert state.last_rotation is not None
    assert not state.last_rotation.root_id
    assert [root.root_id for root in state.roots] == [root.root_id for root in before.roots]
    assert [record.provider_id for record in state.providers] == [record.provider_id for record in before.providers]
    assert "rotation.finished" not in [event for event, _ in node.log.events]
    node.cluster.on_propose = lambda _command: Fate.COMMITTED
    rotation_id = await put(node, update({"PrivateKeyBits": 384}), request_id=b"2")
    await node.reconfigurer.wait_for_rotation(rotation_id)


@pytest.mark.parametrize("is_staged", [False, True])
@pytest.mark.parametrize("is_forced", [False, True])
async def test_root_for_which_there_is_no_room_in_the_log_is_refused_before_anything_begins(
    node: Node, is_forced: bool, is_staged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the commands themselves: what a plan can only estimate is not asked here."""
    monkeypatch.setattr("cluster.ca.rotation._STEP_BYTES", -(1 << 20))
    for number in range(10):
        before = node.cluster.state
        wanted = update(_own(node, 16_000), force=True, is_staged=is_staged and number > 2)
        try:
            rotation_id = await put(node, wanted, request_id=b"%d" % number)
        except Refused as refusal:
            text = str(refusal)
            break
        await node.reconfigurer.wait_for_rotation(rotation_id)
        if wanted.is_staged:
            node.clock.advance(60)
        await until(lambda: node.cluster.state.rotation is None)
        assert node.cluster.state.last_rotation is not None
        assert not node.cluster.state.last_rotation.reason
    else:
        pytest.fail("there is no end of roots")
    assert "more than 524288: possible with a smaller root" in text
    assert node.cluster.state is before
    assert number > 2
    retired = [root.root_id for root in before.roots if root.is_retired]
    for _ in range(2):  # what the words advise
        await node.operator_rotation.distrust(retired.pop())
    rotation_id = await put(node, update({"PrivateKeyBits": 384}, force=is_forced), request_id=b"after")
    await node.reconfigurer.wait_for_rotation(rotation_id)


@pytest.mark.parametrize("is_forced", [False, True])
async def test_rotation_for_which_there_is_no_room_is_refused_by_its_plan(
    node: Node, is_forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ca.commit.MAX_PROPOSAL_BYTES", 30_000)
    before = node.cluster.state
    for ask in (
        node.operator_rotation.plan(RotateRequest(is_forced=is_forced)),
        put(node, update({"PrivateKeyBits": 384}, force=is_forced)),
    ):
        with pytest.raises(Refused, match="the rotation would write about"):
            await ask
    assert node.cluster.state is before


async def test_root_larger_than_any_chain_is_refused_whether_it_is_forced_or_not(node: Node) -> None:
    before = node.cluster.state
    for is_forced, kind, text in (
        (True, InternalError, "RootCert has 120... bytes: expected at most 20480"),
        (False, Refused, "the chain back to every trusted root would have about"),
    ):
        with pytest.raises(kind, match=text):
            await put(node, update(_own(node, 120_000), force=is_forced))
    assert node.cluster.state is before
