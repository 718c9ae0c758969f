"""The operations of a worker, in this process."""

import json
import socket
from typing import Any

import msgpack
import pytest

from cluster.seal.cover import Cover
from cluster.seal.keeper import new_cover_key
from cluster.signing.worker import FRAME_HEADER, Host, serve
from providers.errors import NotInitialized
from tests.kit import pki

KEY = "k"
#: Every operation that needs a configured provider, with arguments behind its key.
WITH_PROVIDER: dict[str, tuple[Any, ...]] = {
    "prepare_root": (b"\1", "abc", pki.NOW),
    "root_to_adopt": (),
    "generate_root": (),
    "renew_signing_cert": (),
    "warnings": (),
    "sign_leaves": ((pki.TRUST_DOMAIN, "dc1", "consul"), pki.NOW, []),
    "supports_cross_signing": (),
    "cross_sign": ("", b"\1", pki.NOW, pki.NOW),
    "cleanup": (False,),
}
WITHOUT_PROVIDER = {"configure", "forget", "check_csr", "make_csr", "private_key_fits", "warm_up"}
OF_NODES = {"check_agent_ca", "sign_node"}
COVER = Cover(new_cover_key())


def test_every_operation_is_in_one_of_the_tables() -> None:
    assert set(Host(COVER).operations) == WITHOUT_PROVIDER | set(WITH_PROVIDER) | OF_NODES


@pytest.mark.parametrize("operation", WITH_PROVIDER)
def test_provider_that_was_forgotten_is_not_initialized(operation: str) -> None:
    """As at the end of leadership: nothing has failed, and the next leader can do it."""
    host = Host(COVER)
    host.configure(KEY, "consul", pki.CLUSTER_ID, "dc1", True, json.dumps({}), {}, b"")
    host.forget(KEY)
    with pytest.raises(NotInitialized, match="provider not initialized"):
        host.operations[operation](KEY, *WITH_PROVIDER[operation])


def test_parent_that_is_gone_before_the_first_word_ends_it_quietly() -> None:
    """A node that stops right after it has lost its leadership closes on processes that have just been started."""
    ours, theirs = socket.socketpair()
    ours.close()
    serve(theirs, COVER)
    theirs.close()


def test_parent_that_is_gone_before_an_answer_ends_it_quietly() -> None:
    ours, theirs = socket.socketpair()
    body = msgpack.packb([1, "check_csr", [pki.TRUST_DOMAIN, "dc1", "rubbish"]])
    ours.sendall(FRAME_HEADER.pack(len(body)) + body)
    ours.close()
    serve(theirs, COVER)
    theirs.close()
