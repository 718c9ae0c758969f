"""The decoders of everything that comes from a disk, a peer or a client, each behind one function that takes bytes.

A target returns what it understood (any value) or raises one of the errors that its decoder documents. What a checksum
protects is fuzzed twice: as it is, and with the checksum made right after the change, or nothing would get further.
A decoder that says no by something else than an error, such as a cut connection, has a target that raises `Refused`:
what is accepted and what is refused is counted for all of them.
"""

import asyncio
import contextlib
import json
import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast, get_args

import msgpack
from aiohttp import web
from cryptography import x509

from cluster.backup.content import ContentRefused, check_content
from cluster.backup.file import SnapshotInvalid
from cluster.base.errors import Refused as RestoreRefused
from cluster.base.telemetry import Metrics
from cluster.ca.opened import Opener
from cluster.ca.roots import root_of
from cluster.http.render import json_response
from cluster.http.routes.certs import _cert_object
from cluster.raft import codec as raft_codec
from cluster.raft import snapshot
from cluster.raft.admission import Admission, Standing
from cluster.raft.codec import FRAME_HEADER, Message, MessageInvalid, pack_frame
from cluster.raft.journal import Journal, JournalDamaged
from cluster.raft.machine import ReplicatedMachine
from cluster.raft.macs import FileMacs
from cluster.raft.membership import ChangeKind, MembershipChange
from cluster.raft.replica import Leadership
from cluster.raft.skips import FILE as SKIPS
from cluster.raft.skips import Skip, load_skips, save_skips
from cluster.raft.snapshot import Snapshot, SnapshotDamaged
from cluster.raft.transport import TlsLinks, _Inbound
from cluster.rpc import messages as rpc_messages
from cluster.rpc.operation import OLDEST, VERSION, Judged, NotUnderstood, Operation
from cluster.rpc.operation import Message as RpcMessage
from cluster.rpc.operations import Operations, served
from cluster.rpc.server import RpcServer
from cluster.seal.keeper import CoveredRecord
from cluster.tls.keys import KEY_BYTES
from fsm import acl_rules
from fsm import codec as fsm_codec
from fsm.ca import CAConfig, ProviderState
from fsm.codec import CodecError, OutOfBounds
from fsm.commands import Rejected, RestoreCA
from fsm.fields import MAX_INDEX
from fsm.leaves import RecordLeaves
from fsm.ledger import LedgerQuery, LedgerReader
from fsm.state import State
from providers.api import CAChain, IntermediateRequest, LeafRequest
from providers.builtin.provider import BuiltinProvider
from providers.errors import CSRRejected
from providers.grants import EVERYTHING
from providers.pki import verify
from tests.crash.volume import MemoryDisk, Volume
from tests.fuzz.access import logins, rules, writes
from tests.fuzz.backups import Archives, Contents
from tests.fuzz.csr import mutants
from tests.fuzz.csr.request import der_of
from tests.fuzz.http import Answered
from tests.fuzz.http import Requests as HttpRequests
from tests.fuzz.mutate import mutated
from tests.fuzz.nodes import NotUnderstoodAtAll, Requests, Restores
from tests.fuzz.reasons import csr_reason_of, reason_of
from tests.fuzz.roots import root_pem
from tests.kit import acl_samples, pki, samples
from tests.kit.callers import ANYBODY
from tests.kit.seats import roomy_seats
from tests.kit.solo import batch
from tests.sim.cluster import member, members_of

_SEGMENT: Final = "data/wal/0000000000000001.wal"
#: In the first record; every record's checksum is also over the number of its segment.
_SEGMENT_NUMBER: Final = slice(15, 23)
_MAX_SEGMENT_NUMBER: Final = 10**12
_CHECK: Final = struct.Struct("<I")


class Refused(Exception):
    """The decoder said no, by cutting the connection or by a status; the text is its reason."""


class Unfinished(Exception):
    """The stream ended before anything could be understood or refused: the decoder waits for more."""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    seeds: Callable[[], Sequence[bytes]]
    decode: Callable[[bytes], object]
    #: The only exceptions that may come out.
    errors: tuple[type[Exception], ...]
    #: A new input from the seeds and from what the corpus has kept; the generator decides everything.
    mutate: Callable[[Sequence[bytes], Sequence[bytes], random.Random], bytes] = mutated
    #: By which refusals are counted.
    reason: Callable[[Exception], str] = reason_of
    #: What it has started ends. Raises: for what went wrong there meanwhile.
    close: Callable[[], None] = lambda: None


# -- frames between nodes


def _messages() -> list[Message]:
    entries = tuple(tuple(batch(index, 2, b"command")) for index in (5, 6))
    append = {"term": 2, "commit_index": 4, "prevLogIdx": 4, "prevLogTerm": 1, "entries": entries, "epoch": 1}
    part = {"log_index": 9, "offset": 0, "total": 4, "data": b"data"}
    return [
        {"type": "append_entries", "ct": 2, **append},
        {"type": "offer_snapshot", "ct": 2, "term": 2, "log_index": 9, "epoch": 0},
        {"type": "next_node_idx", "ct": 2, "next_node_idx": 7, "reset": False, "success": True, "epoch": 1},
        {"type": "request_vote", "ct": 3, "term": 3, "last_log_index": 6, "last_log_term": 2},
        {"type": "pre_vote_granted", "ct": 3, "round": 1, "is_fresh": False},
        {"type": "snapshot_part", "ct": 3, **part},
        {"type": "bulk_part", "ct": 3, "log_index": 9, "after": 3, "data": b"rows", "is_last": True},
        {"type": "who_is", "ct": 3, "name": "d"},
        {"type": "is_server", "ct": 3, "name": "d", "keys": (b"k" * KEY_BYTES,)},
    ]


def _frame_seeds() -> list[bytes]:
    hello = pack_frame({"type": "hello", "ct": 0, "address": "b:8300"})
    frames = [pack_frame(message) for message in _messages()]
    return [hello + frame for frame in frames] + [hello + b"".join(frames)]


class _Links:
    """What an accepted connection sees of the node, which has dialled the peer and takes every message of it."""

    node_id = "a"

    def __init__(self) -> None:
        self.tls = self.owner = self
        self.messages: list[Message] = []
        self.reason = ""
        self._dialers = {"b": None}

    def log(self, _event: str, /, **fields: object) -> None:
        self.reason = str(fields.get("reason", ""))

    def peer_name(self, _certificate: object) -> str:
        return "b"

    def peer_key(self, _connection: object) -> bytes:
        return b"k" * KEY_BYTES

    def accepted(self, link: _Inbound) -> None:
        link.standing = Standing.MEMBER

    def greeted(self, link: _Inbound, message: Message) -> None:
        TlsLinks.greeted(cast(TlsLinks, self), link, message)

    def received(self, link: _Inbound, message: Message) -> None:
        TlsLinks.received(cast(TlsLinks, self), link, message)

    def receive(self, _peer: str, message: Message) -> None:
        self.messages.append(message)

    def frame_refused(self, _peer: str, error: MessageInvalid) -> None:
        self.reason = str(error)

    def wake(self) -> None: ...


class _Transport:
    def __init__(self) -> None:
        self.is_aborted = False

    def get_extra_info(self, _name: str) -> None:
        return None

    def abort(self) -> None:
        self.is_aborted = True


def _frames(data: bytes) -> object:
    """A stream that arrives in pieces; whatever is in it, the connection only delivers messages or is cut."""
    links, transport = _Links(), _Transport()
    inbound = _Inbound(cast(TlsLinks, links))
    inbound.connection_made(cast(asyncio.Transport, transport))
    step = 1 + zlib.crc32(data) % max(1, len(data))
    for start in range(0, len(data), step):
        inbound.data_received(data[start : start + step])
        if transport.is_aborted:
            known = len(links.messages)
            inbound.data_received(data[start + step :])
            assert len(links.messages) == known, "messages from a connection that was cut"
            break
    for message in links.messages:
        assert raft_codec.unpack_message(pack_frame(message)[FRAME_HEADER.size :]) == message
    if transport.is_aborted:
        assert links.reason, "cut without a reason"
        raise Refused(links.reason)
    if not inbound._is_greeted:
        raise Unfinished("no whole frame")
    return links.messages


def _message(data: bytes) -> object:
    """The body of one frame, whose length is always right."""
    message = raft_codec.unpack_message(data)
    assert raft_codec.unpack_message(msgpack.packb(message)) == message
    return message


def _entry_seeds() -> list[bytes]:
    change = bytes([raft_codec.MEMBERSHIP]) + raft_codec.pack_change(MembershipChange(ChangeKind.LEARN, member("d")))
    keyed = replace(member("d"), keys=(b"k" * KEY_BYTES,))
    pin = bytes([raft_codec.MEMBERSHIP]) + raft_codec.pack_change(MembershipChange(ChangeKind.PIN, keyed))
    return [batch(2, 1, b"one", b"two").command, change, pin]


def _entry(data: bytes) -> object:
    return raft_codec.unpack_change(data) or raft_codec.unpack_batch(data)


# -- files


def _written_journal() -> MemoryDisk:
    disk = MemoryDisk(Volume())
    journal = Journal(disk, "data/wal")
    for index in range(1, 5):
        journal.append(b"command %d" % index, index, 1)
        journal.set_term(index, "b")
        journal.sync()
    journal.truncate_from(4)
    journal.compact_to(2)
    journal.rewrite()
    journal.sync()
    return disk


def _segment_seeds() -> list[bytes]:
    disk = _written_journal()
    written = [disk.read(f"data/wal/{name}") for name in disk.list("data/wal") if name.endswith(".wal")]
    first = MemoryDisk(Volume())
    journal = Journal(first, "data/wal")
    for index in range(1, 4):
        journal.append(b"command %d" % index, index, 1)
        journal.sync()
    return [*written, first.read(_SEGMENT)]


def _opened(segment: bytes) -> object:
    """A journal of one segment, under the number that is in it; what it accepts is a log, and it stays one."""
    number = max(1, min(int.from_bytes(segment[_SEGMENT_NUMBER], "little"), _MAX_SEGMENT_NUMBER))
    manifest = b"QCAWAL1\n" + struct.pack("<Q", number)
    image = {f"data/wal/{number:016d}.wal": segment, "data/wal/manifest": manifest + _CHECK.pack(zlib.crc32(manifest))}
    disk = MemoryDisk(Volume(image))
    journal = Journal(disk, "data/wal")
    indexes = [entry.log_index for entry in journal.entries]
    assert not indexes or indexes == list(range(indexes[0], indexes[0] + len(indexes))), indexes
    again = Journal(disk, "data/wal")
    assert (list(again.entries), again.term, again.vote) == (list(journal.entries), journal.term, journal.vote)
    return indexes


def _record_seeds() -> list[bytes]:
    """Records as `kind, length, payload`: what `_records` puts checksums to."""
    pair = struct.pack("<QQ", 1, 1)
    records = [
        (4, struct.pack("<Q", 3) + b"b"),
        (2, pair + b"one"),
        (2, struct.pack("<QQ", 2, 1) + b"two"),
        (3, struct.pack("<Q", 2)),
        (5, struct.pack("<Q", 1)),
        (6, struct.pack("<QQ", 9, 2) + b"base"),
        (8, b""),
        (9, struct.pack("<QQ", 9, 2) + b"base"),
        (10, b""),
    ]
    packed = [bytes([kind, len(payload)]) + payload for kind, payload in records]
    return [b"".join(packed), *packed]


def _records(data: bytes) -> object:
    segment = bytearray()

    def add(kind: int, payload: bytes) -> None:
        head = struct.pack("<IBI", len(payload), kind, zlib.crc32(payload))
        place = struct.pack("<QQ", 1, len(segment))
        segment.extend(head + _CHECK.pack(zlib.crc32(place + head)) + payload)

    add(1, struct.pack("<HQ", 1, 1))
    offset = 0
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        add(kind, data[offset + 2 : offset + 2 + length])
        offset += 2 + length
    add(7, b"\xa5" * 8)
    return _opened(bytes(segment))


def _snapshot_seeds() -> list[bytes]:
    state = fsm_codec.dump_state(samples.full_state())
    members = tuple(members_of("a", "b").values())
    keyed = tuple(replace(member, keys=(b"k" * KEY_BYTES,)) for member in members)
    return [Snapshot(9, 2, members, state).encode(), Snapshot(9, 2, keyed, state, frozenset("c")).encode()]


def _snapshot(data: bytes) -> object:
    decoded = snapshot.decode(data)
    assert snapshot.decode(decoded.encode()) == decoded
    return decoded


def _sealed_snapshot(data: bytes) -> object:
    return _snapshot(data[:-4] + _CHECK.pack(zlib.crc32(data[:-4])))


# -- the state machine


def _state_seeds() -> list[bytes]:
    full = samples.full_state()
    return [fsm_codec.dump_state(full), fsm_codec.dump_state(acl_samples.with_one_of_each(full))]


def _command_seeds() -> list[bytes]:
    return [fsm_codec.dump_command(command) for command in samples.COMMANDS.values()]


def _command(data: bytes) -> object:
    command = fsm_codec.load_command(data)
    assert fsm_codec.load_command(fsm_codec.dump_command(command)) == command
    return command


def _state(data: bytes) -> object:
    state = fsm_codec.load_state(data)
    assert fsm_codec.load_state(fsm_codec.dump_state(state)) == state
    return state


def _rows_seeds() -> list[bytes]:
    text = "spiffe://td/ns/default/dc/dc1/svc/web"
    rows = [
        [index, bytes([index]), 1, "web", text, b"k" * 20, b"h" * 32, 1 << 40, 1 << 41, "anonymous", request, index]
        for index, request in ((1, None), (2, b"r" * 16), (3, None))
    ]
    return [msgpack.packb(rows), msgpack.packb(rows[:1])]


class _Ledger:
    """A ledger that starts again whenever it has accepted something."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._number = 0
        self._state = fsm_codec.dump_state(State(index=MAX_INDEX, leaf_index=MAX_INDEX))
        self._machine = self._new()

    def _new(self) -> ReplicatedMachine:
        self._number += 1
        return ReplicatedMachine(f"{self._directory.name}/{self._number}.db", lambda _: None)

    def __call__(self, data: bytes) -> object:
        before = self._machine.bulk_position()
        try:
            self._machine.bulk_write(data, MAX_INDEX, self._state)
        except ValueError:
            assert self._machine.bulk_position() == before, "rows of a part that was refused"
            raise
        position = self._machine.bulk_position()
        if position != before:
            self._machine.close()
            for file in Path(self._directory.name).iterdir():
                file.unlink()
            self._machine = self._new()
        return position


class _Applied:
    """A command, whatever it says, on a state machine that has a CA: applied or rejected, and all that is stored then
    can be read as clients read it.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._number = 0
        self._machine = self._new()

    def _new(self) -> ReplicatedMachine:
        self._number += 1
        machine = ReplicatedMachine(f"{self._directory.name}/{self._number}.db", lambda _: None)
        state = acl_samples.with_one_of_each(samples.full_state())
        machine.apply(1, [fsm_codec.dump_command(RecordLeaves(samples.ISSUER, (samples.record(7),)))] * state.index)
        machine._state = state  # the records above are not those of its index, which nothing here looks at
        machine.commit(1)
        return machine

    def __call__(self, data: bytes) -> object:
        machine = self._machine
        before = machine.state
        [result] = machine.apply(2, [self._up_to_date(data)])
        machine.commit(2)
        if isinstance(result, Rejected):
            assert machine.state == before
            if result.code in ("malformed", "out_of_range"):
                raise Refused(f"{result.code}: {result.detail}")
            return result
        assert fsm_codec.load_state(fsm_codec.dump_state(machine.state)) == machine.state
        machine.apply(3, [fsm_codec.dump_command(RecordLeaves(samples.ISSUER, (samples.record(8),)))])
        machine.commit(3)
        reader = LedgerReader(f"{self._directory.name}/{self._number}.db")
        rows = reader.search(LedgerQuery(limit=10_000))
        reader.close()
        json_response([_cert_object(row) for row in rows], {})
        machine.close()
        for file in Path(self._directory.name).iterdir():
            file.unlink()
        self._machine = self._new()
        return result

    def _up_to_date(self, data: bytes) -> bytes:
        """The same made from the present state, or nearly all would be stale."""
        with contextlib.suppress(CodecError):
            command: Any = fsm_codec.load_command(data)
            if hasattr(command, "expected_index"):
                return fsm_codec.dump_command(replace(command, expected_index=self._machine.state.ca_index))
            if isinstance(command, acl_rules.Setting):
                return fsm_codec.dump_command(replace(command, replaces=self._index_of(command)))
        return data

    def _index_of(self, command: acl_rules.Setting) -> int:
        """Of what it would replace."""
        acl, key = self._machine.state.acl, acl_rules.key_of(command)
        tables = (acl.policies, acl.roles, acl.tokens, acl.methods, acl.binding_rules)
        table: Any = tables[get_args(acl_rules.Setting).index(type(command))]
        kind = type(command)
        return next((one.modify_index for one in table if acl_rules.key_of(kind(one)) == key), 0)


class _OpenSeal:
    """Opens what nobody has sealed: the cipher would refuse every change before anything is looked at."""

    def record(self, sealed: ProviderState) -> CoveredRecord:
        secrets, state, config_json = msgpack.unpackb(sealed.sealed)
        return CoveredRecord(secrets, state, config_json)


def _saved_states() -> list[bytes]:
    """A CA that was rotated once, with certificates that are what the state says of them."""
    text = '{"LeafCertTTL":"72h"}'
    config = CAConfig(pki.CLUSTER_ID, "consul", "p1", text, leaf_ttl_seconds=72 * 3600)
    pems = [root_pem(number) for number in (1, 2)]
    old, new = (root_of(CAChain(pem, pem), config, is_active=False, made_at=pki.NOW) for pem in pems)
    old = replace(old, rotated_out_at=pki.NOW, prune_at=pki.NOW + pki.DAY)
    sealed = ProviderState("p1", "consul", msgpack.packb([{}, b"", text]), is_prepared=True)
    state = State(
        9, 9, 9, 0, samples.SEAL, config, (old, replace(new, is_active=True)), (sealed,), tidied_before=pki.NOW
    )
    return [fsm_codec.dump_state(state), fsm_codec.dump_state(replace(state, roots=state.roots[1:]))]


def _saved_state(data: bytes) -> object:
    state = fsm_codec.load_state(data)
    check_content(state, cast(Opener, _OpenSeal()), pki.NOW)
    fsm_codec.check_command(RestoreCA(0, state))
    return state


def _marks(data: bytes) -> object:
    """The file of entries that are passed over."""
    disk = MemoryDisk(Volume({f"data/{SKIPS}": data}))
    found = load_skips(disk, "data")
    for macs in (None, FileMacs(b"k" * 32)):
        save_skips(disk, "data", found, macs)
        assert load_skips(disk, "data", macs) == found
    return found


def _mark_seeds() -> list[bytes]:
    disk = MemoryDisk(Volume())
    disk.make_directory("data")
    save_skips(disk, "data", {Skip(3, 1, "ab" * 32), Skip(9, 2, "cd" * 32)})
    return [disk.read(f"data/{SKIPS}")]


# -- requests

_OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = tuple(
    found for found in vars(rpc_messages).values() if isinstance(found, Operation)
)
_VERSIONS: Final = range(OLDEST, VERSION + 1)


def _message_seeds() -> list[bytes]:
    """One for each operation, side and version, which the first bytes name."""
    golden = Path(__file__).parents[1] / "unit" / "rpc" / "golden"
    seeds = []
    for version in _VERSIONS:
        written = json.loads((golden / f"v{version}.json").read_text())
        for number, operation in enumerate(_OPERATIONS):
            for side, name in enumerate(("request", "answer")):
                seeds.append(bytes([number, side, version]) + bytes.fromhex(written[operation.name][name]))
    return seeds


def _rpc_message(data: bytes) -> object:
    """What another node asks or answers, in either version, down to the values that are worked with."""
    number, side, version = (*data[:3], 0, 0, 0)[:3]
    operation = _OPERATIONS[number % len(_OPERATIONS)]
    form = operation.answer if side % 2 else operation.request
    version = _VERSIONS[(version - OLDEST) % len(_VERSIONS)]
    message = form.unpack(data[3:], version)
    assert form.unpack(form.pack(message, version), version) == message
    if isinstance(message, rpc_messages.RestoreRowsRequest | rpc_messages.ProvenRowsRequest):
        records = RecordLeaves(message.issuer_key_id, tuple(row.value() for row in message.rows))
        with contextlib.suppress(fsm_codec.OutOfBounds):  # the leader refuses it: a message has wider bounds
            fsm_codec.check_command(records)
    elif hasattr(message, "value"):
        message.value()
    return message


class _Echo(RpcMessage, frozen=True):
    text: str
    numbers: dict[str, int]


class _Rpc:
    """Bodies of requests from other nodes, for an operation that says what its argument is."""

    def __init__(self) -> None:
        async def echo(request: _Echo) -> _Echo:
            return request

        operations = Operations(
            lambda _secret_id, _before: ANYBODY,
            served(Operation(_Request.OPERATION, _Echo, _Echo, needs=Judged.BETWEEN_SERVERS), echo),
        )
        self._loop = asyncio.new_event_loop()
        self._server = RpcServer(cast(Any, self), operations, cast(Any, self), self.log, Metrics(), roomy_seats("rpc"))
        self.members = members_of("a", "b")
        self.admission = Admission(self.members)
        self.leadership = Leadership(is_ready=True)

    def log(self, _event: str, /, **_fields: object) -> None: ...
    def peer_name(self, _certificate: object) -> str:
        return "b"

    def peer_key(self, _connection: object) -> bytes:
        return b"k" * KEY_BYTES

    def __call__(self, data: bytes) -> object:
        response = self._loop.run_until_complete(self._server._handle(cast(web.Request, _Request(data))))
        assert isinstance(response.body, bytes)
        if response.status == 400:
            raise Refused(response.body.decode())
        assert response.status == 200, response.status
        outcomes = msgpack.unpackb(response.body)
        for error, result in outcomes:
            if error is None:
                text, numbers = result
                assert type(text) is str
                assert all(type(key) is str and type(value) is int for key, value in numbers.items())
            elif error[0] == "InternalError":
                assert "is not understood" in error[1]
                raise Refused("a request that is not understood")
            else:
                assert error[0] == "CommitUnknown"  # the time that a message names may be over before its work is done
        return outcomes


class _Request:
    OPERATION: Final = "echo"
    match_info: Final = {"operation": OPERATION}
    headers: Final = {"Quorumca-Rpc": "2"}
    protocol: Final = None

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.transport = _Transport()

    async def read(self) -> bytes:
        return self._body


def _rpc_seeds() -> list[bytes]:
    return [msgpack.packb([1000, [["argument", {"a": 1}], ["x", {}, "newer"]]]), msgpack.packb([0, []])]


class _Authority:
    """A CA of its own, asked as strangers ask; what it signs is judged."""

    def __init__(self) -> None:
        self._provider = BuiltinProvider()
        self._provider.configure(pki.settings())
        self._provider.prepare_root(pki.intent())
        chain, _ = self._provider.generate_root()
        self._root_pem = chain.root_pem

    def leaf(self, data: bytes) -> object:
        request = LeafRequest(data.decode("latin-1"), pki.POLICY, pki.serial(1), pki.NOW, EVERYTHING)
        leaf = self._provider.sign_leaf(request)
        verify.verify_leaf(leaf.cert_pem, {"root": [self._root_pem]}, now=pki.NOW, spiffe_id=leaf.spiffe_id)
        csr, cert = _self_signed(data), pki.load(leaf.cert_pem)
        assert leaf.spiffe_id.startswith(f"{pki.ROOT_URI}/"), leaf.spiffe_id
        assert leaf.kind == "agent" or "/dc/dc1" in leaf.spiffe_id, leaf.spiffe_id
        assert pki.spki(cert.public_key()) == pki.spki(csr.public_key())
        names = pki.value_of(cert, x509.SubjectAlternativeName)
        assert {type(name) for name in names} <= {x509.UniformResourceIdentifier, x509.DNSName, x509.IPAddress}, names
        return leaf

    def intermediate(self, data: bytes) -> object:
        request = IntermediateRequest(data.decode("latin-1"), pki.serial(1), pki.NOW)
        cert = pki.load(self._provider.sign_intermediate(request))
        assert pki.spki(cert.public_key()) == pki.spki(_self_signed(data).public_key())
        assert pki.uris(cert) == [pki.ROOT_URI]
        assert pki.value_of(cert, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
        assert cert.subject.rdns
        assert cert.subject != cert.issuer
        return cert


def _self_signed(data: bytes) -> x509.CertificateSigningRequest:
    """What was accepted, as another decoder of PEM sees it."""
    csr = x509.load_der_x509_csr(der_of(data))
    assert csr.is_signature_valid, "a key that nobody has proved to have"
    return csr


def targets() -> dict[str, Target]:
    """By name. Each call makes new ones: some keep files or loops."""
    authority = _Authority()
    archives, contents = Archives(), Contents()
    restores, requests, http = Restores(), Requests(), HttpRequests()
    found = (
        Target("frames", _frame_seeds, _frames, (Refused, Unfinished)),
        Target("message", lambda: [msgpack.packb(message) for message in _messages()], _message, (MessageInvalid,)),
        Target("entry", _entry_seeds, _entry, (MessageInvalid,)),
        Target("journal", _segment_seeds, _opened, (JournalDamaged,)),
        Target("journal-records", _record_seeds, _records, (JournalDamaged,)),
        Target("snapshot", _snapshot_seeds, _snapshot, (SnapshotDamaged,)),
        Target("snapshot-sealed", _snapshot_seeds, _sealed_snapshot, (SnapshotDamaged,)),
        Target("backup", archives.seeds, archives, (SnapshotInvalid,)),
        Target("backup-contents", contents.seeds, contents, (SnapshotInvalid,)),
        Target("command", _command_seeds, _command, (CodecError,)),
        Target("state", _state_seeds, _state, (CodecError,)),
        Target("applied", _command_seeds, _Applied(), (CodecError, Refused)),
        Target("saved-state", _saved_states, _saved_state, (CodecError, OutOfBounds, ContentRefused)),
        Target("marks", _mark_seeds, _marks, (JournalDamaged,)),
        Target("ledger-rows", _rows_seeds, _Ledger(), (ValueError,)),
        Target("rpc-messages", _message_seeds, _rpc_message, (NotUnderstood, OutOfBounds)),
        Target("rpc-body", _rpc_seeds, _Rpc(), (Refused,)),
        Target("put-snapshot", restores.seeds, restores, (RestoreRefused,), close=restores.close),
        Target(
            "rpc-operations", requests.seeds, requests, (NotUnderstoodAtAll,), requests.mutate, close=requests.close
        ),
        Target("csr", mutants.leaf_seeds, authority.leaf, (CSRRejected,), mutants.mutated_csr, csr_reason_of),
        Target(
            "csr-intermediate",
            mutants.intermediate_seeds,
            authority.intermediate,
            (CSRRejected,),
            mutants.mutated_csr,
            csr_reason_of,
        ),
        Target("http-requests", http.seeds, http, (Answered,), http.mutate, close=http.close),
        *_of_access_control(),
    )
    return {target.name: target for target in found}


def _of_access_control() -> tuple[Target, ...]:
    return (
        Target("acl-rules", rules.rules_seeds, rules.rules, rules.RULES_ERRORS, rules.mutated_rules),
        Target("acl-selector", rules.selector_seeds, rules.selector, rules.SELECTOR_ERRORS, rules.mutated_selector),
        Target(
            "acl-bind-name", rules.bind_name_seeds, rules.bind_name, rules.BIND_NAME_ERRORS, rules.mutated_bind_name
        ),
        Target("acl-input", writes.input_seeds, writes.written, writes.INPUT_ERRORS, writes.mutated_input),
        Target("acl-method", logins.method_seeds, logins.method, logins.METHOD_ERRORS, logins.mutated_method),
        Target(
            "jwt", logins.token_seeds, logins.token, logins.LOGIN_ERRORS, logins.mutated_token, logins.login_reason_of
        ),
        Target(
            "jwt-signed",
            logins.signed_seeds,
            logins.signed_token,
            logins.LOGIN_ERRORS,
            logins.mutated_signed,
            logins.login_reason_of,
        ),
        Target("jwk-set", logins.key_set_seeds, logins.keys, logins.KEY_SET_ERRORS, logins.mutated_key_set),
        Target(
            "oidc-discovery",
            logins.discovery_seeds,
            logins.discovery,
            logins.DISCOVERY_ERRORS,
            logins.mutated_discovery,
        ),
        Target(
            "kubernetes-review",
            logins.review_seeds,
            logins.review,
            logins.LOGIN_ERRORS,
            logins.mutated_review,
            logins.login_reason_of,
        ),
        Target("rpc-tokens", writes.header_seeds, writes.header, writes.HEADER_ERRORS, writes.mutated_header),
    )
