"""SecretIDs: how they are drawn, and how they are looked up without being kept.

HMAC-SHA256 under a key of the cluster's own is all that is replicated of one. The key is drawn once, and sealed with
the data key: whoever holds a backup, and not the seal key, cannot even try out guesses. A token that somebody has
chosen themselves may be easy to guess; one that is drawn here has 122 random bits (RFC 9562 5.4).
"""

import hmac
import secrets
import uuid
from collections.abc import Callable
from typing import Final, Protocol

from cluster.base.errors import NotReady
from fsm.acl import AclKey

_KEY_BYTES: Final = 32
#: Servers of the release before could not keep it, nor who is not known by a key be trusted with it.
NOT_SET_UP: Final = (
    "access control is not set up yet: it is once every server is known by its key, on a new cluster in seconds, after"
    " an upgrade in ten minutes"
)
#: What it is sealed for.
_PURPOSE: Final = "the key of tokens"


class Sealer(Protocol):
    """`cluster.seal.node_sealer.NodeSealer`, as far as it is needed here."""

    def open_bare(self, what: str, sealed: bytes) -> bytes: ...
    def seal_bare(self, what: str, plain: bytes) -> bytes: ...


def new_key(sealer: Sealer) -> tuple[AclKey, bytes]:
    """Sealed, and bare. Raises: SealError."""
    bare = secrets.token_bytes(_KEY_BYTES)
    return AclKey(sealer.seal_bare(_PURPOSE, bare)), bare


def key_sealed_again(before: Sealer, after: Sealer, key: AclKey) -> AclKey:
    """The same under another data key. Raises: SealError."""
    return AclKey(after.seal_bare(_PURPOSE, before.open_bare(_PURPOSE, key.sealed)))


def hash_of(secret_id: str, bare_key: bytes) -> bytes:
    return hmac.digest(bare_key, secret_id.encode("utf-8", "surrogatepass"), "sha256")


def new_id() -> str:
    """A random UUID: an AccessorID, or a SecretID."""
    return str(uuid.uuid4())


class SecretIds:
    """Hashes with the key that a state names. The opened one is kept, for as long as the state names it."""

    def __init__(self, key: Callable[[], AclKey | None], sealer: Sealer) -> None:
        self._key = key
        self._sealer = sealer
        self._opened: tuple[AclKey, bytes] | None = None

    def hashed(self, secret_id: str) -> bytes:
        """32 bytes. Raises: NotReady before the cluster has a key; SealError."""
        return hash_of(secret_id, self._bare())

    def _bare(self) -> bytes:
        key = self._key()
        if key is None:
            raise NotReady(NOT_SET_UP)
        if self._opened is None or self._opened[0] != key:
            self._opened = key, self._sealer.open_bare(_PURPOSE, key.sealed)
        return self._opened[1]
