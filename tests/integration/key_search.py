"""Looks for secrets in bytes of any kind: files, logs, answers, environments, memory.

Whatever form a key is written in, its secret numbers are in it: the scalar of an EC key, an exponent or a prime of an
RSA key. So these are looked for, as bytes in either order, in hex, in decimal, and in base64 at each of its three
offsets. Line ends are taken out first, also where they are escaped, because PEM breaks its lines anywhere.

A token is a text, and a UUID is a number of 16 bytes, too, in two orders: these are looked for in the same ways, and as
UTF-16; what is escaped for a URL, for JSON or by Python, in whole or in parts, is read first.
"""

import base64
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster.raft import codec as raft_codec
from cluster.raft import snapshot
from cluster.raft.disk import RealDisk
from cluster.raft.journal import Journal
from cluster.seal.records import open_record, purpose_of
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey
from fsm import codec
from fsm.apply import apply
from fsm.state import State
from providers.builtin import state as builtin_state
from providers.pki import keys

_LINE_ENDS = re.compile(rb"(?:\\r|\\n|\\t|[\r\n\t ])+")
_NOT_HEX = re.compile(rb"[:\- ]|0x|\\x")


@dataclass(frozen=True)
class KeySearch:
    """`what` names the key in results; `numbers` are its secret ones, of a known size in bytes."""

    what: str
    numbers: tuple[tuple[int, int], ...] = field(repr=False)

    @classmethod
    def of(cls, what: str, key: keys.SigningKey) -> "KeySearch":
        size = (key.key_size + 7) // 8
        values = key.private_numbers()
        if hasattr(values, "private_value"):
            return cls(what, ((values.private_value, size),))
        return cls(what, ((values.d, size), (values.p, size // 2), (values.q, size // 2)))

    def found_in(self, data: bytes) -> list[str]:
        """In which forms the key is in these bytes."""
        prepared = {kind: prepare(data) for kind, prepare in _PREPARE.items()}
        return [form for form, needle, kind in self._needles() if needle in prepared[kind]]

    def found_in_files(self, paths: Iterable[Path]) -> list[str]:
        return [f"{self.what} in {path}: {forms}" for path in paths if (forms := self.found_in(path.read_bytes()))]

    def _needles(self) -> Iterator[tuple[str, bytes, str]]:
        for number, size in self.numbers:
            raw = number.to_bytes(size, "big")
            yield "bytes", raw.lstrip(b"\0"), "raw"
            yield "little-endian bytes", raw[::-1].rstrip(b"\0"), "raw"
            yield "hex", raw.hex().encode(), "hex"
            yield "decimal", str(number).encode(), "text"
            for offset in range(3):
                # Without what depends on the bytes around it: the first and the last characters.
                encoded = base64.b64encode(bytes(offset) + raw)[4 * (offset > 0) : -4]
                yield f"base64 at offset {offset}", encoded, "base64"


@dataclass(frozen=True)
class SecretSearch:
    """`what` names the secret in results; `values` are the bytes that it may be written as."""

    what: str
    values: tuple[tuple[str, bytes], ...] = field(repr=False)

    @classmethod
    def of_text(cls, what: str, text: str) -> "SecretSearch":
        """A bearer token, a password; of a UUID its number as well."""
        encodings = ("text", "utf-8"), ("UTF-16", "utf-16-le"), ("UTF-16 big-endian", "utf-16-be")
        values = [(name, text.encode(encoding)) for name, encoding in encodings]
        try:
            number = uuid.UUID(text)
        except ValueError:
            pass
        else:
            values += [("number", number.bytes), ("little-endian number", number.bytes_le)]
            values.append(("number from behind", number.bytes[::-1]))
        return cls(what, tuple(values))

    @classmethod
    def of_key(cls, what: str, key: bytes) -> "SecretSearch":
        return cls(what, (("key", key), ("key from behind", key[::-1])))

    def found_in(self, data: bytes) -> list[str]:
        """In which forms it is in these bytes."""
        return self.found_in_prepared(prepared_for_secrets(data))

    def found_in_prepared(self, prepared: dict[str, bytes]) -> list[str]:
        """As `found_in`, of what `prepared_for_secrets` has made: for many secrets in the same bytes."""
        return [form for form, needle, kind in self._needles() if needle in prepared[kind]]

    def _needles(self) -> Iterator[tuple[str, bytes, str]]:
        for name, value in self.values:
            yield name, value, "raw"
            yield f"{name}, escaped", value, "escaped"
            yield f"{name} in hex", value.hex().encode(), "hex"
            for offset in range(3):
                # Six bits to a character: those that nothing before or after it has a part in.
                first, end = -(-8 * offset // 6), 8 * (offset + len(value)) // 6
                encoded = base64.b64encode(bytes(offset) + value)[first:end]
                yield f"{name} in base64 at offset {offset}", encoded, "base64"
        # A UUID without its dashes, in any case, is the hex of its number.


def prepared_for_secrets(data: bytes) -> dict[str, bytes]:
    """For the search of any secret in them."""
    return {kind: prepare(data) for kind, prepare in _PREPARE_TEXT.items()}


def _unescaped(data: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1] or found[2] or found[3], 16)]), data)


def _without_line_ends(data: bytes) -> bytes:
    return _LINE_ENDS.sub(b"", data)


_PREPARE: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda data: data,
    "text": _without_line_ends,
    "hex": lambda data: _NOT_HEX.sub(b"", _without_line_ends(data)).lower(),
    # The alphabet for URLs, too, and slashes that JSON may escape.
    "base64": lambda data: _without_line_ends(data).translate(bytes.maketrans(b"-_", b"+/")).replace(b"\\/", b"/"),
}


#: %41 of URLs, \u0041 of JSON, \x41 of Python; the backslash may be escaped itself.
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|\\{1,2}u00([0-9A-Fa-f]{2})|\\{1,2}x([0-9A-Fa-f]{2})")
_PREPARE_TEXT: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda data: data,
    "escaped": _unescaped,
    "hex": _PREPARE["hex"],
    "base64": lambda data: _unescaped(_PREPARE["base64"](data)),
}


# -- the key of a cluster, as only its seal key gives it away


def stored_states(data_dir: Path) -> Iterator[State]:
    """What this node had applied, step by step, read from its files: the snapshot, and the log behind it.

    Opens the log for writing: give it the directory of a node that does not run.
    """
    saved = snapshot.SnapshotFile(RealDisk(), str(data_dir / "snapshot")).load()
    state, last = (State(), 0) if saved is None else (codec.load_state(saved.state), saved.log_index)
    yield state
    journal = Journal(RealDisk(), str(data_dir / "wal"))
    try:
        for entry in journal.entries:
            if entry.log_index <= last or entry.command[0] != raft_codec.REGULAR:
                continue
            for command in raft_codec.unpack_batch(entry.command)[2]:
                state, _ = apply(state, codec.load_command(command))
                yield state
    finally:
        journal.close()


def stored_token_key(data_dir: Path) -> bytes:
    """What SecretIDs are hashed with, opened with this node's seal key."""
    sealer = Sealer(FileKey(data_dir / "seal.key"))
    *_, state = stored_states(data_dir)
    assert state.seal is not None
    assert state.acl.key is not None
    sealer.unlock(state.seal)
    return sealer.open(state.acl.key.sealed, "access control: the key of tokens")


def stored_keys(data_dir: Path) -> list[keys.SigningKey]:
    """Every private key of the built-in CA that is or was in this node's log, opened with its seal key."""
    sealer = Sealer(FileKey(data_dir / "seal.key"))
    found: dict[bytes, keys.SigningKey] = {}
    for state in stored_states(data_dir):
        for sealed in state.providers:
            assert state.seal is not None
            sealer.unlock(state.seal)
            kept = builtin_state.decode(open_record(sealer, purpose_of(sealed.provider_id), sealed.sealed).state)
            if kept is not None:
                found[kept.key_der] = keys.load_der(kept.key_der)
    return list(found.values())
