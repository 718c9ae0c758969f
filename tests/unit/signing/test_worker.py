"""The operations of a worker, in this process."""

import json
from typing import Any

import pytest

from cluster.signing.worker import Host
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
    "cleanup": (),
}
WITHOUT_PROVIDER = {"configure", "forget", "check_csr", "make_csr", "warm_up"}


def test_every_operation_is_in_one_of_the_tables() -> None:
    assert set(Host().operations) == WITHOUT_PROVIDER | set(WITH_PROVIDER)


@pytest.mark.parametrize("operation", WITH_PROVIDER)
def test_provider_that_was_forgotten_is_not_initialized(operation: str) -> None:
    """As at the end of leadership: nothing has failed, and the next leader can do it."""
    host = Host()
    host.configure(KEY, "consul", pki.CLUSTER_ID, "dc1", True, json.dumps({}), b"")
    host.forget(KEY)
    with pytest.raises(NotInitialized, match="provider not initialized"):
        host.operations[operation](KEY, *WITH_PROVIDER[operation])
