"""What every cluster has of access control from its first moment: Consul's two policies, and the anonymous token."""

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.first import ANONYMOUS_SECRET, first_acl
from cluster.access.rules import NAMELESS, parse_rules
from cluster.access.secret_ids import hash_of
from cluster.api.access import Level, Resource
from tests.kit.acl_samples import KEY

FIRST = first_acl(KEY, b"k" * 32, 1_800_000_000)


def test_ids_and_names_are_consuls() -> None:
    assert [(policy.policy_id, policy.name) for policy in FIRST.policies] == [
        ("00000000-0000-0000-0000-000000000001", "global-management"),
        ("00000000-0000-0000-0000-000000000002", "builtin/global-read-only"),
    ]
    anonymous = FIRST.anonymous
    assert (anonymous.accessor_id, anonymous.description) == (
        "00000000-0000-0000-0000-000000000002",
        "Anonymous Token",
    )
    assert anonymous.secret_hash == hash_of(ANONYMOUS_SECRET, b"k" * 32)
    assert (anonymous.policies, anonymous.roles) == ((), ())
    assert (anonymous.service_identities, anonymous.node_identities) == ((), ())


@pytest.mark.parametrize(("number", "level"), [(0, Level.WRITE), (1, Level.READ)])
def test_rules_give_one_level_on_everything(number: int, level: Level) -> None:
    authorizer = Authorizer(parse_rules(FIRST.policies[number].rules), allows_by_default=False)
    for resource in set(Resource) - {Resource.IDENTITY}:
        for name in ("",) if resource in NAMELESS else ("web", "x/y"):
            found = [one for one in (Level.READ, Level.WRITE) if authorizer.allows(resource, one, name)]
            assert found == [one for one in (Level.READ, Level.WRITE) if one <= level], (resource, name)
    assert authorizer.intends(level, "web")
    assert authorizer.intends(Level.WRITE, "web") == (level is Level.WRITE)
