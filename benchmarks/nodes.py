"""A cluster of three nodes on this machine, run by the program's own commands, and what a bench asks of it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import psutil

from cluster.cli.dev.local_cluster import make_node, make_shared, node_at

T = TypeVar("T")
Settings = Mapping[str, Mapping[str, Any]]

NODES: Final = 3
START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_LOOK_AGAIN_SECONDS: Final = 0.02
_SUPERVISED: Final = "Ctrl-C stops all nodes"
_ASK_SECONDS: Final = 10.0
_BASE_PORTS: Final = (8300, 8400, 8500)
# Below the range from which Linux takes ports for outgoing connections.
_OFFSETS: Final = range(10_000, 24_000, 100)
#: The CA as a bench wants it: Consul's defaults without the limit of 50 signatures per second.
_CONFIG: Final[Mapping[str, object]] = {
    "LeafCertTTL": "72h",
    "IntermediateCertTTL": "8760h",
    "RootCertTTL": "87600h",
    "CSRMaxPerSecond": 0,
}


class BenchError(Exception):
    """The cluster did not do what the bench needs."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node as `cluster.json` has it."""

    name: str
    pid: int
    http: str  # host:port
    raft: str
    config: str
    token: str = field(default="", repr=False)  # that everything is asked with; "": none

    def ask(self, method: str, path: str, body: object = None, *, also: int = 200) -> bytes:
        """The body of a 200, or of another status that is as good. Raises: OSError, http.client.HTTPException,
        BenchError.
        """
        with closing(http.client.HTTPConnection(self.http, timeout=_ASK_SECONDS)) as connection:
            headers = {"X-Consul-Token": self.token} if self.token else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            data = response.read()
        if response.status not in (200, also):
            raise BenchError(f"{method} {path} at {self.name}: {response.status} {data[:300].decode(errors='replace')}")
        return data

    def get(self, path: str) -> Any:
        return json.loads(self.ask("GET", path))

    def metrics(self) -> str:
        return self.ask("GET", "/v1/agent/metrics?format=prometheus").decode()

    def metric(self, name: str) -> float:
        """One without labels."""
        line = next(line for line in self.metrics().splitlines() if line.startswith(f"{name} "))
        return float(line.split()[1])

    def digest(self) -> Mapping[str, Any]:
        digest: Mapping[str, Any] = self.get("/v1/operator/digest?stale")
        return digest


class LocalCluster:
    """Made by `running_cluster`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._token = ""
        self._restarted: list[subprocess.Popen[bytes]] = []

    @property
    def nodes(self) -> list[Node]:
        return [replace(node, token=self._token) for node in read_nodes(self._data_dir / "cluster.json")]

    def bootstrap(self) -> None:
        """Access control; from now on everything is asked as its operator."""
        answer = wait_for("access control to be set up", lambda: self.leader().ask("PUT", "/v1/acl/bootstrap"))
        self._token = json.loads(answer)["SecretID"]

    def leader(self) -> Node:
        return wait_for("a leader", self._find_leader)

    def _find_leader(self) -> Node | None:
        for node in self.nodes:
            address = node.get("/v1/status/leader")
            for other in self.nodes:
                if other.raft == address:
                    return other
        return None

    def followers(self) -> list[Node]:
        leader = self.leader()
        return [node for node in self.nodes if node.name != leader.name]

    def configure(self, provider: str = "consul", config: Mapping[str, object] = MappingProxyType({})) -> str:
        """No limit on signatures, and these keys of the provider; returns the trust domain."""
        # Another provider by force: nobody trusts the root of before, and a chain from it would be more to send.
        forced = {"ForceWithoutCrossSigning": provider != "consul"}
        body = {"Provider": provider, "Config": {**_CONFIG, **config}, **forced}
        # A leader that has made its root may still be taking it into use, and refuses until it has.
        wait_for("the CA to be configured", lambda: [self.leader().ask("PUT", "/v1/connect/ca/configuration", body)])
        leader = self.leader()
        trust_domain: str = leader.get("/v1/connect/ca/roots")["TrustDomain"]
        return trust_domain

    def wait_until_alike(self) -> None:
        """Until every node has applied what the leader has, and the cluster calls itself healthy."""

        def is_alike() -> bool:
            digests = [node.digest() for node in self.nodes]
            self.nodes[0].ask("GET", "/v1/operator/autopilot/health")
            return all(digest == digests[0] for digest in digests)

        wait_for("all nodes to hold the same", is_alike)

    def ledger_records(self) -> int:
        return int(self.leader().digest()["LedgerCount"])

    def start(self, node: Node) -> None:
        """A dead node, or one that is new. It notes its process id in `cluster.json` itself, if it stands there."""
        with self.log_of(node).open("ab") as log:
            process = subprocess.Popen([_command(), "agent", "--config", node.config], stdout=log, stderr=log)
        self._restarted.append(process)

    def log_of(self, node: Node) -> Path:
        """What a node says that `start` has started."""
        return self._data_dir / f"{node.name}.restarted.log"

    def restart(self, node: Node) -> float:
        """Start a dead node again; seconds until it answers with proof that it is up to date."""
        started = time.monotonic()
        self.start(node)
        wait_for(f"{node.name} to come back", lambda: node.get("/v1/connect/ca/roots?consistent"))
        return time.monotonic() - started

    def stop_restarted(self) -> None:
        for process in self._restarted:
            _end(process, signal.SIGTERM)


@contextmanager
def running_cluster(data_dir: Path, settings: Settings | None = None) -> Iterator[LocalCluster]:
    """Start three nodes, wait until they can sign, and stop them in the end. `settings`: more of their configuration,
    by section. Raises: BenchError.
    """
    offset = _offset()
    if settings is not None:
        _make_files(data_dir, offset, settings)
    command = [_command(), "dev", "--nodes", str(NODES), "--data-dir", str(data_dir), "--port-offset", str(offset)]
    with (data_dir / "dev.log").open("ab") as log:
        # A session of its own: Ctrl-C reaches it once, through us.
        supervisor = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    cluster = LocalCluster(data_dir)
    try:
        wait_for("the cluster to start", lambda: _is_ready(cluster, supervisor, data_dir))
        yield cluster
    finally:
        _end(supervisor, signal.SIGINT)
        cluster.stop_restarted()


def _make_files(data_dir: Path, offset: int, settings: Settings) -> None:
    """What `quorumca dev` finds there is what it runs."""
    founders = [node_at(data_dir, number, offset) for number in range(1, NODES + 1)]
    make_shared(data_dir)
    for node in founders:
        make_node(data_dir, node, founders, settings)


def _is_ready(cluster: LocalCluster, supervisor: "subprocess.Popen[bytes]", data_dir: Path) -> bool:
    said = (data_dir / "dev.log").read_text(errors="replace")
    if supervisor.poll() is not None:
        raise SystemExit(f"the cluster ended with exit code {supervisor.returncode}:\n{said[-2000:]}")
    # Before it says so, a node that dies is a start that has failed, and all others are stopped.
    return _SUPERVISED in said and all(node.get("/v1/connect/ca/roots")["Roots"] for node in cluster.nodes)


def read_nodes(path: Path) -> list[Node]:
    return [
        Node(entry["name"], entry["pid"], _host_port(entry["http"]), _host_port(entry["raft"]), entry["config"])
        for entry in json.loads(path.read_text())["nodes"]
    ]


def _host_port(address: str) -> str:
    return address.rpartition("//")[2].rstrip("/")


def kill(node: Node) -> None:
    """kill -9, at once and without a word."""
    os.kill(node.pid, signal.SIGKILL)


def process_tree(pid: int) -> list[psutil.Process]:
    """A node and the processes it started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(tree: Iterable[psutil.Process]) -> float:
    """What these processes have used so far."""
    times = [process.cpu_times() for process in tree]
    return sum(time.user + time.system for time in times)


def wait_for(what: str, look: Callable[[], T | None], seconds: float = START_SECONDS) -> T:
    """The first true answer of `look`; trouble on the way counts as "not yet". Raises: BenchError."""
    deadline = time.monotonic() + seconds
    trouble = "nothing"
    while True:
        try:
            if found := look():
                return found
        except (OSError, http.client.HTTPException, ValueError, KeyError, BenchError) as error:
            trouble = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            raise BenchError(f"waited {seconds:.0f} s for {what}; the last trouble was {trouble}")
        time.sleep(_LOOK_AGAIN_SECONDS)


def _end(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command() -> str:
    return str(Path(sys.executable).with_name("quorumca"))


def _offset() -> int:
    """A port offset at which every port of the cluster is free."""
    for offset in _OFFSETS:
        if all(_is_free(base + offset + number) for base in _BASE_PORTS for number in range(NODES)):
            return offset
    raise BenchError(f"no port offset from {_OFFSETS[0]} to {_OFFSETS[-1]} has all its ports free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
