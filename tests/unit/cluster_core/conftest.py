"""A cluster without consensus for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cluster_core.fake_cluster import FakeCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    cluster = FakeCluster(tmp_path)
    yield cluster
    cluster.close()
