"""The leader is asked with other people's tokens all the time, and keeps none: when it has answered, nothing that is in
use refers to one. (What is free in its memory is used again at some time.)
"""

import asyncio
import gc
import json
from collections.abc import Iterator

import pytest

from cluster.access.first import first_acl
from cluster.access.secret_ids import new_key
from cluster.base.errors import PermissionDenied
from cluster.rpc.messages import ACL_BOOTSTRAP, ACL_PUT, SIGN, AclBootstrapRequest, AclPutRequest, SignRequest
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import Node

#: From behind: what this test itself keeps must not be found.
_CHOSEN = "19a8b7c6d5e4-3f2a-1b0c-4d8e-7f6a5b4c"
_UNKNOWN = "29a8b7c6d5e4-3f2a-1b0c-4d8e-7f6a5b4c"


def _written(behind: str) -> str:
    return behind[::-1]


def _holders(behind: str) -> Iterator[str]:
    """What refers to a text that has the token in it."""
    text = _written(behind)
    data = text.encode()
    for holder in gc.get_objects():
        for value in gc.get_referents(holder):
            if (isinstance(value, str) and text in value) or (isinstance(value, bytes | bytearray) and data in value):
                yield f"{type(holder).__module__}.{type(holder).__qualname__}: {value[:300]!r}"


async def _use(node: Node) -> None:
    key, bare = new_key(node.sealer)
    node.cluster.commit(first_acl(key, bare, int(node.clock.now())))
    operator = (await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))).secret_id
    body = {"SecretID": _written(_CHOSEN), "ServiceIdentities": [{"ServiceName": "web"}]}
    await node.operations.run(ACL_PUT, AclPutRequest("tokens", "", json.dumps(body)), operator)
    csr_pem = service_csr(node.cluster.state.trust_domain)
    await node.operations.run(SIGN, SignRequest(csr_pem, serial(1), "x"), _written(_CHOSEN))
    for number in range(2):
        with pytest.raises(PermissionDenied):
            await node.operations.run(SIGN, SignRequest(csr_pem, serial(2 + number), "x"), _written(_UNKNOWN))


async def test_token_is_kept_for_no_longer_than_the_request(node: Node) -> None:
    kept = [_written(_CHOSEN)]
    gc.collect()
    assert any(found.startswith("builtins.list: ") for found in _holders(_CHOSEN)), "the search would not find one"
    kept.clear()
    await _use(node)
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert [*_holders(_CHOSEN), *_holders(_UNKNOWN)] == []
