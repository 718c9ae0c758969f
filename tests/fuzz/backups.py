"""Snapshots for keeping, as somebody who makes their checksums anew would send them."""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import msgpack

from cluster.api.backups import Meta
from cluster.backup import file as backup
from tests.kit import samples
from tests.kit.macs import mac_with

_META: Final = Meta(1, 5, 9, samples.NOW, "dc1", "a", "x.consul", "aa", 1, 2, "file", "0123456789abcdef")
_MAC: Final = mac_with(b"k" * 32)
_ROWS: Final = tuple(
    (
        number,
        bytes([number]) * 16,
        *(1, "web", "spiffe://x", b"k" * 20, b"h" * 32),
        *(1 << 30, 1 << 31, "me", b"r" * 16, 7),
    )
    for number in (7, 8)
)


class Archives:
    """The file as it is."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="quorumca-fuzz-")
        self._path = Path(self._directory.name, "f")

    def seeds(self) -> list[bytes]:
        pages = lambda after: [row for row in _ROWS if row[0] > after]  # noqa: E731
        backup.write(self._path, _META, samples.full_state(), _MAC, pages)
        return [self._path.read_bytes()]

    def __call__(self, data: bytes) -> object:
        self._path.write_bytes(data)
        saved = backup.read(self._path)
        saved.check_rows()
        # Whoever changed what it says did not have the key.
        assert not saved.has_mac or saved.is_authentic(_MAC) == (saved.state == samples.full_state())
        return saved.meta, saved.state


class Contents:
    """`state.bin` with everything around it made to fit. No MAC: what `?force` lets in."""

    def __init__(self) -> None:
        self._archives = Archives()

    def seeds(self) -> list[bytes]:
        self._archives.seeds()
        with tarfile.open(fileobj=io.BytesIO(self._archives.seeds()[0])) as tar:
            file = tar.extractfile("state.bin")
            assert file is not None
            return [file.read(), msgpack.packb(1) + msgpack.packb(b"\x92\x01\x90")]

    def __call__(self, data: bytes) -> object:
        for certificates in (2, 0):
            meta = json.dumps(asdict(replace(_META, certificates=certificates))).encode()
            sums = "".join(
                f"{hashlib.sha256(content).hexdigest()}  {name}\n"
                for name, content in (("meta.json", meta), ("state.bin", data))
            )
            packed = _packed({"meta.json": meta, "state.bin": data, "SHA256SUMS": sums.encode()})
            try:
                return self._archives(packed)
            except backup.SnapshotInvalid as error:
                if "its description says" not in str(error):
                    raise
        raise backup.SnapshotInvalid("another number of certificates")


def _packed(parts: dict[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), 1)
