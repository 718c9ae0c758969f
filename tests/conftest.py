"""A cluster without consensus for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.fake_cluster import FakeCluster
from tests.kit.rpc_nodes import cluster_with_ports, write_tls_files


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    cluster = FakeCluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def tls_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA of servers and the certificates of a, b and c."""
    directory = tmp_path_factory.mktemp("tls")
    write_tls_files(directory)
    return directory


@pytest.fixture
def rpc_cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """As `cluster`, with RPC addresses on which nodes can listen."""
    cluster = cluster_with_ports(tmp_path)
    yield cluster
    cluster.close()
