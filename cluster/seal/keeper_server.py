"""A keeper's side of its sockets, and the frames that both sides write.

A frame is a length, u32 little endian, then msgpack. The keeper writes the first one on the control socket when it is
protected (`cluster.base.process`): what the system refused to it. The next one says where the keys are (`Beginning`),
brings a descriptor to read the passphrase from if that came by the environment, and is answered by `[error or nil,
nil]`. After that each byte on it brings one more socket (SCM_RIGHTS, unix(7)): LINE, over which calls come,
`[operation, arguments]`, answered by `[error or nil, result]` one after the other; or GRANT, to a process that signs,
which is given the key of the cover and nothing else.
"""

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from cluster.base.errors import InternalError
from cluster.seal.cover import CoverError, hand_over
from cluster.seal.keeper import CoveredRecord, Keeper, new_cover_key
from cluster.seal.records import RecordUnreadable
from cluster.seal.sources import KeyMissing, KeyPlaces, SealError
from cluster.seal.variables import PASSPHRASE_VARIABLE
from fsm.ca import SealKey

LINE: Final = b"L"
GRANT: Final = b"G"
_HEADER: Final = struct.Struct("<I")
#: A record has a few KB, and the secrets of a configuration no more than the largest body of a request.
_MAX_FRAME: Final = 8 << 20
_KINDS: Final[dict[str, type[Exception]]] = {
    kind.__name__: kind
    for kind in (RecordUnreadable, KeyMissing, SealError, OSError, CoverError, ValueError, InternalError)
}


@dataclass(frozen=True, slots=True)
class Seal:
    """Implements `SealPlaces`."""

    source: str
    key_file: Path | None
    passphrase_file: Path | None
    next_key_file: Path | None
    next_passphrase_file: Path | None


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a keeper must know; implements `KeyPlaces`."""

    node_name: str
    data_dir: Path
    seal: Seal

    @classmethod
    def of(cls, node_name: str, places: KeyPlaces) -> "Beginning":
        given = places.seal
        seal = Seal(
            given.source, given.key_file, given.passphrase_file, given.next_key_file, given.next_passphrase_file
        )
        return cls(node_name, places.data_dir, seal)

    def packed(self) -> list[object]:
        seal = self.seal
        paths = (seal.key_file, seal.passphrase_file, seal.next_key_file, seal.next_passphrase_file)
        return [self.node_name, str(self.data_dir), seal.source, [path and str(path) for path in paths]]

    @classmethod
    def unpacked(cls, fields: Sequence[Any]) -> "Beginning":
        node_name, data_dir, source, paths = fields
        return cls(node_name, Path(data_dir), Seal(source, *(path and Path(path) for path in paths)))


# -- frames, and the values in them


def packed(value: object) -> bytes:
    """A frame. Raises: ValueError, TypeError, OverflowError for what it cannot carry."""
    # Paths and texts about them may hold anything: half of a surrogate pair, too.
    body = msgpack.packb(value, unicode_errors="surrogatepass")
    if len(body) > _MAX_FRAME:
        raise ValueError(f"a frame of {len(body)} bytes is larger than {_MAX_FRAME}")
    frame: bytes = _HEADER.pack(len(body)) + body
    return frame


def read_frame(source: socket.socket) -> Any:
    """Raises: EOFError, ValueError, OSError."""
    return _read_body(source, _read_exactly(source, _HEADER.size))


def _read_body(source: socket.socket, header: bytes) -> Any:
    if len(header) < _HEADER.size:
        raise EOFError("the other side has closed")
    (length,) = _HEADER.unpack(header)
    if length > _MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes is larger than {_MAX_FRAME}")
    return msgpack.unpackb(_read_exactly(source, length), unicode_errors="surrogatepass")


def _read_exactly(source: socket.socket, count: int) -> bytes:
    read = bytearray()
    while len(read) < count:
        if not (part := source.recv(min(count - len(read), 1 << 16))):
            raise EOFError("the other side has closed")
        read += part
    return bytes(read)


def pack_seal(seal: SealKey) -> list[object]:
    return [seal.source, seal.kek_id, seal.salt, seal.wrapped_key]


def pack_record(record: CoveredRecord) -> list[object]:
    return [dict(record.secrets), record.state, record.config_json]


def pack_error(error: Exception) -> list[object]:
    """Its kind and arguments. Of an unexpected one only the type goes out: its text may hold anything."""
    match error:
        case SealError():
            return [next(name for name, kind in _KINDS.items() if isinstance(error, kind)), [str(error)]]
        case OSError():
            return ["OSError", [error.errno or 0, error.strerror or str(error), error.filename and str(error.filename)]]
        case CoverError():
            return ["CoverError", [str(error)]]
        case _:
            name = "ValueError" if isinstance(error, ValueError) else "InternalError"
            return [name, [f"{type(error).__name__} where the seal key is kept"]]


def unpack_error(packed: Sequence[Any]) -> Exception:
    kind, arguments = packed
    return _KINDS[kind](*arguments)


# -- what is asked


class Calls:
    """A keeper's operations, from and to the values of frames."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._operations: dict[str, Callable[..., object]] = {
            "check_node": lambda facts: keeper.check_node(json.loads(facts)),
            "open_disk_key": self._open_disk_key,
            "establish_disk_key": keeper.establish_disk_key,
            "follow_disk_key": keeper.follow_disk_key,
            "new_data_key": lambda: pack_seal(keeper.new_data_key()),
            "next_data_key": self._next_data_key,
            "lacks": keeper.lacks,
            "unlock": lambda seal: keeper.unlock(SealKey(*seal)),
            "draw_key": lambda seal: keeper.draw_key(SealKey(*seal)),
            "mac": lambda seal, sums: keeper.mac(SealKey(*seal), sums),
            "proof": lambda seal, request: keeper.proof(SealKey(*seal), request),
            "key_at": lambda: keeper.key_at().value,
            "open_record": self._open_record,
            "seal_record": self._seal_record,
            "open_bare": lambda seal, what, sealed: keeper.open_bare(SealKey(*seal), what, sealed),
            "seal_bare": lambda seal, what, plain: keeper.seal_bare(SealKey(*seal), what, plain),
            "cover_values": lambda values: keeper.cover_values(json.loads(values)),
        }

    def answer(self, source: socket.socket) -> None:
        """One after the other, until the other side closes."""
        with source, contextlib.suppress(EOFError, OSError, ValueError):
            while True:
                operation, arguments = read_frame(source)
                try:
                    answer = packed([None, self._operations[operation](*arguments)])
                except Exception as error:
                    answer = packed([pack_error(error), None])
                source.sendall(answer)

    def _open_disk_key(self, accepts_without: bool, always_requires: bool) -> list[object]:
        found = self._keeper.open_disk_key(accepts_without=accepts_without, always_requires=always_requires)
        return [found.key, found.is_required]

    def _next_data_key(self, before: Sequence[Any], keeps_key: bool) -> list[object]:
        return pack_seal(self._keeper.next_data_key(SealKey(*before), keeps_key=keeps_key))

    def _open_record(self, seal: Sequence[Any], purpose: str, sealed: bytes) -> list[object]:
        return pack_record(self._keeper.open_record(SealKey(*seal), purpose, sealed))

    def _seal_record(self, seal: Sequence[Any], purpose: str, record: Sequence[Any]) -> bytes:
        return self._keeper.seal_record(SealKey(*seal), purpose, CoveredRecord(*record))


def serve(control: socket.socket, refused: Sequence[str]) -> None:
    """Until the other side of the control socket closes."""
    with control, contextlib.suppress(EOFError, ConnectionError):
        control.sendall(packed(list(refused)))
        beginning, variables = _begun(control)
        cover_key = new_cover_key()
        try:
            keeper = Keeper.of(beginning, beginning.node_name, cover_key, variables)
        except SealError as error:
            control.sendall(packed([pack_error(error), None]))
            return
        control.sendall(packed([None, None]))
        calls = Calls(keeper)
        while True:
            kind, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not kind:
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                if kind == GRANT:
                    with contextlib.suppress(OSError):  # the process that it was for has ended
                        hand_over(cover_key, connection)
                else:
                    try:
                        threading.Thread(target=calls.answer, args=(connection,), daemon=True).start()
                    except RuntimeError:  # no more threads: whoever waits at the other end is told
                        connection.close()


def _begun(control: socket.socket) -> tuple[Beginning, dict[str, str]]:
    """And the passphrase as it was in the environment, by its name there."""
    header, descriptors, _, _ = socket.recv_fds(control, _HEADER.size, 1)
    variables = {}
    for descriptor in descriptors:
        with open(descriptor, "rb") as file:
            variables[PASSPHRASE_VARIABLE] = os.fsdecode(file.read())
    return Beginning.unpacked(_read_body(control, header)), variables
