"""Whose token it is, and what counts of it, as of the state of the moment."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.access.directory import EVERYTHING, Directory
from cluster.api.access import ACL_READ, ACL_WRITE, SNAPSHOT, Caller, Level, Resource, Right
from cluster.base.errors import PermissionDenied, TokenUnknown
from fsm.acl import (
    ANONYMOUS,
    GLOBAL_MANAGEMENT,
    Acl,
    BootstrapAcl,
    DeletePolicy,
    DeleteTokens,
    NodeIdentity,
    ServiceIdentity,
    SetPolicy,
    SetRole,
    SetToken,
    Token,
)
from fsm.apply import apply
from fsm.commands import Applied, Command
from fsm.state import State
from tests.kit.acl_samples import INIT, NOW, policy, role, token, uuid
from tests.kit.clock import FakeClock

WRITE = Right(Resource.SERVICE, Level.WRITE)
READ = Right(Resource.SERVICE, Level.READ)


def hashed(secret_id: str) -> bytes:
    return secret_id.encode().rjust(32, b"\0")


class Cluster:
    """A state, and the directory of a node that has applied it."""

    def __init__(self, *, allows_by_default: bool = False) -> None:
        self.state = State()
        self.clock = FakeClock(NOW)
        self.before: dict[str, Caller] = {}
        self.directory = Directory(
            lambda: self.state.acl, hashed, "dc1", self.clock, allows_by_default=allows_by_default
        )
        self.do(INIT)

    def do(self, command: Command) -> None:
        self.state, result = apply(self.state, command)
        assert isinstance(result, Applied), result

    def give(self, secret_id: str, number: int = 1, **changes: Any) -> Token:
        nothing: dict[str, Any] = {"policies": (), "roles": (), "service_identities": (), "node_identities": ()}
        made = token(number, secret_hash=hashed(secret_id), **{**nothing, **changes})
        self.do(SetToken(made))
        return made

    def caller(self, secret_id: str) -> Caller:
        """The same for whoever was judged before, after whatever has changed."""
        before = self.before.get(secret_id)
        try:
            found = self.directory.caller(secret_id)
        except TokenUnknown:
            with pytest.raises(TokenUnknown):
                self.directory.judged(secret_id, before)
            raise
        assert self.directory.judged(secret_id, before) == found
        self.before[secret_id] = found
        return found


def test_token_has_the_rights_of_its_policies_roles_and_identities() -> None:
    cluster = Cluster()
    cluster.do(SetPolicy(policy(1, rules='service "a" { policy = "write" }', datacenters=())))
    cluster.do(SetPolicy(policy(2, rules='service "b" { policy = "write" }', datacenters=("dc1",))))
    cluster.do(SetPolicy(policy(3, rules='service "c" { policy = "write" }', datacenters=("dc2",))))
    services = (ServiceIdentity("e"), ServiceIdentity("f", ("dc2",)))
    cluster.do(SetRole(role(1, policies=(uuid(2), uuid(3)), service_identities=services, node_identities=())))
    cluster.give(
        "s1",
        policies=(uuid(1), uuid(77)),
        roles=(uuid(1), uuid(88)),
        node_identities=(NodeIdentity("n1", "dc1"), NodeIdentity("n2", "dc2")),
    )
    caller = cluster.caller("s1")
    allowed = {name for name in "abcdef" if caller.may(WRITE, name)}
    assert allowed == {"a", "b", "e"}
    assert caller.may(WRITE, "e-sidecar-proxy")
    assert caller.may(READ, "anything")
    assert [caller.may(Right(Resource.NODE, Level.WRITE), name) for name in ("n1", "n2")] == [True, False]


def test_every_change_counts_with_the_next_question() -> None:
    cluster = Cluster()
    cluster.do(SetPolicy(policy(1, datacenters=())))
    cluster.give("s1", policies=(uuid(1),))
    assert cluster.caller("s1").may(WRITE, "web")
    old = cluster.state.acl.policies[-1]
    cluster.do(SetPolicy(replace(old, rules='service "web" { policy = "read" }'), old.modify_index))
    assert not cluster.caller("s1").may(WRITE, "web")
    cluster.do(DeletePolicy(uuid(1)))
    assert not cluster.caller("s1").may(READ, "web")
    cluster.do(DeleteTokens((uuid(1),)))
    with pytest.raises(TokenUnknown):
        cluster.caller("s1")


def test_expired_token_is_unknown_at_once() -> None:
    cluster = Cluster()
    cluster.give("s1", expires_at=NOW + 60)
    cluster.clock.advance(59.5)
    assert cluster.caller("s1").expires_at == NOW + 60
    cluster.clock.advance(0.5)
    with pytest.raises(TokenUnknown):
        cluster.caller("s1")


def test_judgement_stands_until_anything_has_changed() -> None:
    cluster = Cluster()
    cluster.give("s1", policies=(uuid(1),), expires_at=NOW + 60)
    before = cluster.caller("s1")
    cluster.clock.advance(59.5)
    assert cluster.directory.judged("s1", before) is before
    cluster.give("s2", 2)
    assert cluster.directory.judged("s1", before) is not before
    assert cluster.directory.judged("s1", before) == before
    again = cluster.directory.judged("s1", before)
    cluster.clock.advance(0.5)
    for known in (before, again):
        with pytest.raises(TokenUnknown):
            cluster.directory.judged("s1", known)


def test_token_that_takes_the_place_of_another_is_not_that_one() -> None:
    """An operator may choose the accessor, also one that was in use."""
    cluster = Cluster()
    cluster.give("s1")
    cluster.caller("s1")
    cluster.do(DeleteTokens((uuid(1),)))
    cluster.give("s2", policies=(GLOBAL_MANAGEMENT,))
    with pytest.raises(TokenUnknown):
        cluster.caller("s1")
    assert cluster.caller("s2").may(ACL_WRITE)


def test_unknown_token_is_told_what_is_missing() -> None:
    cluster = Cluster()
    with pytest.raises(TokenUnknown, match="must be bootstrapped before"):
        cluster.caller("s1")
    cluster.do(BootstrapAcl(token(1)))
    with pytest.raises(TokenUnknown) as refused:
        cluster.caller("s1")
    assert str(refused.value) == "ACL not found"


def test_anonymous_has_what_its_token_has_and_before_it_exists_nothing() -> None:
    cluster = Cluster()
    cluster.state = State()
    assert not cluster.caller("").may(READ, "web")
    cluster.do(INIT)
    caller = cluster.caller("")
    assert (caller.accessor_id, caller.is_anonymous) == (ANONYMOUS, True)
    with pytest.raises(PermissionDenied) as refused:
        caller.require(READ, "web")
    assert str(refused.value) == (
        "Permission denied: anonymous token lacks permission 'service:read' on \"web\"."
        " The anonymous token is used implicitly when a request does not specify a token."
    )
    cluster.do(SetPolicy(policy(1, datacenters=())))
    anonymous = cluster.state.acl.tokens[0]
    cluster.do(SetToken(replace(anonymous, policies=(uuid(1),)), anonymous.modify_index))
    assert cluster.caller("").may(WRITE, "web")


def test_management_is_everything_whatever_its_text_says() -> None:
    cluster = Cluster()
    cluster.give("root", policies=(GLOBAL_MANAGEMENT,))
    caller = cluster.caller("root")
    for rule in EVERYTHING:
        assert caller.may(Right(rule.resource, Level.WRITE), "any" if rule.is_prefix else "")


def test_rules_that_no_release_takes_deny_all() -> None:
    cluster = Cluster(allows_by_default=True)
    cluster.do(BootstrapAcl(token(9)))
    cluster.do(SetPolicy(policy(1, rules="servicee {", datacenters=())))
    cluster.give("s1", policies=(uuid(1),))
    assert not cluster.caller("s1").may(READ, "web")
    assert cluster.caller("").may(READ, "web")


def test_denial_names_the_token_the_right_and_the_name() -> None:
    cluster = Cluster()
    made = cluster.give("s1")
    with pytest.raises(PermissionDenied) as refused:
        cluster.caller("s1").require(WRITE, "web")
    assert str(refused.value) == (
        f"Permission denied: token with AccessorID '{made.accessor_id}' lacks permission 'service:write' on \"web\""
    )
    with pytest.raises(PermissionDenied, match=r"lacks permission 'operator:read'$"):
        cluster.caller("s1").require(Right(Resource.OPERATOR, Level.READ))


def test_secret_is_not_shown() -> None:
    cluster = Cluster()
    cluster.give("very-secret")
    assert "very-secret" not in repr(cluster.caller("very-secret"))
    assert Acl() == Acl()


def test_open_cluster_knows_nobody_and_asks_nobody_for_a_token() -> None:
    cluster = Cluster(allows_by_default=True)
    caller = cluster.caller("of-another-cluster")
    assert (caller.accessor_id, caller.secret_id) == (ANONYMOUS, "")
    assert caller.may(SNAPSHOT)
    assert not caller.may(ACL_WRITE)
    cluster.do(BootstrapAcl(token(1, secret_hash=hashed("root"), policies=(GLOBAL_MANAGEMENT,))))
    with pytest.raises(TokenUnknown):
        cluster.caller("of-another-cluster")
    assert not cluster.caller("").may(SNAPSHOT)
    assert cluster.caller("root").may(SNAPSHOT)


def test_open_cluster_says_that_it_must_be_bootstrapped_before_tokens_are_looked_at() -> None:
    caller = Cluster(allows_by_default=True).caller("")
    assert caller.is_of_open_cluster
    with pytest.raises(PermissionDenied, match=r"acl:read.*must be bootstrapped first"):
        caller.require(ACL_READ)
