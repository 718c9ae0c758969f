"""Access control never grows beyond what servers can send each other."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.access.room import MAX_WEIGHT, RESERVED_WEIGHT, Room, weight
from cluster.base.bounds import check_value
from cluster.base.errors import Refused
from cluster.raft.machine import _MAX_STATE_DEPTH, _MAX_STATE_VALUES
from cluster.raft.snapshot import MAX_STATE_BYTES
from fsm.acl import (
    MAX_OF_AN_IDENTITY,
    MAX_TOKENS,
    RESERVED_TOKENS,
    Acl,
    BootstrapAcl,
    DeletePolicy,
    NodeIdentity,
    ServiceIdentity,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetRole,
    SetToken,
    Token,
)
from fsm.apply import apply
from fsm.codec import dump_state
from fsm.commands import Applied
from fsm.state import State
from tests.kit import acl_samples as samples
from tests.kit import samples as others
from tests.kit.acl_samples import uuid

STATE = samples.with_one_of_each(others.full_state())
#: Of each kind, what has the most values for its bytes, and what has the most bytes.
WIDE = [
    samples.token(7, description="", policies=("a",) * 256, roles=(), service_identities=(ServiceIdentity("a"),) * 256),
    samples.token(7, description="", node_identities=(NodeIdentity("a", "b"),) * 256, policies=()),
    samples.token(7, description="\U0001f600" * 4096),
    samples.token(7, description="x" * 4096, service_identities=(ServiceIdentity("a", ("b",) * 64),) * 256),
    Token(uuid(7), bytes(32), ""),
    Token(uuid(7), bytes(32), "", identity_hash=bytes(32)),
    samples.role(7, description="", service_identities=(ServiceIdentity("a", ("b",) * 64),) * 256),
    samples.policy(7, rules="é" * 32_000),
    samples.policy(7, name="p", description="", rules="", datacenters=("a",) * 64),
    samples.method("m", config_json="{}" * 30_000, sealed=b"s" * 30_000),
    samples.binding_rule(7, description="", selector="", bind_name=""),
    samples.binding_rule(7, selector="\U0001f600" * 4096),
]


def _state_with(value: object) -> bytes:
    tables = {"Token": "tokens", "Role": "roles", "Policy": "policies", "AuthMethod": "methods"}
    table = tables.get(type(value).__name__, "binding_rules")
    changes: dict[str, Any] = {table: (*getattr(STATE.acl, table), value)}
    return dump_state(replace(STATE, acl=replace(STATE.acl, **changes)))


@pytest.mark.parametrize("value", WIDE, ids=lambda value: type(value).__name__)
def test_weight_is_never_less_than_what_the_state_grows_by(value: Token) -> None:
    before, after = dump_state(STATE), _state_with(value)
    assert weight(value) >= len(after) - len(before) - 8


@pytest.mark.parametrize("value", WIDE, ids=lambda value: type(value).__name__)
def test_as_many_as_there_is_room_for_are_few_enough_values(value: Token) -> None:
    values = _values(_state_with(value)) - _values(dump_state(STATE))
    assert MAX_WEIGHT / weight(value) * values + _values(dump_state(STATE)) < _MAX_STATE_VALUES


def _values(data: bytes) -> int:
    """The least bound that it passes."""
    low, high = 0, 1 << 20
    while low < high:
        middle = (low + high) // 2
        try:
            check_value(data, max_items=middle, max_depth=_MAX_STATE_DEPTH)
        except ValueError:
            low = middle + 1
        else:
            high = middle
    return low


def test_all_tokens_of_plain_logins_fit() -> None:
    name = ServiceIdentity("w" * 40)
    token = Token(
        uuid(7),
        bytes(32),
        "token created via login",
        service_identities=(name,),
        auth_method="m" * 20,
        identity_hash=bytes(32),
    )
    assert (MAX_TOKENS - RESERVED_TOKENS) * weight(token) < MAX_WEIGHT - RESERVED_WEIGHT
    assert MAX_WEIGHT + (1 << 20) < MAX_STATE_BYTES


def _filled(room: Room) -> State:
    """With policies, until there is no room for another."""
    state = STATE
    for number in range(100, 200):
        command = SetPolicy(samples.policy(number, name=f"p{number}", rules="#" * 2000))
        try:
            room.check(state.acl, command)
        except Refused as error:
            assert "no room for more of them" in str(error)  # noqa: PT017
            return state
        state, result = apply(state, command)
        assert isinstance(result, Applied)
    raise AssertionError("there was room for all")


def test_beyond_the_room_nothing_is_added_and_everything_can_be_made_smaller() -> None:
    room = Room(100_000)
    state = _filled(room)
    assert 40 < len(state.acl.policies) < 50
    for command in (
        SetPolicy(samples.policy(101, name="p101", rules="#" * 9000), 1),
        SetToken(samples.token(50, description="x" * 4000)),
        SetRole(samples.role(50, description="x" * 4000)),
        SetAuthMethod(samples.method("other", config_json='"' + "x" * 4000 + '"')),
        SetBindingRule(samples.binding_rule(50, selector="x" * 4000)),
    ):
        with pytest.raises(Refused):
            room.check(state.acl, command)
    room.check(state.acl, SetPolicy(samples.policy(101, name="p101", rules="#" * 1000), 1))
    room.check(state.acl, DeletePolicy(uuid(101)))
    state, _ = apply(state, DeletePolicy(uuid(101)))
    room.check(state.acl, SetPolicy(samples.policy(500, name="p500", rules="#" * 2000)))


def _login(number: int, description: str) -> Token:
    return samples.token(number, auth_method="jwt-1", identity_hash=b"i" * 32, description=description)


def test_logins_leave_room_for_tokens_that_operators_make_and_for_the_bootstrap() -> None:
    large = samples.policy(100, name="large", rules="#" * 10_000)
    room = Room(weight(large) + RESERVED_WEIGHT)
    acl = Acl(policies=(large,))
    with pytest.raises(Refused):
        room.check(acl, SetToken(_login(1, "")))
    room.check(acl, SetToken(samples.token(1, description="x" * 4000)))
    room.check(acl, BootstrapAcl(samples.token(1)))


def test_login_that_takes_anothers_place_adds_what_it_is_larger_by() -> None:
    own = tuple(_login(number, "x" * 100) for number in range(1, MAX_OF_AN_IDENTITY + 1))
    acl = Acl(tokens=own)
    room = Room(sum(map(weight, own)) + RESERVED_WEIGHT)
    room.check(acl, SetToken(_login(500, "x" * 100)))
    with pytest.raises(Refused):
        room.check(acl, SetToken(_login(500, "x" * 101)))
    with pytest.raises(Refused):
        room.check(Acl(tokens=own[:-1]), SetToken(_login(500, "x" * 5000)))


def test_what_is_weighed_follows_the_state_wherever_it_goes() -> None:
    """Also after a restore, which replaces every table."""
    room = Room(100_000)
    large = Acl(policies=tuple(samples.policy(n, name=f"p{n}", rules="#" * 9000) for n in range(11)))
    small = Acl(policies=(samples.policy(1),))
    command = SetPolicy(samples.policy(99, name="p99", rules="#" * 9000))
    for _ in range(3):
        with pytest.raises(Refused):
            room.check(large, command)
        room.check(small, command)
