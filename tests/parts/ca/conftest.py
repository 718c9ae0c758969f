"""A leader with a CA."""

from collections.abc import AsyncIterator

import pytest

from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running


@pytest.fixture
async def node(cluster: FakeCluster) -> AsyncIterator[Node]:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        yield node
