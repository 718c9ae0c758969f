"""Fixtures for tests against real nodes."""

from tests.integration.cluster_harness import cluster

__all__ = ["cluster"]
