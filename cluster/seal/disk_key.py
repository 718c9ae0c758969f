"""`mac.key`: the key of the MACs on this node's own files, itself wrapped by the key-encryption key.

A random key of each data directory's own, so that a file of another node, or of this one's earlier life, does not fit;
and so that a change of the seal key does not mean to write every file anew. Whether files must have MACs is sealed
together with it.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.seal.sealer import Sealer
from cluster.seal.sources import KEY_BYTES, SealError

MAC_KEY: Final = "mac.key"
_CONTEXT: Final = b"quorumca disk mac key 1"
_NONCE_BYTES: Final = 12
_REQUIRED, _ONCE_WITHOUT = b"\x01", b"\x00"
_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class DiskKey:
    key: bytes = field(repr=False)
    is_required: bool  # False: files without MACs are taken once more, and then `establish` is called


class DiskKeyFile:
    """Of one data directory, whose name is bound to it."""

    def __init__(self, data_dir: Path, node_name: str, sealer: Sealer) -> None:
        self._data_dir = data_dir
        self._path = data_dir / MAC_KEY
        self._context = _CONTEXT + node_name.encode()
        self._sealer = sealer
        self._held: DiskKey | None = None  # since `open`: the seal key may be lost while the node runs

    def open(self, *, accepts_without: bool = False, always_requires: bool = False) -> DiskKey:
        """Made when it is not there: then the files that are there, if any, are of a release before MACs; which with
        `always_requires` are not taken. `accepts_without`: whoever started the node says that such a release has run
        here (again).

        Raises: SealError, OSError.
        """
        self._held = self._opened(accepts_without=accepts_without, always_requires=always_requires)
        return self._held

    def _opened(self, *, accepts_without: bool, always_requires: bool) -> DiskKey:
        facts = self._read()
        if facts is None:
            has_files = any((self._data_dir / "wal").glob("*.wal")) or (self._data_dir / "snapshot").exists()
            if has_files and always_requires and not accepts_without:
                raise SealError(
                    f"{self._path} is missing beside a log or a snapshot, and seal.require_macs is true: nothing tells"
                    " these files from changed ones; restore it with the rest of the data directory, or replace the"
                    " node; or, if the release before has written them, start the node once with"
                    " `quorumca agent --accept-files-without-mac`"
                )
            made = DiskKey(secrets.token_bytes(KEY_BYTES), is_required=not has_files)
            self._write(made, *self._sealer.new_kek())
            return made
        found = self._unwrapped(facts)
        if not accepts_without or not found.is_required:
            return found
        # What it says is of a snapshot that the other release has replaced.
        (self._data_dir / "snapshot.mac").unlink(missing_ok=True)
        again = DiskKey(found.key, is_required=False)
        self._write(again, *self._kek_of(facts))
        return again

    def found(self) -> DiskKey | None:
        """What is there, and nothing made. Raises: SealError, OSError."""
        facts = self._read()
        return None if facts is None else self._unwrapped(facts)

    def establish(self) -> None:
        """From now on a file without its MAC is refused. Raises: SealError, OSError."""
        facts = self._read()
        if facts is None:
            raise SealError(f"{self._path} is gone")
        self._held = DiskKey(self._unwrapped(facts).key, is_required=True)
        self._write(self._held, *self._kek_of(facts))

    def follow(self) -> None:
        """Wrap it by the key-encryption key that the cluster has now. Raises: SealError, OSError."""
        facts, wanted = self._read(), self._sealer.node_facts()
        if facts is None or wanted is None or all(facts.get(name) == value for name, value in wanted.items()):
            return
        self._write(self._held or self._unwrapped(facts), *self._kek_of(wanted))

    def _kek_of(self, facts: Mapping[str, Any]) -> tuple[str, str, bytes, bytes]:
        try:
            source, kek_id, salt = str(facts["source"]), str(facts["kek_id"]), bytes.fromhex(facts["salt"])
        except (KeyError, TypeError, ValueError):
            raise self._damaged() from None
        return source, kek_id, salt, self._sealer.kek(source, kek_id, salt)

    def _unwrapped(self, facts: Mapping[str, Any]) -> DiskKey:
        *_, kek = self._kek_of(facts)
        try:
            wrapped = bytes.fromhex(facts["wrapped"])
            plain = AESGCM(kek).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], self._context)
        except (InvalidTag, KeyError, TypeError, ValueError):
            raise self._damaged() from None
        return DiskKey(plain[:KEY_BYTES], is_required=plain[KEY_BYTES:] != _ONCE_WITHOUT)

    def _damaged(self) -> SealError:
        return SealError(
            f"{self._path} is damaged or of another node: without it this node cannot tell its own files from changed"
            " ones; restore it with the rest of the data directory, or replace the node"
        )

    def _read(self) -> Mapping[str, Any] | None:
        try:
            with self._path.open("rb") as file:
                facts = json.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return None
        except ValueError:
            raise self._damaged() from None
        if not isinstance(facts, dict):
            raise self._damaged()
        return facts

    def _write(self, made: DiskKey, source: str, kek_id: str, salt: bytes, kek: bytes) -> None:
        """Replace the file; durable on return."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plain = made.key + (_REQUIRED if made.is_required else _ONCE_WITHOUT)
        wrapped = nonce + AESGCM(kek).encrypt(nonce, plain, self._context)
        facts = {"source": source, "kek_id": kek_id, "salt": salt.hex(), "wrapped": wrapped.hex()}
        temporary = self._path.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            json.dump(facts, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        directory = os.open(self._data_dir, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
