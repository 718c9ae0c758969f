"""Fixtures for tests against real nodes, and their measurements in the summary at the end of a run."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit.real_cluster import LocalCluster, cluster

__all__ = ["cluster", "shared_cluster"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """Three nodes that serve, for all tests of a module marked `asyncio(loop_scope="module")`: none may harm them."""
    async with LocalCluster(tmp_path_factory.mktemp("cluster")) as made:
        await made.start_all()
        await made.wait_ready()
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have recorded with `record_property`."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call" and report.user_properties:
                facts = ", ".join(f"{name}: {value}" for name, value in report.user_properties)
                terminalreporter.write_line(f"{report.nodeid}: {facts}")
