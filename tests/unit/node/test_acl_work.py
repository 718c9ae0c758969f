"""What is to be deleted and cannot be there: told as what is not there, and nothing is proposed."""

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.base.errors import BadRequest, NotFound
from cluster.node.acl_work import AclWork
from cluster.rpc.messages import AclDeleteRequest
from fsm.acl import ANONYMOUS, GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY
from tests.kit.acl_samples import KEY, uuid
from tests.kit.callers import MANAGER
from tests.kit.clock import FakeClock


def leader() -> AclWork:
    """One that fails when it is to commit anything."""
    nothing: Any = None
    replica: Any = SimpleNamespace(state=SimpleNamespace(acl=SimpleNamespace(key=KEY)))
    return AclWork(replica, nothing, nothing, nothing, nothing, "dc1", FakeClock(), nothing)


@pytest.mark.parametrize(
    "key", ["", "x", uuid(0xABC).upper(), f"{uuid(1)}0", uuid(1)[:-1], f"{{{uuid(1)}}}", "é", "\0"]
)
@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("policies", "Cannot find policy to delete"),
        ("roles", "Cannot find role to delete"),
        ("binding_rules", "Cannot find binding rule to delete"),
    ],
)
async def test_key_that_is_no_id(table: str, text: str, key: str) -> None:
    with pytest.raises(NotFound, match=text):
        await leader().delete(AclDeleteRequest(table, key), lambda: MANAGER)


@pytest.mark.parametrize("key", ["", "x", f"{uuid(1)}0"])
async def test_token_has_consuls_other_words(key: str) -> None:
    with pytest.raises(BadRequest, match="Accessor ID is missing or an invalid UUID"):
        await leader().delete(AclDeleteRequest("tokens", key), lambda: MANAGER)


@pytest.mark.parametrize("key", ["", "a b", "a/b", "x" * 129])
async def test_name_that_no_method_has(key: str) -> None:
    with pytest.raises(NotFound, match="Cannot find auth method to delete"):
        await leader().delete(AclDeleteRequest("methods", key), lambda: MANAGER)


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        ("policies", GLOBAL_MANAGEMENT, "Delete operation not permitted on the builtin global-management policy"),
        ("policies", GLOBAL_READ_ONLY, "Delete operation not permitted on the builtin builtin/global-read-only policy"),
        ("tokens", ANONYMOUS, "Delete operation not permitted on the anonymous token"),
        ("tokens", MANAGER.accessor_id, "Deletion of the request's authorization token is not permitted"),
        ("nosuch", "x", "is no table of access control"),
    ],
)
async def test_what_may_not_go(table: str, key: str, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        await leader().delete(AclDeleteRequest(table, key), lambda: MANAGER)
