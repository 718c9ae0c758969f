"""What most of these tests begin with."""

from collections.abc import AsyncIterator

import pytest

from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running


@pytest.fixture
async def node(cluster: FakeCluster) -> AsyncIterator[Node]:
    """A leader whose CA is up."""
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        yield node
