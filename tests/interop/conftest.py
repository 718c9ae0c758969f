"""Fixtures for tests with other people's clients."""

from tests.integration.cluster_harness import cluster
from tests.integration.conftest import shared_cluster

__all__ = ["cluster", "shared_cluster"]
