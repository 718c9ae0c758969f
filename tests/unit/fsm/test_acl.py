"""What each command of access control does to the state, and when it is refused."""

from dataclasses import replace

import pytest

from fsm.acl import (
    ANONYMOUS,
    GLOBAL_MANAGEMENT,
    Acl,
    BootstrapAcl,
    DeleteAuthMethod,
    DeletePolicy,
    DeleteTokens,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetToken,
)
from fsm.apply import apply
from fsm.ca import Reseal
from fsm.commands import Command, Rejected, RestoreCA
from fsm.state import State
from tests.kit import samples
from tests.kit.acl_samples import INIT, KEY, binding_rule, method, policy, token, uuid
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


def test_own_backup_brings_back_no_token_and_no_bootstrap() -> None:
    early = applied(ready(), SetToken(token()))
    late = applied(applied(early, DeleteTokens((uuid(1),))), BootstrapAcl(token(2)))
    after = applied(late, RestoreCA(late.ca_index, early))
    assert after.acl == late.acl
    assert after.acl_index == late.acl_index


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
