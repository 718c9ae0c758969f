"""Changes of bytes that break decoders: lengths that lie, types that are others, data that ends early or goes on."""

import random
from collections.abc import Callable, Sequence
from typing import Final

_MAX_BYTES: Final = 1 << 16
_INTERESTING: Final = (0x00, 0x01, 0x7F, 0x80, 0x90, 0xA0, 0xC0, 0xC1, 0xC2, 0xC4, 0xC6, 0xC9, 0xDB, 0xDD, 0xDF, 0xFF)
#: msgpack: arrays, maps, texts and bytes that announce more than there is; the largest numbers; nesting; extensions.
_TOKENS: Final = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x00",
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + b"\x00" * 7,
    b"\xcb\x7f\xf8" + b"\x00" * 6,
    b"\x91" * 100,
    b"\x91" * 2000,
    b"\xdd\x00\x00\xff\xff" * 300,
    b"\x81\x80\x80",
    b"\xd6\xff\x00\x00\x00\x00",
    b"\xa1\xff",
    b"\xa4\xed\xa0\x80\x00",
    b"-----BEGIN CERTIFICATE REQUEST-----\n",
)


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.choice(_INTERESTING)


def _number(data: bytearray, rng: random.Random) -> None:
    """Overwrite 4 or 8 bytes: a length, an index, an offset."""
    start, size = rng.randrange(len(data)), rng.choice((4, 8))
    value = rng.choice((0, 1, len(data), 1 << 31, (1 << 8 * size) - 1, rng.getrandbits(8 * size))) % (1 << 8 * size)
    data[start : start + size] = value.to_bytes(size, rng.choice(("big", "little")))


def _delete(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 8, 64))]


def _insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.choice((rng.randbytes(rng.choice((1, 2, 8))), rng.choice(_TOKENS)))


def _replace(data: bytearray, rng: random.Random) -> None:
    start, token = rng.randrange(len(data)), rng.choice(_TOKENS)
    data[start : start + len(token)] = token


def _repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 64)]
    data[start:start] = piece * rng.choice((1, 2, 50))


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


_CHANGES: Final[tuple[Callable[[bytearray, random.Random], None], ...]] = (
    _flip,
    _set,
    _number,
    _delete,
    _insert,
    _replace,
    _repeat,
    _cut,
)


def mutated(seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the inputs, or two of them joined, with a few changes."""
    inputs = [*seeds, *kept]
    data = bytearray(rng.choice(inputs))
    if rng.random() < 0.2:
        other = rng.choice(inputs)
        data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if data:
            rng.choice(_CHANGES)(data, rng)
    return bytes(data[:_MAX_BYTES])
