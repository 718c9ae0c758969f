"""Where the key-encryption key comes from: a file, or a passphrase."""

import base64
import binascii
import contextlib
import enum
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cluster.base.words import plain
from cluster.seal.secret_files import SecretFileError, is_credential, read_secret
from cluster.seal.variables import PASSPHRASE_VARIABLE

KEY_BYTES: Final = 32
_MIN_PASSPHRASE_LENGTH: Final = 12
#: OWASP's recommendation for scrypt at 32 MiB; derived once per start.
_SCRYPT: Final = {"n": 1 << 15, "r": 8, "p": 3}
_FILE_HEADER: Final = "quorumca-seal-key-1"
#: In the data directory, unless the configuration says otherwise.
KEY: Final = "seal.key"
NEXT_KEY: Final = "seal.next.key"
NEXT_PASSPHRASE: Final = "seal.next.passphrase"  # noqa: S105 - a name, no secret


class SealError(Exception):
    """The key-encryption key is missing or wrong. The text says which, and what to do."""


class KeyMissing(SealError):
    """There is no key where it should be."""


class KeyAt(enum.StrEnum):
    """Where the key in force is, of the places where a node looks."""

    FIRST = "first"
    NEXT = "next"
    NOWHERE = "nowhere"


class SealPlaces(Protocol):
    """`[seal]` of a node's configuration."""

    @property
    def source(self) -> str: ...
    @property
    def key_file(self) -> Path | None: ...
    @property
    def passphrase_file(self) -> Path | None: ...
    @property
    def next_key_file(self) -> Path | None: ...
    @property
    def next_passphrase_file(self) -> Path | None: ...


class KeyPlaces(Protocol):
    """Where a node's seal key is: a `NodeConfig`, or what a keeper is told of one."""

    @property
    def data_dir(self) -> Path: ...
    @property
    def seal(self) -> SealPlaces: ...


class KeySource(Protocol):
    """Where the KEK comes from. `place`: where it is looked for, as an operator knows it."""

    name: str

    @property
    def place(self) -> str: ...

    def new_salt(self) -> bytes: ...
    def key(self, salt: bytes) -> bytes:
        """32 bytes. Raises: SealError."""
        ...


class FileKey:
    """32 random bytes in a file, the same file on every node."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        return str(self._path)

    def new_salt(self) -> bytes:
        return b""

    def key(self, salt: bytes) -> bytes:
        try:
            text = read_secret(self._path).decode("ascii")
        except FileNotFoundError:
            raise KeyMissing(
                f"the seal key {self._path} is missing: copy it from another node of this cluster or from your backup;"
                " for a new cluster make one with `quorumca seal init` and copy it to every node"
            ) from None
        except SecretFileError as error:
            raise SealError(f"the seal key {self._path} is not used: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"the seal key {self._path} cannot be read: {plain(error)}") from error
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
    place = "the passphrase"

    def __init__(self, passphrase: str) -> None:
        if len(passphrase) < _MIN_PASSPHRASE_LENGTH:
            raise SealError(f"the seal passphrase must have at least {_MIN_PASSPHRASE_LENGTH} characters")
        try:
            self._passphrase = passphrase.encode()
        except UnicodeEncodeError:  # a variable may hold anything
            raise SealError("the seal passphrase must be text in UTF-8") from None

    def new_salt(self) -> bytes:
        return secrets.token_bytes(16)

    def key(self, salt: bytes) -> bytes:
        return Scrypt(salt, KEY_BYTES, **_SCRYPT).derive(self._passphrase)


class PassphraseFile:
    """A passphrase that is read when it is needed: it may come while the node runs."""

    name = "passphrase"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        return str(self._path)

    def new_salt(self) -> bytes:
        return self._passphrase().new_salt()

    def key(self, salt: bytes) -> bytes:
        return self._passphrase().key(salt)

    def _passphrase(self) -> Passphrase:
        """Raises: SealError."""
        if not self._path.exists():
            raise KeyMissing(f"the seal passphrase file {self._path} is missing")
        return passphrase_in(self._path)


def write_key_file(path: Path) -> None:
    """A new seal key, mode 0600. Raises: FileExistsError rather than replace one."""
    text = f"{_FILE_HEADER}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def key_source(config: KeyPlaces, environment: Mapping[str, str] = os.environ) -> KeySource:
    """The source that the node's configuration names. Raises: SealError."""
    if config.seal.source == "file":
        return FileKey(config.seal.key_file or config.data_dir / KEY)
    if config.seal.passphrase_file is not None:
        return passphrase_in(config.seal.passphrase_file)
    if PASSPHRASE_VARIABLE not in environment:
        raise SealError(f"the seal passphrase is missing: set {PASSPHRASE_VARIABLE} or seal.passphrase_file")
    return Passphrase(environment[PASSPHRASE_VARIABLE])


def next_sources(config: KeyPlaces) -> tuple[KeySource, ...]:
    """Where the key is looked for that a change of key brings (`quorumca seal rotate`); usually there is none."""
    return (
        FileKey(config.seal.next_key_file or config.data_dir / NEXT_KEY),
        PassphraseFile(config.seal.next_passphrase_file or config.data_dir / NEXT_PASSPHRASE),
    )


def move_next_key(config: KeyPlaces, source: str) -> str:
    """The next key of this source is the one in force: have it where the key is looked for first, if both are files in
    the data directory.

    What the configuration names is the operator's to move. Returns what there is for an operator to do, or nothing.
    Raises: OSError.
    """
    given = config.seal
    if source == "file":
        following = given.next_key_file or config.data_dir / NEXT_KEY
        if given.source == source and given.key_file is None and given.next_key_file is None:
            os.replace(following, config.data_dir / KEY)
            _sync_directory(config.data_dir)
            return ""
        present = _as_operators_know_it(given.key_file or config.data_dir / KEY)
    else:
        following = given.next_passphrase_file or config.data_dir / NEXT_PASSPHRASE
        present = _as_operators_know_it(given.passphrase_file) if given.passphrase_file else "the passphrase"
    if given.source == source:
        return f"the key in force is the next one, {following}: put it in the place of {present}, then remove it there"
    setting = "seal.key_file" if source == "file" else "seal.passphrase_file"
    return (
        f"the key in force is the next one, {following}, and not of source {given.source!r}: set seal.source ="
        f' "{source}" and {setting} to where it is to stay, and only then remove it there'
    )


def _as_operators_know_it(path: Path) -> str:
    """A file that holds the key, or what is copied to it."""
    if not is_credential(path):
        return str(path)
    return (
        f"the file that LoadCredential={path.name} names ({path} is a copy of it, made at each start; with"
        f" deploy/quorumca.service it is /etc/quorumca/{path.name}), restart the node"
    )


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def passphrase_in(path: Path) -> Passphrase:
    """Raises: SealError."""
    try:
        return Passphrase(read_secret(path).decode("utf-8").rstrip("\r\n"))
    except SecretFileError as error:
        raise SealError(f"the seal passphrase file {path} is not used: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"the seal passphrase file {path} cannot be read: {plain(error)}") from error
