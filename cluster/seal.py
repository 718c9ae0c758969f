"""Envelope encryption of private keys: they enter the log and the disk sealed only.

A random data key (AES-256-GCM) seals each secret. The data key itself is in the replicated state, wrapped by a
key-encryption key (KEK) that every node has and that is never written by us but to `seal.key`. A node whose KEK does
not open the data key must not run: it could not take over.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.base.config import NodeConfig
from fsm.state import SealKey

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_MIN_PASSPHRASE_LENGTH: Final = 12
_PASSPHRASE_VARIABLE: Final = "QUORUMCA_SEAL_PASSPHRASE"  # noqa: S105 - a name, no secret
#: OWASP's recommendation for scrypt at 32 MiB; derived once per start.
_SCRYPT: Final = {"n": 1 << 15, "r": 8, "p": 3, "maxmem": 64 << 20}
_WRAP_CONTEXT: Final = b"quorumca data key 1"
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
            if header == _FILE_HEADER and len(key) == _KEY_BYTES:
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
        return hashlib.scrypt(self._passphrase, salt=salt, dklen=_KEY_BYTES, **_SCRYPT)


def write_key_file(path: Path) -> None:
    """A new seal key, mode 0600. Raises: FileExistsError rather than replace one."""
    text = f"{_FILE_HEADER}:{base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def key_source(config: NodeConfig, environment: Mapping[str, str] = os.environ) -> KeySource:
    """The source that the node's configuration names. Raises: SealError."""
    if config.seal.source == "file":
        return FileKey(config.seal.key_file or config.data_dir / "seal.key")
    if config.seal.passphrase_file is not None:
        try:
            return Passphrase(config.seal.passphrase_file.read_text(encoding="utf-8").rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"the seal passphrase file cannot be read: {error}") from error
    if _PASSPHRASE_VARIABLE not in environment:
        raise SealError(f"the seal passphrase is missing: set {_PASSPHRASE_VARIABLE} or seal.passphrase_file")
    return Passphrase(environment[_PASSPHRASE_VARIABLE])


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"quorumca kek id 1" + key).hexdigest()[:16]


class Sealer:
    """Seals and opens secrets once it has the cluster's data key.

    `check_node` at start compares the KEK with the one this data directory was used with, so that a wrong key is
    noticed before anything is read; `unlock` does with the state that the cluster agreed on.
    """

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._aead: AESGCM | None = None
        self._unlocked: SealKey | None = None

    @property
    def is_unlocked(self) -> bool:
        return self._aead is not None

    def new_data_key(self) -> SealKey:
        """A fresh data key, wrapped. It is in use only once it has been committed and `unlock` was called."""
        salt = self._source.new_salt()
        kek = self._source.key(salt)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        wrapped = nonce + AESGCM(kek).encrypt(nonce, secrets.token_bytes(_KEY_BYTES), _WRAP_CONTEXT)
        return SealKey(self._source.name, _key_id(kek), salt, wrapped)

    def unlock(self, seal: SealKey) -> None:
        """Take the cluster's data key into use. Raises: SealError when this node's KEK does not open it."""
        if seal == self._unlocked:
            return
        if seal.source != self._source.name:
            raise SealError(
                f"this cluster's seal comes from source {seal.source!r}, but this node is configured for"
                f' {self._source.name!r}: set seal.source = "{seal.source}"'
            )
        kek = self._source.key(seal.salt)
        try:
            data_key = AESGCM(kek).decrypt(
                seal.wrapped_key[:_NONCE_BYTES], seal.wrapped_key[_NONCE_BYTES:], _WRAP_CONTEXT
            )
        except InvalidTag:
            raise SealError(
                f"this node's seal key ({_key_id(kek)}) is not the one of this cluster ({seal.kek_id}):"
                " install the cluster's seal key or passphrase on this node and start it again"
            ) from None
        self._aead = AESGCM(data_key)
        self._unlocked = seal

    def opened(self, seal: SealKey) -> "Sealer":
        """Another sealer, for another cluster's seal, with this node's key. Raises: SealError."""
        other = Sealer(self._source)
        other.unlock(seal)
        return other

    def seal(self, secret: bytes, context: str) -> bytes:
        """`context` names what the secret is for; it opens under the same name only."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, secret, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises: SealError when the bytes were not sealed by this cluster for this purpose."""
        try:
            return self._cipher().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except InvalidTag:
            raise SealError(f"the sealed {context} does not open with this cluster's data key") from None

    def _cipher(self) -> AESGCM:
        if self._aead is None:
            raise SealError("the cluster has no seal yet")
        return self._aead

    # -- what this data directory was used with

    def node_facts(self) -> dict[str, str] | None:
        """What `check_node` compares after the next start; None before `unlock`."""
        if self._unlocked is None:
            return None
        return {
            "source": self._unlocked.source,
            "kek_id": self._unlocked.kek_id,
            "salt": self._unlocked.salt.hex(),
        }

    def check_node(self, facts: Mapping[str, Any] | None) -> None:
        """At start: is the key there, and is it the one of before? Raises: SealError."""
        if facts is None:
            self._source.key(self._source.new_salt())
            return
        try:
            source, kek_id, salt = facts["source"], facts["kek_id"], bytes.fromhex(facts["salt"])
        except (KeyError, TypeError, ValueError):
            raise SealError("node.json is damaged: it does not say which seal this node's data needs") from None
        if source != self._source.name:
            raise SealError(
                f"this node's data was sealed with source {source!r}, but seal.source is {self._source.name!r}"
            )
        found = _key_id(self._source.key(salt))
        if found != kek_id:
            raise SealError(
                f"wrong seal key: this node's data was sealed with key {kek_id}, the one given is {found};"
                " restore the right seal key or passphrase and start again"
            )


class NodeFile:
    """`node.json` in the data directory: whose data this is, and which seal it needs."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "node.json"

    def read(self) -> dict[str, Any] | None:
        """None in a new data directory. Raises: OSError, ValueError."""
        try:
            facts = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if not isinstance(facts, dict):
            raise ValueError("it must hold a JSON object")
        return facts

    def write(self, facts: Mapping[str, Any]) -> None:
        temporary = self._path.with_suffix(".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
