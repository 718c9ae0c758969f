"""The container of a snapshot for keeping: gzip around a tar of three members in a fixed order. Knows nothing of what
they mean.

Whoever restores a file may have got it from anywhere, so it is read by a reader of its own, which takes exactly what
`write` makes (as every release has made it) and refuses all else that gzip and tar can say: headers of pax and GNU,
links, sparse and other members, another order, anything after the end. It inflates a bounded part at a time, and holds
no more than one: no declared length is believed, and nothing is skipped that was not counted.
"""

import re
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path
from typing import IO, Final

from cluster.base.errors import Refused

READ_BYTES: Final = 64 << 10
COMPRESSION: Final = 1  # certificates' records are mostly hashes: more effort saves little
_MODE: Final = 0o600

_BLOCK_BYTES: Final = 512
#: tarfile fills up to a multiple of it with zeros, two blocks of which are the end (POSIX pax, "ustar Interchange").
_RECORD_BYTES: Final = 10_240
_SIZE: Final = slice(124, 136)
_MTIME: Final = slice(136, 148)
_OCTAL: Final = re.compile(rb"([0-7]{11})\0")
#: Numbers of a device, which a file does not have: Python writes them as zeros or not at all, by its version.
_DEVICE: Final = slice(329, 345)
_NO_DEVICE: Final = (bytes(16), b"0000000\0" * 2)
_CHECKSUM: Final = slice(148, 156)

#: Magic, deflate, no further fields (RFC 1952 2.3.1), seconds, effort, system.
_GZIP_HEAD: Final = struct.Struct("<4sIBB")
_GZIP_MAGIC: Final = b"\x1f\x8b\x08\x00"
_GZIP_END: Final = struct.Struct("<II")


class SnapshotInvalid(Refused):
    """The file is no snapshot, or a damaged one; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A member that must come next, and how large it may be."""

    name: str
    max_bytes: int


def write(
    path: Path, members: Sequence[tuple[str, int, IO[bytes]]], created_at: int, compression: int = COMPRESSION
) -> None:
    """Name, size and content of each member, in order; gzip's level of compression, 0 for none. Raises: OSError."""
    with (
        path.open("wb") as raw,
        GzipFile(fileobj=raw, mode="wb", compresslevel=compression, mtime=created_at, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, size, content in members:
            tar.addfile(_described(name, size, created_at), content)


def _described(name: str, size: int, mtime: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, mtime, _MODE
    return member


class Member:
    """The content of one member, as a stream; `size` bytes, whether it is read to its end or not."""

    def __init__(self, inflated: "_Inflated", size: int) -> None:
        self._inflated = inflated
        self.size = size
        self._left = size

    def read(self, size: int) -> bytes:
        """At most `size` bytes, and nothing at the end. Raises: SnapshotInvalid, OSError."""
        if not self._left or not size:
            return b""
        data = self._inflated.read(min(size, self._left, READ_BYTES))
        if not data:
            raise SnapshotInvalid("the snapshot is damaged, or none: it ends early")
        self._left -= len(data)
        return data

    def whole(self) -> bytes:
        """All of it: for members that are small by their rule."""
        return b"".join(iter(lambda: self.read(READ_BYTES), b""))

    def finish(self) -> None:
        """Pass over the rest, and the zeros up to the next block."""
        while self.read(READ_BYTES):
            pass
        if any(self._inflated.exactly(-self.size % _BLOCK_BYTES)):
            raise SnapshotInvalid("the snapshot is damaged: there is something between its members")


def members(path: Path, rules: Sequence[Rule]) -> Iterator[tuple[str, Member]]:
    """The members in the order of the rules; each must be used before the next is asked for. Once this has ended, the
    file has been looked at to its last byte.

    Raises: SnapshotInvalid, OSError.
    """
    with path.open("rb") as file:
        inflated = _Inflated(file)
        end = 0
        for rule in rules:
            member = Member(inflated, _checked_size(inflated.exactly(_BLOCK_BYTES), rule, rules))
            yield rule.name, member
            member.finish()
            end += _BLOCK_BYTES + member.size + -member.size % _BLOCK_BYTES
        _check_end(inflated, end)


def _checked_size(block: bytes, rule: Rule, rules: Sequence[Rule]) -> int:
    """Of the member that this header describes, which must be the header that `write` makes."""
    size, mtime = _OCTAL.fullmatch(block[_SIZE]), _OCTAL.fullmatch(block[_MTIME])
    expected = size and mtime and _described(rule.name, int(size[1], 8), int(mtime[1], 8)).tobuf(tarfile.USTAR_FORMAT)
    if not expected or not size or not _is_header(block, expected):
        raise SnapshotInvalid(
            f"this is no snapshot: it must hold {_listed(rules)} in this order and nothing else, and"
            f" {_found(block)} is in the place of {rule.name}"
        )
    if (found := int(size[1], 8)) > rule.max_bytes:
        raise SnapshotInvalid(f"the snapshot's {rule.name} is too large: {found} bytes, allowed are {rule.max_bytes}")
    return found


def _is_header(block: bytes, expected: bytes) -> bool:
    if block[_DEVICE] not in _NO_DEVICE or _without_device(block) != _without_device(expected):
        return False
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    return block[_CHECKSUM] == b"%06o\0 " % total


def _without_device(block: bytes) -> bytes:
    return block[: _CHECKSUM.start] + block[_CHECKSUM.stop : _DEVICE.start] + block[_DEVICE.stop :]


def _listed(rules: Sequence[Rule]) -> str:
    *most, last = [rule.name for rule in rules]
    return f"{', '.join(most)} and {last}"


def _found(block: bytes) -> str:
    if not any(block):
        return "the end"
    name = block[:100].rstrip(b"\0")
    return f"{name.decode('ascii', 'replace')!a:.60}" if name.isascii() and name else "something else"


def _check_end(inflated: "_Inflated", end: int) -> None:
    """What follows the last member is as many zeros as tarfile writes there, then gzip's own end, then nothing."""
    zeros = -(end + 2 * _BLOCK_BYTES) % _RECORD_BYTES + 2 * _BLOCK_BYTES
    if any(inflated.exactly(zeros)) or inflated.read(1):
        raise SnapshotInvalid("the snapshot is damaged: there is more after its end")
    inflated.finish()


class _Inflated:
    """What a gzip file of one part holds, a bounded piece at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        head = file.read(_GZIP_HEAD.size)
        if head[: len(_GZIP_MAGIC)] != _GZIP_MAGIC or len(head) < _GZIP_HEAD.size:
            raise SnapshotInvalid("the snapshot is damaged, or none: it does not begin as a gzip file of ours")
        self._file = file
        self._inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self._check = 0
        self._size = 0

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`; none at the end."""
        while not self._inflater.eof:
            data = self._some(size)
            if data:
                self._check = zlib.crc32(data, self._check)
                self._size += len(data)
                return data
        return b""

    def _some(self, size: int) -> bytes:
        try:
            # First what is left: the last call may have stopped at its bound, with more to give from the same input.
            data = self._inflater.decompress(self._inflater.unconsumed_tail, size)
            if data or self._inflater.eof:
                return data
            packed = self._file.read(READ_BYTES)
            if not packed:
                raise SnapshotInvalid("the snapshot is damaged, or none: it ends early")
            return self._inflater.decompress(packed, size)
        except zlib.error as error:
            raise SnapshotInvalid(f"the snapshot is damaged, or none: {error}") from error

    def exactly(self, size: int) -> bytes:
        """For a size that is small whatever the file says."""
        data = bytearray()
        while len(data) < size:
            part = self.read(size - len(data))
            if not part:
                raise SnapshotInvalid("the snapshot is damaged, or none: it ends early")
            data += part
        return bytes(data)

    def finish(self) -> None:
        """After the last byte: length and checksum are gzip's, and the file ends."""
        end = (self._inflater.unused_data + self._file.read(_GZIP_END.size + 1))[: _GZIP_END.size + 1]
        if len(end) > _GZIP_END.size:
            raise SnapshotInvalid("the snapshot is damaged: there is more after its end")
        if end != _GZIP_END.pack(self._check, self._size & 0xFFFFFFFF):
            raise SnapshotInvalid("the snapshot is damaged: its contents do not have gzip's checksum")
