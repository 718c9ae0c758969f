"""Where the key-encryption key comes from: a file, or a passphrase."""

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from cluster.base.config import NodeConfig

KEY_BYTES: Final = 32
_MIN_PASSPHRASE_LENGTH: Final = 12
_PASSPHRASE_VARIABLE: Final = "QUORUMCA_SEAL_PASSPHRASE"  # noqa: S105 - a name, no secret
#: OWASP's recommendation for scrypt at 32 MiB; derived once per start.
_SCRYPT: Final = {"n": 1 << 15, "r": 8, "p": 3, "maxmem": 64 << 20}
_FILE_HEADER: Final = "quorumca-seal-key-1"


class SealError(Exception):
    """The key-encryption key is missing or wrong. The text says which, and what to do."""


class KeySource(Protocol):
    """Where the KEK comes from."""

    name: str

    def new_salt(self) -> bytes: ...
    def key(self, salt: bytes) -> bytes:
        """32 bytes. Raises: SealError."""
        ...


class FileKey:
    """32 random bytes in a file, the same file on every node."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def new_salt(self) -> bytes:
        return b""

    def key(self, salt: bytes) -> bytes:
        try:
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            raise SealError(
                f"the seal key {self._path} is missing: copy it from another node of this cluster or from your backup;"
                " for a new cluster make one with `quorumca seal init` and copy it to every node"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"the seal key {self._path} cannot be read: {error}") from error
        header, _, encoded = text.strip().partition(":")
        with contextlib.suppress(binascii.Error, ValueError):
            key = base64.b64decode(encoded, validate=True)
            if header == _FILE_HEADER and len(key) == KEY_BYTES:
                return key
        raise SealError(
            f"{self._path} is not a seal key: make one with `quorumca seal init`, or restore the right file"
        )


class Passphrase:
    """A passphrase, stretched by scrypt with the cluster's salt."""

    name = "passphrase"

    def __init__(self, passphrase: str) -> None:
        if len(passphrase) < _MIN_PASSPHRASE_LENGTH:
            raise SealError(f"the seal passphrase must have at least {_MIN_PASSPHRASE_LENGTH} characters")
        self._passphrase = passphrase.encode()

    def new_salt(self) -> bytes:
        return secrets.token_bytes(16)

    def key(self, salt: bytes) -> bytes:
        return hashlib.scrypt(self._passphrase, salt=salt, dklen=KEY_BYTES, **_SCRYPT)


def write_key_file(path: Path) -> None:
    """A new seal key, mode 0600. Raises: FileExistsError rather than replace one."""
    text = f"{_FILE_HEADER}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def passphrase_in(path: Path) -> Passphrase:
    """Raises: SealError."""
    try:
        return Passphrase(path.read_text(encoding="utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"the seal passphrase file cannot be read: {error}") from error


def key_source(config: NodeConfig, environment: Mapping[str, str] = os.environ) -> KeySource:
    """The source that the node's configuration names. Raises: SealError."""
    if config.seal.source == "file":
        return FileKey(config.seal.key_file or config.data_dir / "seal.key")
    if config.seal.passphrase_file is not None:
        return passphrase_in(config.seal.passphrase_file)
    if _PASSPHRASE_VARIABLE not in environment:
        raise SealError(f"the seal passphrase is missing: set {_PASSPHRASE_VARIABLE} or seal.passphrase_file")
    return Passphrase(environment[_PASSPHRASE_VARIABLE])
