"""Fixtures: the commands, against a node that keeps ACL objects."""

from collections.abc import Iterator

import pytest

from tests.kit.fake_acl_api import ROOT, FakeAclApi
from tests.kit.fake_api import serving_one


@pytest.fixture(autouse=True)
def _private(private_files: None) -> None:
    """Files with tokens are read only so."""


@pytest.fixture(scope="package")
def _server() -> Iterator[FakeAclApi]:
    with serving_one(FakeAclApi()) as fake:
        yield fake


@pytest.fixture
def api(_server: FakeAclApi, monkeypatch: pytest.MonkeyPatch) -> FakeAclApi:
    """Bootstrapped; the environment names the node, and the token that may do everything."""
    vars(_server).update(vars(FakeAclApi(_server.address).started()))
    monkeypatch.setenv("QUORUMCA_HTTP_ADDR", _server.address)
    monkeypatch.setenv("QUORUMCA_HTTP_TOKEN", ROOT)
    return _server
