"""A login on the leader, around what the method proves: whose roots, whose name, and what comes in between."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.access.method_writers import MethodWriter
from cluster.access.methods.config import MethodConfig
from cluster.access.room import Room
from cluster.access.selector import Proved
from cluster.base.errors import PermissionDenied, RateLimitReached, Refused
from cluster.node.acl_work import LOGINS_PER_SECOND, AclWork
from cluster.node.build import trust_of
from cluster.rpc.messages import AclLoginRequest
from fsm import acl_rules
from fsm.acl import BindType, MethodType, SetAuthMethod, SetBindingRule, SetToken
from fsm.apply import apply
from fsm.commands import Applied, Rejected
from fsm.state import State
from tests.kit import samples
from tests.kit.acl_samples import INIT, binding_rule, method
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog

ROOTS = (samples.root("a"), samples.root("b", is_active=False))
WEB = Proved({"trust_domain": "d", "datacenter": "dc1", "kind": "service", "name": "web"})
REQUEST = AclLoginRequest("mesh", "a proof", {})
Change = Callable[[State], State]


class Cluster:
    """A log in which, before the first of this node's entries, those of others come."""

    def __init__(self, between: Change) -> None:
        state = replace(State(), roots=ROOTS)
        mesh = method("mesh", kind=MethodType.TLS, config_json="{}", sealed=b"")
        rule = binding_rule(auth_method="mesh", selector="", bind_type=BindType.SERVICE, bind_name="${name}")
        for command in (INIT, SetAuthMethod(mesh), SetBindingRule(rule)):
            state, result = apply(state, command)
            assert isinstance(result, Applied), result
        self.state = state
        self.made: list[SetToken] = []
        self._between: Change | None = between

    async def propose(self, command: SetToken, *, timeout: float) -> Applied | Rejected:
        if self._between is not None:
            self.state, self._between = self._between(self.state), None
            return Rejected(acl_rules.CHANGED, "another write came first")
        self.made.append(command)
        return Applied(self.state.index + 1)


class Judge:
    """Takes every proof, and remembers for which method it was."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.proves = WEB

    async def proved(self, method: str, _config: MethodConfig, bearer_token: str) -> Proved:
        self.asked.append((method, bearer_token))
        return self.proves


class Node:
    def __init__(self, between: Change) -> None:
        self.cluster, self.judge, self.log, self.clock = Cluster(between), Judge(), EventLog(), FakeClock()
        self.limited: list[None] = []
        parts: Any = self
        self.work = AclWork(
            cast(Any, self.cluster),
            parts,
            MethodWriter(cast(Any, self.judge), parts),
            cast(Any, self.judge),
            Path("nowhere"),
            "dc1",
            self.clock,
            self.log,
            limited=lambda: self.limited.append(None),
        )

    def hashed(self, secret_id: str) -> bytes:
        return secret_id.encode()[:32]


async def test_log_says_who_has_got_which_token_and_nothing_of_the_proof() -> None:
    node = Node(lambda state: state)
    node.judge.proves = Proved({"name": "web", "value.x": "a\nb'\x1b[0m y='z'"}, {"list.groups": ["c", "d"]})
    answer = await node.work.login(REQUEST, "node-2: 10.0.0.7")
    [(event, fields)] = node.log.events
    proved = fields.pop("proved")
    assert (event, fields) == (
        "acl.login",
        {"accessor": answer.key, "method": "mesh", "by": "node-2: 10.0.0.7", "index": node.cluster.state.index + 1},
    )
    assert proved.startswith("name='web' value.x=")
    assert proved.endswith("list.groups='c,d'")
    assert proved.isprintable()
    assert "a proof" not in str(node.log.events)
    assert answer.secret_id not in str(node.log.events)


async def test_what_is_logged_of_a_login_has_an_end() -> None:
    node = Node(lambda state: state)
    node.judge.proves = Proved({"name": "web", "value.x": "x" * 100_000}, {"list.y": ["y" * 100] * 1000})
    await node.work.login(REQUEST)
    [(_, fields)] = node.log.events
    assert len(fields["proved"]) < 400


async def test_refused_login_is_logged_with_its_address() -> None:
    node = Node(lambda state: state)
    node.judge.proves = Proved({**WEB.texts, "name": "No\nName" * 1000})
    with pytest.raises(PermissionDenied):
        await node.work.login(REQUEST, "node-2: 10.0.0.7")
    [(event, fields)] = node.log.events
    assert (event, fields["method"], fields["by"]) == ("acl.login_refused", "mesh", "node-2: 10.0.0.7")
    assert fields["reason"].isprintable()
    assert len(fields["reason"]) < 500
    assert "a proof" not in str(fields)


async def test_login_survives_what_others_write_meanwhile() -> None:
    node = Node(lambda state: replace(state, index=state.index + 1))
    answer = await node.work.login(REQUEST)
    [made] = node.cluster.made
    assert (made.token.accessor_id, made.token.auth_method) == (answer.key, "mesh")
    assert [identity.service for identity in made.token.service_identities] == ["web"]
    assert node.judge.asked == [("mesh", "a proof")]


async def test_login_that_there_is_no_room_for_is_refused_and_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.node.acl_work.Room", lambda: Room(10))
    node = Node(lambda state: state)
    with pytest.raises(Refused, match="no room for more of them"):
        await node.work.login(REQUEST)
    assert node.cluster.made == []


async def test_identity_logs_in_so_often_and_others_all_the_same() -> None:
    node = Node(lambda state: replace(state, index=state.index + 1))
    burst = round(10 * LOGINS_PER_SECOND)
    for _ in range(burst):  # the first is made anew, and counted once
        await node.work.login(REQUEST)
    for _ in range(3):
        with pytest.raises(RateLimitReached, match="at most 5 logins of one identity in a second") as caught:
            await node.work.login(REQUEST)
        assert caught.value.retry_after_seconds == pytest.approx(1 / LOGINS_PER_SECOND)
    assert (len(node.cluster.made), len(node.limited)) == (burst, 3)
    node.judge.proves = Proved({**WEB.texts, "name": "api"})
    await node.work.login(REQUEST)
    node.judge.proves = WEB
    node.clock.advance(1)
    for _ in range(round(LOGINS_PER_SECOND)):
        await node.work.login(REQUEST)
    with pytest.raises(RateLimitReached):
        await node.work.login(REQUEST)
    one, *others = {made.token.identity_hash for made in node.cluster.made}
    assert (len(one), len(others)) == (32, 1)


async def test_whoever_gets_nothing_is_never_told_to_come_again() -> None:
    node = Node(lambda state: state)
    node.judge.proves = Proved({**WEB.texts, "name": "No Name"})
    for _ in range(100):
        with pytest.raises(PermissionDenied):
            await node.work.login(REQUEST)
    assert node.limited == []


@pytest.mark.parametrize("roots", [ROOTS[:1], (), (*ROOTS, samples.root("c", is_active=False))])
async def test_certificate_is_judged_by_the_roots_of_the_state_that_its_token_is_made_from(
    roots: tuple[Any, ...],
) -> None:
    node = Node(lambda state: replace(state, roots=roots))
    with pytest.raises(PermissionDenied, match=r"^Permission denied$"):
        await node.work.login(REQUEST)
    assert node.cluster.made == []


def test_whom_the_cluster_trusts_is_every_root_that_is_listed() -> None:
    state = samples.configured()
    assert trust_of(State()).root_pems == ()
    assert trust_of(State()).domain == ""
    trust = trust_of(replace(state, roots=ROOTS))
    assert (trust.domain, trust.root_pems) == (state.trust_domain, tuple(root.root_pem for root in ROOTS))
