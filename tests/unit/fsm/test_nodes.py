"""How servers come to their certificates: the agent CA and join tokens in the replicated state."""

from dataclasses import replace
from typing import Any

import pytest

from fsm.acl import GLOBAL_MANAGEMENT, BootstrapAcl, DeleteTokens, SetToken
from fsm.apply import apply
from fsm.ca import Reseal, SealKey
from fsm.codec import OutOfBounds, check_command, dump_state, load_state
from fsm.commands import Applied, Command, Rejected, RestoreCA
from fsm.nodes import MAX_JOIN_TOKENS, AddJoinToken, JoinToken, Nodes, SetAgentCA, TakeJoinToken
from fsm.nodes_rules import FULL, NO_AGENT_CA, NO_TOKEN, STALE_SEAL
from fsm.state import Area, State
from tests.kit import acl_samples, samples
from tests.kit.nodes_samples import NOW, PUBLIC_KEY, agent_ca, join_token

TAKE = TakeJoinToken(PUBLIC_KEY, "node-4", NOW)


def with_agent_ca() -> State:
    state = samples.ready()
    return samples.applied(state, SetAgentCA(state.ca_index, agent_ca()))


def with_tokens(*tokens: JoinToken) -> State:
    state = with_agent_ca()
    for token in tokens:
        state = samples.applied(state, AddJoinToken(token, NOW))
    return state


def refused(state: State, command: Command) -> str:
    after, result = apply(state, command)
    assert isinstance(result, Rejected), result
    assert after == state
    return result.code


def another_key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_token_is_taken_once() -> None:
    state = with_tokens(join_token())
    after = samples.applied(state, TAKE)
    assert after.nodes.join_tokens == ()
    assert refused(after, TAKE) == NO_TOKEN


def test_of_many_that_take_it_at_once_the_first_in_the_log_has_it() -> None:
    _, results = samples.run(with_tokens(join_token()), [TAKE] * 50)
    assert [isinstance(result, Applied) for result in results] == [True, *[False] * 49]


@pytest.mark.parametrize(
    "changes",
    [{"name": "node-5"}, {"public_key": b"\0" * 32}, {"now": NOW + 600}],
    ids=["another name", "another token", "expired"],
)
def test_token_is_good_for_its_name_and_time_only(changes: dict[str, Any]) -> None:
    state = with_tokens(join_token())
    assert refused(state, replace(TAKE, **changes)) == NO_TOKEN
    assert isinstance(apply(state, replace(TAKE, now=NOW + 599))[1], Applied)


def with_maker(**changes: Any) -> State:
    """Of a token that is out, made by a token of access control."""
    state = samples.applied(samples.ready(), acl_samples.INIT)
    state = samples.applied(state, SetAgentCA(state.ca_index, agent_ca()))
    maker = acl_samples.token(5, policies=(), roles=(), **changes)
    state = samples.applied(state, SetToken(maker))
    return samples.applied(state, AddJoinToken(join_token(made_by=maker.accessor_id), NOW))


def test_token_ends_with_the_one_that_made_it() -> None:
    state = with_maker()
    assert isinstance(apply(state, TAKE)[1], Applied)
    assert refused(samples.applied(state, DeleteTokens((acl_samples.uuid(5),))), TAKE) == NO_TOKEN


def test_token_expires_with_the_one_that_made_it() -> None:
    state = with_maker(expires_at=NOW + 60)
    assert isinstance(apply(state, replace(TAKE, now=NOW + 59))[1], Applied)
    assert refused(state, replace(TAKE, now=NOW + 60)) == NO_TOKEN


def test_token_that_nobody_was_asked_for_ends_with_the_first_management_token() -> None:
    state = samples.applied(samples.ready(), acl_samples.INIT)
    state = samples.applied(state, SetAgentCA(state.ca_index, agent_ca()))
    state = samples.applied(state, AddJoinToken(join_token(), NOW))
    assert isinstance(apply(state, TAKE)[1], Applied)
    assert (
        refused(
            samples.applied(state, BootstrapAcl(acl_samples.token(9, roles=(), policies=(GLOBAL_MANAGEMENT,)))),
            TAKE,
        )
        == NO_TOKEN
    )


def test_another_token_for_the_name_takes_the_place_of_the_one_before() -> None:
    state = with_tokens(join_token(), join_token(public_key=another_key(1)))
    assert [token.public_key for token in state.nodes.join_tokens] == [another_key(1)]
    assert refused(state, TAKE) == NO_TOKEN


def test_expired_tokens_make_room_and_others_do_not() -> None:
    tokens = [join_token(name=f"n{k}", public_key=another_key(k)) for k in range(MAX_JOIN_TOKENS)]
    state = with_tokens(*tokens)
    assert refused(state, AddJoinToken(join_token(), NOW + 599)) == FULL
    after = samples.applied(state, AddJoinToken(join_token(expires_at=NOW + 9000), NOW + 600))
    assert [token.name for token in after.nodes.join_tokens] == ["node-4"]


def test_tokens_stand_in_the_order_of_their_names_whenever_they_came() -> None:
    names = ["c", "a", "b"]
    state = with_tokens(*(join_token(name=name, public_key=another_key(ord(name))) for name in names))
    assert [token.name for token in state.nodes.join_tokens] == sorted(names)


def test_no_token_without_an_agent_ca_and_none_survives_another_one() -> None:
    assert refused(samples.ready(), AddJoinToken(join_token(), NOW)) == NO_AGENT_CA
    state = with_tokens(join_token())
    assert samples.applied(state, SetAgentCA(state.ca_index, agent_ca(set_at=NOW + 1))).nodes.join_tokens == ()
    assert samples.applied(state, SetAgentCA(state.ca_index, None)).nodes == Nodes()


def test_key_that_was_sealed_before_the_data_key_changed_is_refused() -> None:
    state = samples.ready()
    assert refused(state, SetAgentCA(state.ca_index - 1, agent_ca())) == STALE_SEAL


def test_only_its_own_area_moves() -> None:
    before, state = samples.ready(), with_tokens(join_token())
    assert state.nodes_index == state.index == before.index + 2
    assert [state.area_index(area) for area in Area if area is not Area.NODES] == [
        before.area_index(area) for area in Area if area is not Area.NODES
    ]


def reseal(state: State, **changes: Any) -> Reseal:
    seal = SealKey("file", "fedcba9876543210", b"", b"another wrapped key")
    return replace(Reseal(state.ca_index, seal, state.providers), **changes)


def test_another_data_key_takes_the_agent_ca_along_or_is_refused() -> None:
    state = with_tokens(join_token())
    assert refused(state, reseal(state)) == "agent_ca_differs"
    assert refused(state, reseal(state, agent_ca=agent_ca(cert_pem="another"))) == "agent_ca_differs"
    after = samples.applied(state, reseal(state, agent_ca=agent_ca(sealed=b"again")))
    assert after.nodes == replace(state.nodes, agent_ca=agent_ca(sealed=b"again"))


def test_restored_ca_brings_no_agent_ca_and_no_token() -> None:
    state = with_agent_ca()
    saved = with_tokens(join_token())
    after = samples.applied(state, RestoreCA(state.ca_index, saved))
    assert (after.nodes, after.nodes_index) == (state.nodes, state.nodes_index)


def test_state_loads_with_and_without_it() -> None:
    state = samples.ready()
    assert load_state(dump_state(state)).nodes == Nodes()
    full = with_tokens(join_token())
    assert load_state(dump_state(full)) == full


@pytest.mark.parametrize(
    "token",
    [
        join_token(name="Node-4"),
        join_token(name="a.b"),
        join_token(name=""),
        join_token(name="-a"),
        join_token(public_key=b"short"),
        join_token(raft_address="x" * 256),
        join_token(raft_address="a\0b"),
        join_token(expires_at=1 << 60),
    ],
)
def test_token_out_of_bounds_is_not_proposed(token: JoinToken) -> None:
    with pytest.raises(OutOfBounds):
        check_command(AddJoinToken(token, NOW))


@pytest.mark.parametrize("seconds", [0, 4, 180 * 86_400 + 1])
def test_lifetimes_out_of_bounds_are_not_proposed(seconds: int) -> None:
    with pytest.raises(OutOfBounds):
        check_command(SetAgentCA(7, agent_ca(cert_ttl_seconds=seconds)))
