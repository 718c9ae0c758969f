"""A signature while the leader's CA changes: what it waits for, and what it is signed with."""

import asyncio
from dataclasses import replace

import pytest

from cluster.base.errors import BadRequest, NotLeader, RateLimitReached
from cluster.base.requester import Requester, shown
from cluster.rpc.messages import SIGN, SignRequest
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey, SealError
from cluster.signing.serials import is_serial, new_request_id, new_serial, serial_from
from fsm.ca import SetRoots
from fsm.leaves import LeafRecord
from fsm.state import State
from providers.errors import CSRRejected, ProviderUnavailable
from providers.pki.serials import serial_bytes
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import Node, running
from tests.kit.keeper import kept
from tests.kit.wait import until


@pytest.fixture
async def settling(node: Node) -> Node:
    """Elected again, and its provider is not in use yet."""
    node.cluster.elect("b")
    await until(lambda: not node.worker.keys and not node.authority.is_ready)
    node.worker.calls.clear()
    node.worker.held.add("configure")
    node.cluster.elect("a")
    await until(lambda: "configure" in node.worker.calls)
    return node


def asked(node: Node) -> SignRequest:
    return SignRequest(service_csr(node.cluster.state.trust_domain), serial(1), "token:web")


async def test_new_leader_takes_its_provider_into_use_first(settling: Node) -> None:
    request = asyncio.ensure_future(settling.operations.run(SIGN, asked(settling)))
    await asyncio.sleep(0)  # it is carried out up to its first wait
    settling.worker.gate.set()
    assert (await request).name == "web"


async def test_leadership_that_ends_while_it_is_waited_for_is_for_the_next_leader(node: Node) -> None:
    pin(node)
    other = Node(node.cluster, "b")  # its loop does not run: it never has the provider, nor a key to draw serials with
    node.cluster.elect("b")
    request = asyncio.ensure_future(other.operations.run(SIGN, asked(other)))
    await asyncio.sleep(0)
    node.cluster.elect("c")
    await other.authority.drop()
    with pytest.raises(NotLeader):
        await request
    other.ledger.close()


async def test_leadership_that_ends_while_the_ca_is_taken_into_use_is_for_the_next_leader(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(_state: State) -> None:
        node.cluster.elect("c")
        await node.authority.drop()

    state = node.cluster.state
    node.cluster.commit(SetRoots(state.ca_index, state.roots, state.providers))
    monkeypatch.setattr(node.authority, "adopt", lose)
    with pytest.raises(NotLeader):
        await node.operations.run(SIGN, asked(node))


async def test_leader_takes_what_was_committed_into_use_before_it_signs(node: Node) -> None:
    """Who has seen the change must not get a leaf of before; if it cannot be had, there is none."""
    node.worker.failures["configure"] = ProviderUnavailable("it is down")
    state = node.cluster.state
    node.cluster.commit(SetRoots(state.ca_index, state.roots, state.providers))
    with pytest.raises(ProviderUnavailable):
        await node.operations.run(SIGN, asked(node))
    node.worker.failures.clear()
    assert (await node.operations.run(SIGN, asked(node))).name == "web"
    assert not node.authority.is_behind(node.cluster.state)


# -- who draws serials


def pin(node: Node) -> None:
    """From now on every server is of this release."""
    members = node.cluster.members
    node.cluster.members = {name: replace(known, keys=(b"k" * 72,)) for name, known in members.items()}


async def signed(node: Node, request_id: bytes, csr_pem: str = "") -> tuple[int, LeafRecord]:
    csr_pem = csr_pem or service_csr(node.cluster.state.trust_domain)
    answer = (await node.operations.run(SIGN, SignRequest(csr_pem, request_id, "me"))).value()
    row = await node.ledger.call(lambda reader: reader.find(serial_bytes(answer.serial)))
    assert row is not None
    return answer.serial, row.record


@pytest.mark.parametrize("request_id", [b"\x01", b"\x01" * 20, serial(7), b"\xff" * 16, b"\x00" * 20])
async def test_leader_draws_the_serial_whatever_a_server_wants(node: Node, request_id: bytes) -> None:
    pin(node)
    number, record = await signed(node, request_id)
    assert number.bit_length() == 128
    assert number != int.from_bytes(request_id, "big")
    assert record.request_id == b""


async def test_repeated_request_has_one_certificate(node: Node) -> None:
    pin(node)
    csr_pem, request_id = service_csr(node.cluster.state.trust_domain), new_request_id()
    first = await signed(node, request_id, csr_pem)
    assert await signed(node, request_id, csr_pem) == first
    assert node.cluster.machine.ledger_summary.count == 1


async def test_next_leader_draws_the_same_serial_for_a_request(node: Node) -> None:
    """Without a key of the cluster's nobody foresees it."""
    drawn = [node.sealer.draw(request_id) for request_id in (b"a" * 20, b"b" * 20)]
    assert len({*drawn, node.sealer.draw(b"a" * 20)}) == 2
    seal = node.cluster.state.seal
    assert seal is not None
    assert node.sealer.opened(seal).draw(b"a" * 20) == drawn[0]
    directory = node.cluster.directory
    other = kept(Sealer(FileKey(directory / "seal.key")), directory, "other").sealer
    with pytest.raises(SealError, match="no seal yet"):
        other.draw(b"a" * 20)
    other.unlock(other.new_data_key())
    assert other.draw(b"a" * 20) != drawn[0]
    assert [len(serial_from(bytes([first]) * 32)) for first in (0, 127, 128, 255)] == [16] * 4
    assert all(is_serial(serial_from(bytes([first]) * 32)) for first in (0, 127, 128, 255))


async def test_new_leader_whose_seal_is_not_open_yet_is_waited_for(node: Node) -> None:
    """With a passphrase that takes a moment, on a node that was just started."""
    pin(node)
    other = Node(node.cluster, "b")
    node.cluster.elect("b")
    request = asyncio.ensure_future(signed(other, b"\x01" * 20))
    await asyncio.sleep(0)
    assert other.sealer.node_facts() is None
    async with running(other):
        number, _ = await request
    assert number.bit_length() == 128


async def test_no_two_csrs_share_a_serial(node: Node) -> None:
    """A server may send another CSR, of the same key and for the same service, under an id that was taken."""
    pin(node)
    csr_pem, request_id = service_csr(node.cluster.state.trust_domain), new_request_id()
    first, record = await signed(node, request_id, csr_pem)
    second, other = await signed(node, request_id, f"{csr_pem}\n")
    assert first != second
    assert (record.public_key_sha256, record.spiffe_id) == (other.public_key_sha256, other.spiffe_id)
    assert node.cluster.machine.ledger_summary.count == 2


async def test_id_that_was_a_serial_beside_the_release_before_draws_one_now(node: Node) -> None:
    """Whoever names a certificate on record by it gets another one."""
    csr_pem, request_id = service_csr(node.cluster.state.trust_domain), serial_bytes(new_serial())
    first, _ = await signed(node, request_id, csr_pem)
    assert serial_bytes(first) == request_id
    pin(node)
    second, _ = await signed(node, request_id, csr_pem)
    assert second != first


@pytest.mark.parametrize("request_id", [b"\x01", b"\x01" * 16, b"\x80" + b"\x01" * 18, b"\xff" * 20, b"\x00" * 20])
async def test_beside_the_release_before_a_serial_must_be_one(node: Node, request_id: bytes) -> None:
    with pytest.raises(BadRequest, match=f"request id {request_id.hex()} is no serial"):
        await signed(node, request_id)
    assert node.cluster.machine.ledger_summary.count == 0


async def test_what_servers_send_is_taken_on_both_sides_of_the_exchange(node: Node) -> None:
    for request_id in (serial_bytes(new_serial()), new_request_id()):
        number, record = await signed(node, request_id)
        assert (serial_bytes(number), record.request_id) == (request_id, b"")


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        ("10.0.0.7", "b: 10.0.0.7"),
        ("", "b: "),
        ("x" * 4000, "b: " + "x" * 128),
        ("a: 10.0.0.7", "b: a: 10.0.0.7"),
        ("10.0.0.7\n\x1b[31m\u202e", "b: 10.0.0.7[31m"),
    ],
)
def test_who_asked_is_the_word_of_the_server_that_says_so(said: str, recorded: str) -> None:
    request = SignRequest("csr", b"\x01" * 20, said)
    assert SIGN.as_told_by(request, "b").requested_by == recorded
    assert shown(recorded) == Requester(recorded.removeprefix("b: "), "b", "")
    # Beside the release before, which would show the name as a part of it.
    assert SIGN.as_told_by(request, "").requested_by == recorded.removeprefix("b: ")


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "", "anonymous@127.0.0.1", "a b: c", "Token: x", ": x"])
def test_what_the_leader_knows_itself_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == Requester(text, "", "")


# -- the audit lines: what came of every signature


def failures(node: Node) -> list[dict[str, object]]:
    return [fields for event, fields in node.log.events if event == "ca.sign_failed"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ProviderUnavailable("Vault does not answer"), "Vault does not answer"),
        (CSRRejected("CSR key: " + "x" * 5000), "CSR key: " + "x" * 291),
        (RateLimitReached("Rate limit reached, try again later"), "Rate limit reached, try again later"),
    ],
)
async def test_every_failed_signature_is_in_the_log_with_serial_and_reason(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(node.authority, "sign", fail)
    with pytest.raises(type(error)):
        await node.operations.run(SIGN, asked(node))
    assert failures(node) == [{"serial": serial(1).hex(), "by": "token:web", "reason": reason}]


async def test_refused_csr_is_in_the_log(node: Node) -> None:
    with pytest.raises(CSRRejected):
        await node.operations.run(SIGN, SignRequest("rubbish", serial(2), "10.0.0.1"))
    assert failures(node) == [{"serial": serial(2).hex(), "by": "10.0.0.1", "reason": "no PEM-encoded data found"}]


async def test_signature_that_succeeds_or_goes_to_the_next_leader_is_no_failure(node: Node) -> None:
    await node.operations.run(SIGN, asked(node))
    node.cluster.elect("b")
    with pytest.raises(NotLeader):
        await node.operations.run(SIGN, asked(node))
    assert failures(node) == []
