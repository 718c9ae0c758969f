"""A cluster of real nodes for tests: one `quorumca agent` process each, on ports that are free now, in a directory of
the test's.

    async with LocalCluster(tmp_path, nodes=3, settings={"limits": {"signing_workers": 1}}) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        await cluster.kill(await cluster.leader())

However the test ends, no process is left. The ends of the nodes' logs are printed, which pytest shows with a failure.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.cli.dev.cluster_file import ClusterFile
from cluster.cli.dev.local_cluster import LocalNode, make_node, make_shared
from cluster.cli.dev.supervisor import NodeProcess, StopSignals, start_node, tail, wait_until_serving
from tests.kit.ports import free_ports
from tests.kit.wait import eventually, until

Settings = Mapping[str, Mapping[str, Any]]

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
_ASK_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.05
_LOG_LINES = 30
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(eq=False)
class Node:
    """One node, and its process if it was started."""

    local: LocalNode
    started: NodeProcess | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.local.name

    @property
    def url(self) -> str:
        return f"http://{self.local.http}"

    @property
    def data_dir(self) -> Path:
        return self.local.data_dir

    @property
    def is_running(self) -> bool:
        return self.started is not None and not self.started.has_ended

    @property
    def pid(self) -> int:
        assert self.started is not None, f"{self.name} was not started"
        return self.started.process.pid

    def log_tail(self, lines: int = _LOG_LINES) -> str:
        return "\n".join(tail(self.local.log, lines))


@dataclass(frozen=True)
class Answer:
    """What a node answered."""

    status: int
    text: str
    headers: Mapping[str, str]

    def json(self) -> Any:
        assert self.status == 200, f"answered {self.status}: {self.text}"
        return json.loads(self.text)


class LocalCluster:
    """Makes the files of `nodes` nodes; `start` and its like run them. `settings`: more of each node's configuration,
    by section.
    """

    def __init__(self, root: Path, nodes: int = 3, settings: Settings | None = None) -> None:
        self.root = root
        self._settings = settings
        ports = free_ports(3 * nodes)
        self.founders = [self._local(k + 1, ports[3 * k : 3 * k + 3]) for k in range(nodes)]
        make_shared(root)
        self.nodes = [self._made(local) for local in self.founders]
        self.former: list[Node] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "LocalCluster":
        # No connection is used twice: the node may have been killed in between.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=_ASK_SECONDS), trust_env=False
        )
        # aiohttp would send a PUT again when the connection ends: a write could take effect and be called refused.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for node in (*self.nodes, *self.former):
            _kill_session(node)
        for node in (*self.nodes, *self.former):
            print(f"--- the log of {node.name} ends:\n{node.log_tail()}")
        if self._session is not None:
            await self._session.close()

    # -- processes

    def start(self, node: Node) -> None:
        assert not node.is_running, f"{node.name} runs already"
        node.started = start_node(node.local)

    def start_through(self, node: Node, launcher: str, argument: Path, open_files: int | None = None) -> None:
        """By `python -m launcher argument agent --config ...`, a module of the tests; output is added to its log."""
        program = [*_limited(open_files), sys.executable, "-P", "-m", launcher, str(argument)]
        self._run(node, program, {**os.environ, "PYTHONPATH": str(_PROJECT)})

    def start_by(self, node: Node, python: Path) -> None:
        """By another interpreter: what is installed for it runs, and nothing of this checkout is on its path."""
        self._run(node, [str(python), "-P", "-m", "cluster"], without_path())

    def start_with(self, node: Node, *flags: str) -> None:
        """As from a terminal, with more flags."""
        program = [sys.executable, "-P", "-m", "cluster"]
        self._run(node, program, {**os.environ, "PYTHONPATH": str(_PROJECT)}, flags)

    def start_limited(self, node: Node, open_files: int) -> None:
        """With so many descriptors at most, which the process cannot raise."""
        program = [*_limited(open_files), sys.executable, "-P", "-m", "cluster"]
        self._run(node, program, {**os.environ, "PYTHONPATH": str(_PROJECT)})

    def _run(
        self, node: Node, program: Sequence[str], environment: Mapping[str, str], flags: Sequence[str] = ()
    ) -> None:
        assert not node.is_running, f"{node.name} runs already"
        local = node.local
        with local.log.open("ab") as log:
            log_start = log.tell()
            process = subprocess.Popen(
                [*program, "agent", "--config", str(local.config), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        node.started = NodeProcess(local, process, log_start)

    async def start_all(self) -> None:
        for node in self.nodes:
            self.start(node)
        ClusterFile(self.root).put(*(node.local.entry(node.pid) for node in self.nodes))

    async def stop(self, node: Node) -> int:
        """In order, by SIGTERM; the exit code."""
        return await self.kill(node, signal.SIGTERM)

    async def kill(self, node: Node, number: signal.Signals = signal.SIGKILL) -> int:
        """By a signal that ends the process; the exit code, or less the signal's number."""
        self.send(node, number)
        await until(lambda: not node.is_running, f"{node.name} ends after {number.name}", STOP_SECONDS)
        assert node.started is not None
        return int(node.started.process.returncode)

    def send(self, node: Node, number: signal.Signals) -> None:
        """A signal that the process may survive, as SIGSTOP and SIGCONT."""
        os.kill(node.pid, number)

    async def restart(self, node: Node, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and starts it again; `wait_ready` waits until it serves."""
        if node.is_running:
            await self.kill(node, number)
        self.start(node)

    def add(self) -> Node:
        """The files of one more node, which stays passive until it is added as a peer."""
        node = self._made(self._local(len(self.nodes) + len(self.former) + 1, free_ports(3)))
        self.nodes.append(node)
        return node

    def part_with(self, node: Node) -> None:
        """It is no longer one of `nodes`, because it is to be removed as a peer; it may go on running."""
        self.nodes.remove(node)
        self.former.append(node)

    async def wait_ready(self, seconds: float = READY_SECONDS, nodes: Sequence[Node] | None = None) -> None:
        """Until these, or all that run, answer with an active root. Raises: CommandError with the ends of the logs."""
        chosen = [node for node in self.nodes if node.is_running] if nodes is None else nodes
        started = [node.started for node in chosen if node.started is not None]
        await asyncio.to_thread(wait_until_serving, started, StopSignals(), seconds)

    # -- the API

    async def ask(
        self,
        node: Node,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = _ASK_SECONDS,
    ) -> Answer:
        """One request, never repeated; a body that is not bytes is sent as JSON. Raises: aiohttp.ClientError,
        TimeoutError.
        """
        assert self._session is not None
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._session.request(
            method, f"{node.url}{path}", data=data, params=query, headers=headers, timeout=timeout
        ) as response:
            return Answer(response.status, await response.text(), response.headers)

    async def roots(self, node: Node) -> dict[str, Any]:
        return dict((await self.ask(node, "GET", "/v1/connect/ca/roots")).json())

    async def sign(self, node: Node, csr_pem: str) -> dict[str, Any]:
        """The IssuedCert object."""
        return dict((await self.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem})).json())

    async def service_uri(self, service: str = "web") -> str:
        """The SPIFFE ID of a service in this cluster."""
        roots = await self.roots(next(node for node in self.nodes if node.is_running))
        return f"spiffe://{roots['TrustDomain']}/ns/default/dc/dc1/svc/{service}"

    async def digest(self, node: Node) -> dict[str, Any]:
        """Of what this node has applied."""
        return dict((await self.ask(node, "GET", "/v1/operator/digest", query={"stale": ""})).json())

    async def wait_same_digest(self, seconds: float = 20.0) -> dict[str, Any]:
        """Until all nodes that run have applied the same; what that is."""

        async def same() -> dict[str, Any] | None:
            digests = [await self.digest(node) for node in self.nodes if node.is_running]
            return digests[0] if all(digest == digests[0] for digest in digests) else None

        return await eventually("all nodes have the same digest", same, seconds)

    async def wait_settled(self, seconds: float = 20.0) -> dict[str, Any]:
        """The digest of a new CA that nobody changes: its leader has one duty left once it can sign."""
        last = '"duty":"tidy_ledger"'
        await until(
            lambda: any(last in node.log_tail(1000) for node in self.nodes),
            "the leader has nothing left to do",
            seconds,
            pause=_LOOK_AGAIN_SECONDS,
        )
        return await self.wait_same_digest(seconds)

    async def leader(self, seconds: float = 20.0) -> Node:
        """The one that all nodes that run take for the leader, and that runs."""

        async def agreed() -> Node | None:
            running = [node for node in self.nodes if node.is_running]
            addresses = {(await self.ask(node, "GET", "/v1/status/leader")).json() for node in running}
            return next((node for node in running if {node.local.raft} == addresses), None)

        return await eventually("the nodes agree on a leader", agreed, seconds)

    # -- files

    def _local(self, number: int, ports: Sequence[int]) -> LocalNode:
        http, rpc, raft = (f"127.0.0.1:{port}" for port in ports)
        name = f"node-{number}"
        return LocalNode(name, self.root / name, http, rpc, raft)

    def _made(self, local: LocalNode) -> Node:
        make_node(self.root, local, self.founders, self._settings)
        return Node(local)


def _limited(open_files: int | None) -> list[str]:
    """The beginning of a command that may have so many files open."""
    return [] if open_files is None else ["/bin/sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh"]


def without_path() -> dict[str, str]:
    """The environment in which another interpreter takes its own code and nothing of this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _kill_session(node: Node) -> None:
    """The node and its workers: it leads a session, so its process group is all of them."""
    if node.started is None:
        return
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.started.process.wait()


def make_csr(uri: str) -> tuple[str, str]:
    """A CSR for a SPIFFE ID and its P-256 key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    csr = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=False)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    csr_pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return csr_pem.decode(), key_pem.decode()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Three nodes that serve."""
    async with LocalCluster(tmp_path) as made:
        await made.start_all()
        await made.wait_ready()
        yield made
