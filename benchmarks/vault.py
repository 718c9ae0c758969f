"""Signing with the keys in a real OpenBao, beside a cluster of its own.

The server is the one of the tests: TLS, Raft storage on disk, initialised and unsealed for this run.
"""

from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.csrs import make_csrs
from benchmarks.measure import Bench, Effort
from benchmarks.nodes import running_cluster
from benchmarks.results import ThroughVault
from tests.kit.vault_server import VaultServer, bao_binary, running_vault


def measure_through_vault(
    directory: Path, effort: Effort, pool: int, say: Callable[[str], None] = print
) -> ThroughVault | None:
    """With so many different CSRs. None where no server is installed for this platform. Raises: BenchError."""
    if bao_binary() is None:
        say("no OpenBao is installed: nothing is measured through Vault")
        return None
    server_dir, cluster_dir = directory / "server", directory / "cluster"
    for made in (server_dir, cluster_dir):
        made.mkdir(parents=True)
    # By its absolute path: the server reads it from its configuration.
    with running_vault(server_dir.absolute()) as server, running_cluster(cluster_dir) as cluster:
        assert server.process is not None
        beside = [psutil.Process(server.process.pid)]
        csrs = make_csrs(pool, cluster.configure("vault", server.config()))
        say(f"the keys are in {_name(server)} ...")
        return Bench(cluster, csrs, effort, say, beside).through_vault(_name(server))


def _name(server: VaultServer) -> str:
    return f"OpenBao {server.call('GET', 'sys/health')['version']}"
