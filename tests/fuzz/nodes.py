"""Whole nodes: what comes to PUT snapshot, and to each operation between nodes, down to the log and the record.

The cluster is one process without consensus (tests/kit/fake_cluster.py). What would end a real node there, an error
while an entry is applied or an error of the leader's loop, is remembered here and breaks a rule, even where the request
gets an answer that looks harmless.
"""

import asyncio
import hashlib
import json
import random
import re
import shutil
import tarfile
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgpack
from aiohttp import web
from msgspec import structs

from cluster.backup import file as backup
from cluster.backup.file import SnapshotInvalid
from cluster.http.render import json_response
from cluster.http.routes.certs import _cert_object
from cluster.rpc.messages import RESTORE_CHECKED, RESTORE_JUDGED, RESTORE_PROVEN_ROWS
from cluster.rpc.operation import OLDEST, VERSION, NotUnderstood, Operation
from cluster.rpc.server import RpcServer
from cluster.signing.serials import new_serial
from fsm.codec import dump_state, load_state
from fsm.ledger import LedgerQuery
from providers.pki.serials import serial_bytes
from tests.fuzz.mutate import mutated
from tests.kit import wild_requests
from tests.kit.backups import snapshots
from tests.kit.callers import anybody
from tests.kit.csrs import service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.poison import archive
from tests.kit.seats import roomy_seats
from tests.kit.wait import until
from tests.kit.wild_requests import AnyTls, WildRequest

T = TypeVar("T")

#: Saved by the release before, with the seal key beside it: the same bytes in every process.
_GOLDEN: Final = Path(__file__).parents[1] / "parts" / "backup" / "golden"
_PARTS: Final = ("meta.json", "state.bin", "SHA256SUMS")
_COUNT: Final = re.compile(r"holds ([0-9]+) certificates, its description says")
#: After so many changes of its CA a node is made anew.
_CHANGES: Final = 40
_ROWS: Final = 50
_MILLISECONDS: Final = 40
#: In the place of a proof.
_UNPROVEN: Final = b"p" * 32


class Ended(AssertionError):
    """A real node would have ended."""


class NotUnderstoodAtAll(Exception):
    """The request was refused before anything was done for it."""


class Running:
    """A node that leads and signs; a loop of its own turns while something is asked of it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="quorumca-fuzz-")
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        path = Path(self._directory.name)
        key = path / "seal.key"
        key.touch(0o600)
        key.write_bytes((_GOLDEN / "seal.key").read_bytes())
        self.cluster = FakeCluster(path)
        self._trouble: list[BaseException] = []
        self._watch_machine()
        self.node = Node(self.cluster, "a")
        self.run(self._stack.enter_async_context(running(self.node)))
        self.run(bootstrapped(self.node))
        self._seen = self.cluster.log_index

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _watch_machine(self) -> None:
        machine = self.cluster.machine
        for name in ("apply", "commit"):
            real = getattr(machine, name)

            def watched(*arguments: Any, real: Any = real) -> Any:
                try:
                    return real(*arguments)
                except BaseException as error:
                    self._trouble.append(error)
                    raise

            setattr(machine, name, watched)

    def check(self) -> None:
        """Raises: Ended; AssertionError when what the node holds now cannot be read."""
        if self._trouble:
            raise Ended(f"an entry that no node can apply: {self._trouble[0]!r}")
        if self.cluster.leader != "a":
            self.cluster.elect("a")
        if self._seen != self.cluster.log_index:
            self._seen = self.cluster.log_index
            self.run(self._read())

    async def _read(self) -> None:
        state = self.cluster.state
        assert load_state(dump_state(state)) == state
        after = max(0, self.cluster.machine.bulk_position() - _ROWS)
        query = LedgerQuery(after=after, limit=2 * _ROWS)
        rows = await self.node.ledger.call(lambda reader: reader.search(query))
        json_response([_cert_object(row) for row in rows], {})

    async def sign(self) -> None:
        node, cluster = self.node, self.cluster
        await until(lambda: node.authority.is_ready and not node.authority.is_behind(cluster.state))
        serial = serial_bytes(new_serial())
        await node.authority.sign(service_csr(cluster.state.trust_domain), serial, "test", anybody)

    def close(self) -> None:
        """Raises: what has ended the leader's loop, if something has."""
        self.run(self._stack.aclose())
        self.cluster.close()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        shutil.rmtree(self._directory.name, ignore_errors=True)


class Fresh:
    """A node that is made when it is needed, and made anew once its CA has changed often. It must still sign then."""

    def __init__(self) -> None:
        self._running: Running | None = None
        self._changes = 0
        self._ca_index = 0

    def get(self) -> Running:
        if self._running is None:
            self._running = Running()
            self._changes, self._ca_index = 0, self._running.cluster.state.ca_index
        return self._running

    def check(self) -> None:
        node = self.get()
        node.check()
        if self._ca_index != node.cluster.state.ca_index:
            self._ca_index, self._changes = node.cluster.state.ca_index, self._changes + 1
        if self._changes >= _CHANGES:
            node.run(node.sign())
            node.check()
            self.close()

    def close(self) -> None:
        """Raises: what has ended the leader's loop, if something has."""
        if self._running is not None:
            running, self._running = self._running, None
            running.close()


class Restores:
    """PUT snapshot. The first byte says how the rest comes into a file, and whether an operator says that it is meant;
    the deeper ones have a MAC that is right: as if the cluster had saved them itself.
    """

    FORCED, WHOLE, CONTENT, SIGNED, STATE = 1, 0, 2, 4, 6

    def __init__(self) -> None:
        self._fresh = Fresh()
        self.close = self._fresh.close
        self._golden = (_GOLDEN / "previous.snapshot").read_bytes()
        with tarfile.open(fileobj=BytesIO(self._golden)) as tar:
            self._meta, self._content, _ = [_read_member(tar, name) for name in _PARTS]
        values = msgpack.Unpacker(BytesIO(self._content), max_buffer_size=1 << 30)
        _, self._state, *pages = values
        self._rows = b"".join(map(msgpack.packb, pages))
        seal = load_state(self._state).seal
        assert seal is not None
        self._seal = seal

    def seeds(self) -> list[bytes]:
        """Whole file, content, content with a MAC, state with a MAC."""
        return [
            bytes([self.WHOLE | self.FORCED]) + self._golden,
            bytes([self.CONTENT | self.FORCED]) + self._content,
            bytes([self.SIGNED]) + self._content,
            bytes([self.STATE]) + self._state,
        ]

    def __call__(self, data: bytes) -> object:
        way, body = data[0] if data else 0, data[1:]
        try:
            return self._restored(self._file(way, body, None), is_forced=bool(way & self.FORCED))
        except SnapshotInvalid as error:
            found = _COUNT.search(str(error))
            if found is None:
                raise
            file = self._file(way, body, int(found[1]))  # so that rows that are added or missing come further
            return self._restored(file, is_forced=bool(way & self.FORCED))

    def _restored(self, file: bytes, *, is_forced: bool) -> object:
        node = self._fresh.get()
        path = Path(node.cluster.directory, "uploaded.tgz")
        path.write_bytes(file)
        try:
            return node.run(snapshots(node.node).restore(path, is_forced=is_forced))
        finally:
            self._fresh.check()

    def _file(self, way: int, body: bytes, count: int | None) -> bytes:
        kind = way & self.STATE
        if kind == self.WHOLE:
            return body
        content = msgpack.packb(1) + msgpack.packb(body) + self._rows if kind == self.STATE else body
        meta = self._meta if count is None else json.dumps({**json.loads(self._meta), "certificates": count}).encode()
        sums = backup._sums_of(meta, hashlib.sha256(content).hexdigest())
        if kind != self.CONTENT:
            mac = self._fresh.get().node.sealer.opened(self._seal).mac
            sums += backup._MAC_LINE.format(mac(sums).hex()).encode()
        return archive(dict(zip(_PARTS, (meta, content, sums), strict=True)))


def _golden_state() -> bytes:
    return Restores().seeds()[-1][1:]


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


_PROVEN: Final[dict[str, Operation[Any, Any]]] = {
    operation.name: operation for operation in (RESTORE_JUDGED, RESTORE_CHECKED, RESTORE_PROVEN_ROWS)
}


VERSIONS: Final = range(OLDEST, VERSION + 1)


class Requests:
    """Every operation, as another server asks for it: its number, the version of the wire, and the request."""

    NAMES: Final = tuple(wild_requests.REQUESTS)

    def __init__(self) -> None:
        restore = [_golden_state(), b"sums", "", True, 0, _UNPROVEN]
        rows = [*wild_requests.REQUESTS[RESTORE_PROVEN_ROWS.name][:2], "", 0, _UNPROVEN]
        self._good = {
            **wild_requests.REQUESTS,
            RESTORE_JUDGED.name: restore,
            RESTORE_CHECKED.name: restore,
            RESTORE_PROVEN_ROWS.name: rows,
        }
        self._fresh = Fresh()
        self.close = self._fresh.close
        self._server: tuple[Node, RpcServer] | None = None

    def seeds(self) -> list[bytes]:
        return [
            bytes([number, version]) + msgpack.packb(_in_version(good, version))
            for number, good in enumerate(self._good.values())
            for version in VERSIONS
        ]

    def mutate(self, seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
        """Most of them as values, the others as bytes."""
        if rng.random() < 0.2:
            data = mutated(
                [seed[2:] for seed in seeds if len(seed) > 2], [old[2:] for old in kept if len(old) > 2], rng
            )
            return bytes([rng.randrange(len(self.NAMES)), rng.randrange(OLDEST, VERSION + 1)]) + data
        number, version = rng.randrange(len(self.NAMES)), rng.randrange(OLDEST, VERSION + 1)
        value = _in_version(self._good[self.NAMES[number]], version)
        for _ in range(rng.choice((1, 1, 2))):
            value = wild_requests.mutated(value, rng)
        return bytes([number, version]) + bytes(msgpack.packb(value, unicode_errors="surrogatepass"))

    def __call__(self, data: bytes) -> object:
        number, version = (*data[:2], 0, 0)[:2]
        operation = self.NAMES[number % len(self.NAMES)]
        version = OLDEST + (version - OLDEST) % (VERSION - OLDEST + 1)
        body = b"\x92" + msgpack.packb(_MILLISECONDS) + b"\x91" + self._proven(operation, data[2:], version)
        asked = WildRequest(operation, body, version)
        node = self._fresh.get()
        members = node.cluster.members, node.cluster.removed
        try:
            response = node.run(self._server_of(node.node)._handle(cast(web.Request, asked)))
        finally:
            node.cluster.members, node.cluster.removed = members
            self._fresh.check()
        assert isinstance(response.body, bytes)
        if response.status == 400:
            raise NotUnderstoodAtAll(response.body.decode())
        assert response.status == 200, response.status
        [[error, result]] = msgpack.unpackb(response.body)
        if error is not None and "is not understood" in error[1]:
            raise NotUnderstoodAtAll(error[1])
        # An error that nobody has foreseen is told by its type alone (cluster/base/wire.py).
        assert error is None or not error[1].endswith(" on the leader"), error
        return error or result

    def _proven(self, operation: str, request: bytes, version: int) -> bytes:
        """To restore takes a proof that only a server can give, for the CA as it is. With it, what comes after is
        reached, too.
        """
        asked = _PROVEN.get(operation)
        if asked is None:
            return request
        try:
            wanted = asked.request.unpack(request, version)
        except NotUnderstood:
            return request
        running = self._fresh.get()
        seal = running.cluster.state.seal
        if wanted.proof != _UNPROVEN or seal is None:
            return request
        if wanted.ca_index == 0:
            wanted = structs.replace(wanted, ca_index=running.cluster.state.ca_index)
        if getattr(wanted, "trust_domain", None) == "":
            wanted = structs.replace(wanted, trust_domain=running.cluster.state.trust_domain)
        proof = running.node.sealer.opened(seal).proof(wanted.unproven())
        return asked.request.pack(structs.replace(wanted, proof=proof), version)

    def _server_of(self, node: Node) -> RpcServer:
        if self._server is None or self._server[0] is not node:
            tls = cast(Any, AnyTls())
            server = RpcServer(node.replica.real, node.operations, tls, node.log, node.metrics, roomy_seats("rpc"))
            self._server = node, server
        return self._server[1]


def _in_version(request: list[Any], version: int) -> Any:
    """In the first version, what has one field is that field alone (cluster/rpc/operation.py)."""
    if version > 1 or len(request) > 1:
        return request
    return request[0] if request else None
