"""What each command of access control does to the state, and when it is refused."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fsm.acl import (
    ACL_TABLES,
    ANONYMOUS,
    GLOBAL_MANAGEMENT,
    MAX_OF_AN_IDENTITY,
    MAX_TOKENS,
    RESERVED_TOKENS,
    Acl,
    BootstrapAcl,
    DeleteAuthMethod,
    DeleteBindingRule,
    DeletePolicy,
    DeleteRole,
    DeleteTokens,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetRole,
    SetToken,
    Token,
)
from fsm.acl_rules import broken_order, find
from fsm.apply import apply
from fsm.ca import Reseal
from fsm.commands import Applied, Command, Rejected, RestoreCA
from fsm.state import State
from tests.kit import samples
from tests.kit.acl_samples import INIT, KEY, NOW, binding_rule, method, policy, role, token, uuid
from tests.kit.samples import applied


def ready() -> State:
    return applied(samples.ready(), INIT)


def refused(state: State, command: Command, code: str) -> Rejected:
    after, result = apply(state, command)
    assert after is state
    assert isinstance(result, Rejected)
    assert result.code == code
    return result


def test_access_control_is_set_up_once() -> None:
    state = ready()
    assert [found.policy_id for found in state.acl.policies] == [GLOBAL_MANAGEMENT]
    assert [found.accessor_id for found in state.acl.tokens] == [ANONYMOUS]
    assert state.acl_index == state.index == state.acl.tokens_index == state.acl.policies_index
    assert state.ca_index == samples.ready().ca_index
    refused(state, INIT, "already_initialised")


def test_new_value_gets_its_place_and_both_indexes() -> None:
    state = ready()
    for number in (5, 3, 4):
        state = applied(state, SetPolicy(policy(number)))
    assert [found.policy_id for found in state.acl.policies] == [GLOBAL_MANAGEMENT, uuid(3), uuid(4), uuid(5)]
    assert [found.create_index for found in state.acl.policies[1:]] == [
        found.modify_index for found in state.acl.policies[1:]
    ]
    assert state.acl.policies_index == state.acl_index == state.index
    assert state.acl.tokens_index < state.acl_index


def test_tables_are_in_order_whatever_order_things_come_and_go_in() -> None:
    """Look-ups go by it, and a saved state is held to it."""
    rng = random.Random(7)
    state = ready()
    largest = dict.fromkeys(ACL_TABLES, 0)
    for _ in range(400):
        number = rng.randrange(1, 9)
        made: list[Command] = [
            SetPolicy(policy(number)),
            SetRole(role(number)),
            SetToken(token(number, auth_method=rng.choice(("", "b", "c")))),
            SetAuthMethod(method(rng.choice("abcd"))),
            SetBindingRule(binding_rule(number, auth_method=rng.choice("abcd"))),
            DeletePolicy(uuid(number)),
            DeleteRole(uuid(number)),
            DeleteTokens((uuid(number),)),
            DeleteAuthMethod(rng.choice("abcd")),
            DeleteBindingRule(uuid(number)),
        ]
        state, _result = apply(state, rng.choice(made))
        assert broken_order(state.acl) is None
        largest = {name: max(most, len(getattr(state.acl, name))) for name, most in largest.items()}
    assert min(largest.values()) > 2


def test_value_is_replaced_only_as_it_was_seen() -> None:
    state = applied(ready(), SetPolicy(policy()))
    [_, old] = state.acl.policies
    refused(state, SetPolicy(policy()), "exists")
    refused(state, SetPolicy(policy(), old.modify_index + 1), "changed")
    refused(state, SetPolicy(policy(2), 3), "not_found")
    after = applied(state, SetPolicy(policy(description="new"), old.modify_index))
    [_, new] = after.acl.policies
    assert new == replace(old, description="new", modify_index=after.index)


def test_name_and_secret_are_given_once() -> None:
    state = applied(applied(ready(), SetPolicy(policy())), SetToken(token()))
    refused(state, SetPolicy(policy(2, name="policy-1")), "name_exists")
    refused(state, SetToken(token(2, secret_hash=token().secret_hash)), "secret_exists")


def test_bootstrap_is_done_once_and_again_only_with_the_index_of_the_last() -> None:
    first = applied(ready(), BootstrapAcl(token(1)))
    assert first.acl.bootstrap_index == first.index
    assert refused(first, BootstrapAcl(token(2)), "bootstrapped").detail == str(first.index)
    refused(first, BootstrapAcl(token(2), first.index - 1), "bootstrapped")
    second = applied(first, BootstrapAcl(token(2), first.acl.bootstrap_index))
    assert second.acl.bootstrap_index == second.index
    assert len(second.acl.tokens) == 3


def test_method_takes_its_rules_and_logins_with_it() -> None:
    state = applied(applied(ready(), SetAuthMethod(method())), SetAuthMethod(method("jwt-2")))
    for number, name in ((1, "jwt-1"), (2, "jwt-2")):
        state = applied(state, SetBindingRule(binding_rule(number, auth_method=name)))
        state = applied(state, SetToken(token(number, auth_method=name)))
    after = applied(state, DeleteAuthMethod("jwt-1"))
    assert [found.name for found in after.acl.methods] == ["jwt-2"]
    assert [found.rule_id for found in after.acl.binding_rules] == [uuid(2)]
    assert [found.accessor_id for found in after.acl.tokens] == [ANONYMOUS, uuid(2)]
    assert after.acl.methods_index == after.acl.tokens_index == after.acl.binding_rules_index == after.index
    refused(after, SetBindingRule(binding_rule(3)), "no_method")
    refused(after, SetToken(token(3, auth_method="jwt-1")), "no_method")


def test_anonymous_token_cannot_be_deleted() -> None:
    state = applied(ready(), SetToken(token()))
    refused(state, DeleteTokens((ANONYMOUS,)), "not_found")
    after = applied(state, DeleteTokens((ANONYMOUS, uuid(1), uuid(8))))
    assert [found.accessor_id for found in after.acl.tokens] == [ANONYMOUS]
    refused(after, DeletePolicy(uuid(1)), "not_found")


def login(number: int, identity: str, **changes: Any) -> Token:
    digest = identity.encode().ljust(32)
    return token(number, **{"auth_method": "jwt-1", "identity_hash": digest, "expires_at": NOW + 60} | changes)


def with_tokens(state: State, tokens: Iterable[Token]) -> State:
    return replace(state, acl=replace(state.acl, tokens=(*state.acl.tokens, *tokens)))


def logins_allowed() -> State:
    return applied(ready(), SetAuthMethod(method()))


def test_logins_leave_places_for_tokens_that_operators_make_and_for_the_bootstrap() -> None:
    room = MAX_TOKENS - RESERVED_TOKENS - 1  # the anonymous token is there
    state = with_tokens(logins_allowed(), (login(number, str(number)) for number in range(1, room)))
    last = applied(state, SetToken(login(room, "last")))
    refused(last, SetToken(login(room + 1, "one more")), "full")
    [old] = [found for found in last.acl.tokens if found.accessor_id == uuid(room)]
    applied(last, SetToken(replace(old, description="changed"), old.modify_index))
    applied(applied(last, DeleteTokens((uuid(1),))), SetToken(login(room + 1, "one more")))
    made = (token(number) for number in range(room + 1, room + RESERVED_TOKENS))
    nearly = with_tokens(last, made)
    refused(nearly, SetToken(login(MAX_TOKENS, "x")), "full")
    assert len(applied(nearly, BootstrapAcl(token(MAX_TOKENS))).acl.tokens) == MAX_TOKENS
    full = applied(nearly, SetToken(token(MAX_TOKENS)))
    refused(full, SetToken(token(MAX_TOKENS + 1)), "full")


def test_identity_that_has_as_many_logins_as_it_may_loses_its_oldest() -> None:
    state = applied(applied(logins_allowed(), SetToken(login(1, "other"))), SetToken(token(2)))
    # Not in the order of their ids, so that the oldest is not the first of the table.
    numbers = [10 + (7 * step) % MAX_OF_AN_IDENTITY for step in range(MAX_OF_AN_IDENTITY)]
    for number in numbers:
        state = applied(state, SetToken(login(number, "web")))
    kept = len(state.acl.tokens)
    for step in range(3):
        before = {found.accessor_id for found in state.acl.tokens}
        state = applied(state, SetToken(login(9000 - step, "web")))
        after = {found.accessor_id for found in state.acl.tokens}
        assert (before - after, after - before) == ({uuid(numbers[step])}, {uuid(9000 - step)})
    assert len(state.acl.tokens) == kept
    # What is changed takes nobody's place, nor does the login of another identity, or what is refused.
    [old] = [found for found in state.acl.tokens if found.accessor_id == uuid(9000)]
    assert len(applied(state, SetToken(replace(old, description="x"), old.modify_index)).acl.tokens) == kept
    assert len(applied(state, SetToken(login(5, "other"))).acl.tokens) == kept + 1
    refused(state, SetToken(login(5, "web", secret_hash=old.secret_hash)), "secret_exists")
    refused(state, SetToken(login(9000, "web")), "exists")


def test_login_that_has_expired_goes_before_an_older_one_that_has_not() -> None:
    state = logins_allowed()
    for number in range(1, MAX_OF_AN_IDENTITY + 1):
        state = applied(state, SetToken(login(number, "web", expires_at=NOW + (5 if number == 40 else 500))))
    after = applied(state, SetToken(login(9000, "web", created_at=NOW + 5)))
    assert {found.accessor_id for found in state.acl.tokens} - {found.accessor_id for found in after.acl.tokens} == {
        uuid(40)
    }


def test_identity_takes_its_own_place_where_logins_have_all_of_theirs() -> None:
    own = [login(number, "web", create_index=number) for number in range(1, MAX_OF_AN_IDENTITY + 1)]
    rest = (login(number, str(number)) for number in range(MAX_OF_AN_IDENTITY + 1, MAX_TOKENS - RESERVED_TOKENS))
    state = with_tokens(logins_allowed(), (*own, *rest))
    after = applied(state, SetToken(login(MAX_TOKENS, "web")))
    assert uuid(1) not in {found.accessor_id for found in after.acl.tokens}
    assert len(after.acl.tokens) == len(state.acl.tokens)


def test_own_backup_brings_back_no_token_and_no_bootstrap() -> None:
    early = applied(ready(), SetToken(token()))
    late = applied(applied(early, DeleteTokens((uuid(1),))), BootstrapAcl(token(2)))
    after = applied(late, RestoreCA(late.ca_index, early))
    assert after.acl == late.acl
    assert after.acl_index == late.acl_index


def test_own_backup_is_one_however_its_trust_domain_is_spelt() -> None:
    """Bounds keep other spellings out of commands; that what is applied does not rest on them is seen here."""
    here = replace(applied(ready(), SetToken(token())), config=samples.config(cluster_id="abcdef01"))
    there = replace(here, acl=replace(here.acl, tokens=()), config=samples.config(cluster_id="ABCdef01"))
    after, result = apply(here, RestoreCA(here.ca_index, there))
    assert isinstance(result, Applied)
    assert after.acl == here.acl
    assert after.trust_domain == here.trust_domain == "abcdef01.consul"


@pytest.mark.parametrize("is_used_here", [False, True])
@pytest.mark.parametrize("is_used_there", [False, True])
def test_backup_of_another_cluster_brings_its_access_and_no_second_bootstrap(
    *, is_used_here: bool, is_used_there: bool
) -> None:
    here, there = ready(), applied(ready(), SetPolicy(policy()))
    there = replace(there, config=samples.config(cluster_id=samples.OTHER_CLUSTER_ID))
    if is_used_here:
        here = applied(here, BootstrapAcl(token(1)))
    if is_used_there:
        there = applied(there, BootstrapAcl(token(2)))
    after = applied(here, RestoreCA(here.ca_index, there))
    assert [found.policy_id for found in after.acl.policies] == [found.policy_id for found in there.acl.policies]
    assert [found.accessor_id for found in after.acl.tokens] == [found.accessor_id for found in there.acl.tokens]
    assert (after.acl.bootstrap_index != 0) is (is_used_here or is_used_there)
    assert after.acl_index == after.index


def test_backup_from_before_access_control_leaves_it_alone() -> None:
    here = applied(ready(), SetToken(token()))
    there = replace(samples.ready(), config=samples.config(cluster_id=samples.OTHER_CLUSTER_ID))
    assert applied(here, RestoreCA(here.ca_index, there)).acl == here.acl


def test_new_data_key_seals_the_key_and_every_method_again() -> None:
    state = applied(ready(), SetAuthMethod(method()))
    seal = replace(samples.SEAL, wrapped_key=b"another")
    key, methods = replace(KEY, sealed=b"anew"), tuple(replace(found, sealed=b"anew") for found in state.acl.methods)
    for wrong in ((None, methods), (key, ()), (key, (replace(methods[0], description="other"),))):
        refused(state, Reseal(state.ca_index, seal, state.providers, *wrong), "access_differs")
    after = applied(state, Reseal(state.ca_index, seal, state.providers, key, methods))
    assert after.acl == replace(state.acl, key=key, methods=methods)
    assert samples.ready().acl == Acl()


class Unwalked(tuple[Token, ...]):
    """A table that nobody goes through from end to end."""

    def __iter__(self) -> Iterator[Token]:
        raise AssertionError("it is looked through, for each who waits and each login")


def test_what_is_looked_up_by_its_key_is_found_without_a_look_at_all() -> None:
    tokens = Unwalked(replace(token(1), accessor_id=uuid(number)) for number in range(1, 100))
    acl = replace(Acl(), tokens=tokens)
    for number in (1, 50, 99):
        assert find(acl, "tokens", uuid(number)) is tokens[number - 1]
    assert find(acl, "tokens", uuid(0)) is find(acl, "tokens", uuid(100)) is find(Acl(), "tokens", uuid(1)) is None
