"""Fixtures for tests with other people's clients."""

from tests.integration.conftest import shared_cluster
from tests.kit.real_cluster import cluster

__all__ = ["cluster", "shared_cluster"]
