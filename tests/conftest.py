"""A cluster without consensus for each test; and the order of files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.kit.fake_cluster import FakeCluster
from tests.kit.rpc_nodes import cluster_with_ports, write_tls_files

#: A file is run by one process. These take a minute and more: begun last, one of them would be waited for alone.
_FIRST: Final = (
    "sim/test_seeds.py",
    "continuity/test_continuity.py",
    "integration/test_vault_cluster.py",
    "chaos/test_chaos.py",
    "integration/test_docs.py",
    "integration/test_killed_at_steps.py",
    "upgrade/test_upgrade.py",
    "integration/test_vault.py",
    "integration/test_membership.py",
    "integration/test_killed_at_vault_steps.py",
    "integration/test_secrets.py",
    "fuzz/test_fuzz.py",
    "integration/test_recovery.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {str(Path(__file__).parent / name): rank for rank, name in enumerate(_FIRST)}
    if unknown := [name for name in ranks if not Path(name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py, _FIRST: there is no {', '.join(unknown)}")
    items.sort(key=lambda item: ranks.get(str(item.path), len(ranks)))


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
