"""Snapshots for keeping that nobody has saved: damaged ones, changed ones that look whole, and ones that are to fill a
node's memory or disk. Each is made of one that a cluster has saved, so that nothing but the poison is wrong.
"""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgpack

from fsm.codec import dump_state, load_state
from fsm.state import State
from tests.fuzz.mutate import mutated

#: Of certificates that nobody was given.
SERVICE: Final = "poison"
_META: Final = "meta.json"
_STATE: Final = "state.bin"
_SUMS: Final = "SHA256SUMS"
_BOMB_BYTES: Final = 64 << 20
_SERIAL: Final = (1 << 127).to_bytes(16, "big")
#: As the ledger exports it.
_ROW: Final[tuple[Any, ...]] = (
    1,
    _SERIAL,
    1,
    SERVICE,
    f"spiffe://x/ns/default/dc/dc1/svc/{SERVICE}",
    b"k" * 20,
    b"h" * 32,
    0,
    1,
    "me",
    None,
    1,
)


@dataclass(frozen=True, slots=True)
class Poison:
    kind: str
    data: bytes
    #: An operator says that it is meant: it must be refused all the same.
    is_forced: bool


@dataclass(frozen=True, slots=True)
class _Saved:
    """What a file holds."""

    meta: dict[str, Any]
    state: State
    rows: tuple[bytes, ...]
    sums: bytes

    @classmethod
    def of(cls, data: bytes) -> "_Saved":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            parts = {name: file.read() for name in tar.getnames() if (file := tar.extractfile(name)) is not None}
        values = msgpack.Unpacker(io.BytesIO(parts[_STATE]), max_buffer_size=1 << 30)
        _, state, *pages = values
        return cls(json.loads(parts[_META]), load_state(state), tuple(map(msgpack.packb, pages)), parts[_SUMS])

    def content(self, state: bytes | State | None = None, rows: tuple[bytes, ...] | None = None) -> bytes:
        state = self.state if state is None else state
        packed = state if isinstance(state, bytes) else dump_state(state)
        return b"".join([msgpack.packb(1), msgpack.packb(packed), *(self.rows if rows is None else rows)])

    def packed(self, content: bytes, *, more: Mapping[str, Any] | None = None, mac: bytes = b"") -> bytes:
        """With checksums that are right, and whatever MAC."""
        meta = json.dumps({**self.meta, **(more or {})}).encode()
        sums = b"".join(
            f"{hashlib.sha256(part).hexdigest()}  {name}\n".encode()
            for name, part in ((_META, meta), (_STATE, content))
        )
        return archive({_META: meta, _STATE: content, _SUMS: sums + mac})


def archive(parts: Mapping[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), 1)


def bad_states(state: State) -> Iterator[tuple[str, bytes]]:
    """States that no cluster may be given, each nearly the one that it has."""
    config, seal = state.config, state.seal
    assert config is not None
    assert seal is not None
    root = next(root for root in state.roots if root.is_active)
    stored = state.providers[0]
    changes: dict[str, Callable[[], State]] = {
        "configuration that is none": lambda: replace(state, config=replace(config, config_json="{")),
        "numbers that no node has room for": lambda: replace(state, tidied_before=1 << 63),
        "no seal": lambda: replace(state, seal=None),
        "a seal that nothing opens": lambda: replace(
            state, seal=replace(seal, wrapped_key=bytes(len(seal.wrapped_key)))
        ),
        "secrets that were changed": lambda: replace(
            state, providers=(replace(stored, sealed=stored.sealed[:-1] + b"\0"), *state.providers[1:])
        ),
        "a root that is none": lambda: replace(state, roots=(replace(root, root_pem="-----BEGIN\n"),)),
        "a root twice": lambda: replace(state, roots=(root, root)),
        "no root": lambda: replace(state, roots=(replace(root, is_active=False),)),
        "nothing": State,
    }
    for kind, changed in changes.items():
        yield kind, dump_state(changed())
    yield "no state", b"\xc1"
    yield "nested", b"\x91" * 4000
    yield "lists that go on for ever", b"\xdd\xff\xff\xff\xff" * 200


def state_of(saved: bytes) -> State:
    return _Saved.of(saved).state


def poisons(saved: bytes, rng: random.Random) -> Iterator[Poison]:
    """One of each kind."""
    whole = _Saved.of(saved)
    for _ in range(6):
        yield Poison("damaged", _unlike(saved, rng), is_forced=True)
    for kind, state in bad_states(whole.state):
        yield Poison(kind, whole.packed(whole.content(state)), is_forced=True)
    for row in bad_rows():
        rows = (*whole.rows, msgpack.packb([row]))
        more = {"certificates": int(whole.meta["certificates"]) + 1}
        yield Poison("a certificate that is none", whole.packed(whole.content(rows=rows), more=more), is_forced=True)
    rows = (*whole.rows, msgpack.packb([list(_ROW)]))
    content, more = whole.content(rows=rows), {"certificates": int(whole.meta["certificates"]) + 1}
    mac = whole.sums.splitlines(keepends=True)[-1]
    yield Poison("a certificate more", whole.packed(content, more=more), is_forced=False)
    yield Poison("a certificate more, with the MAC", whole.packed(content, more=more, mac=mac), is_forced=True)
    yield Poison(
        "rows that are not there", whole.packed(whole.content(), more={"certificates": 10**12}), is_forced=True
    )
    yield Poison("bomb", whole.packed(whole.content(bytes(_BOMB_BYTES))), is_forced=True)
    yield Poison(
        "bomb of rows", whole.packed(whole.content(rows=(b"\xdd\xff\xff\xff\xff" + bytes(1 << 22),))), is_forced=True
    )
    yield Poison("another archive", archive({"../../x": b"x", _META: b"{}"}), is_forced=True)
    yield Poison("no archive", gzip.compress(rng.randbytes(1 << 16)), is_forced=True)
    yield Poison("nothing", b"", is_forced=True)


def bad_rows() -> Iterator[list[Any]]:
    for position, value in ((1, b""), (2, 99), (3, 7), (3, "x" * 300_000), (8, 1 << 63), (9, None), (10, "x")):
        yield [*_ROW[:position], value, *_ROW[position + 1 :]]


def _unlike(saved: bytes, rng: random.Random) -> bytes:
    while (data := mutated([saved], [], rng)) == saved:
        pass
    return data
