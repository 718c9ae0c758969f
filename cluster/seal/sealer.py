"""Envelope encryption of private keys: they enter the log and the disk sealed only.

A random data key (AES-256-GCM) seals each secret. The data key itself is in the replicated state, wrapped by a
key-encryption key (KEK) that every node has and that is never written by us but to `seal.key`. A node whose KEK does
not open the data key must not run: it could not take over.
"""

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster.seal.sources import KEY_BYTES, KeyAt, KeyMissing, KeySource, SealError
from fsm.ca import SealKey

_NONCE_BYTES: Final = 12
_WRAP_CONTEXT: Final = b"quorumca data key 1"
_MAC_PURPOSE: Final = b"quorumca snapshot mac 1"
_DRAW_PURPOSE: Final = b"quorumca serials 1"
_PROOF_PURPOSE: Final = b"quorumca requests 1"


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"quorumca kek id 1" + key).hexdigest()[:16]


def _wrapped(source: KeySource, salt: bytes) -> SealKey:
    """A fresh data key. Raises: SealError."""
    kek = source.key(salt)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    wrapped = nonce + AESGCM(kek).encrypt(nonce, secrets.token_bytes(KEY_BYTES), _WRAP_CONTEXT)
    return SealKey(source.name, _key_id(kek), salt, wrapped)


def _which_key(kek_id: str, others: Sequence[tuple[KeySource, str]], following: Sequence[KeySource]) -> str:
    """Of a seal whose key is none of those that are here."""
    here = " and ".join(f"{found_id} in {found.place}" for found, found_id in others)
    next_place = "".join(
        f"; during a change of keys, or for a snapshot from before one, put it in {found.place}" for found in following
    )
    return (
        f"The seal key with ID {kek_id} is needed, and is not here (there is {here}): if this is a key of another"
        f" cluster, put the right one in its place{next_place}"
    )


def _derived(data_key: bytes, purpose: bytes) -> bytes:
    """A key that is good for this purpose alone (RFC 5869)."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=purpose).derive(data_key)


def facts_of(seal: SealKey) -> dict[str, str]:
    """Which key-encryption key it needs, as `node.json` has it: nothing secret."""
    return {"source": seal.source, "kek_id": seal.kek_id, "salt": seal.salt.hex()}


@dataclass(frozen=True, slots=True)
class _DataKey:
    """What a seal opens. One value: nodes open a seal in another thread than those that use it, and whoever looks must
    find all of one data key or all of the next.
    """

    seal: SealKey
    kek: bytes = field(repr=False)  # what wraps it: its file may change, or go, while nodes run
    aead: AESGCM = field(repr=False)
    mac_key: bytes = field(repr=False)
    draw_key: bytes = field(repr=False)
    proof_key: bytes = field(repr=False)

    @classmethod
    def of(cls, seal: SealKey, data_key: bytes, kek: bytes) -> "_DataKey":
        derived = (_derived(data_key, purpose) for purpose in (_MAC_PURPOSE, _DRAW_PURPOSE, _PROOF_PURPOSE))
        return cls(seal, kek, AESGCM(data_key), *derived)


class Sealer:
    """Seals and opens secrets once it has the cluster's data key.

    `check_node` at start compares the KEK with the one this data directory was used with, so that a wrong key is
    noticed before anything is read; `unlock` does with the state that the cluster agreed on.

    While the KEK is changed there are two: the one from `source`, and the next one, from one of `following`.
    """

    def __init__(self, source: KeySource, *following: KeySource) -> None:
        self._source = source
        self._following = following
        self._held: _DataKey | None = None

    def new_data_key(self) -> SealKey:
        """A fresh data key, wrapped. It is in use only once it has been committed and `unlock` was called."""
        return _wrapped(self._source, self._source.new_salt())

    def next_data_key(self, *, keeps_key: bool) -> SealKey:
        """A fresh data key, wrapped by the next KEK, or by the one in force. Raises: SealError, which says what to do.

        In use as that of `new_data_key`.
        """
        seal = self._in_use().seal
        if keeps_key:
            source, _ = self._key_of(seal.source, seal.kek_id, seal.salt)
            return _wrapped(source, seal.salt)
        made = []
        for source in self._following:
            with contextlib.suppress(KeyMissing):
                made.append(_wrapped(source, source.new_salt()))
        if len(made) > 1:
            raise SealError("there is a next seal key and a next passphrase: which of them is meant? Remove the other")
        if not made:
            raise SealError(
                "there is no next seal key: make one with `quorumca seal init --key-file seal.next.key`, and copy it,"
                " mode 0600, into the data directory of every node (or to where seal.next_key_file points)"
            )
        if made[0].kek_id == seal.kek_id:
            raise SealError(f"the next seal key is the one in force ({made[0].kek_id})")
        return made[0]

    def lacks(self, source: str, kek_id: str, salt: bytes) -> str:
        """Why this node could not open a seal with this KEK; empty if it could."""
        try:
            self._key_of(source, kek_id, salt)
        except SealError as error:
            return str(error)
        return ""

    def unlock(self, seal: SealKey) -> None:
        """Take the cluster's data key into use. Raises: SealError when this node's KEK does not open it."""
        if self.holds(seal):
            return
        _, kek = self._key_of(seal.source, seal.kek_id, seal.salt)
        try:
            data_key = AESGCM(kek).decrypt(
                seal.wrapped_key[:_NONCE_BYTES], seal.wrapped_key[_NONCE_BYTES:], _WRAP_CONTEXT
            )
        except InvalidTag:
            raise SealError(
                f"the cluster's data key is damaged: it does not open with the seal key that it names ({seal.kek_id})"
            ) from None
        self._held = _DataKey.of(seal, data_key, kek)

    def holds(self, seal: SealKey) -> bool:
        held = self._held
        return held is not None and held.seal == seal

    def _in_use(self) -> _DataKey:
        """Raises: SealError before `unlock`."""
        held = self._held
        if held is None:
            raise SealError("the cluster has no seal yet")
        return held

    def _key_of(self, source: str, kek_id: str, salt: bytes) -> tuple[KeySource, bytes]:
        """The KEK with this id, and where it is from. Raises: SealError."""
        fitting = [found for found in (self._source, *self._following) if found.name == source]
        others: list[tuple[KeySource, str]] = []
        trouble: SealError | None = None
        for found in fitting:
            try:
                kek = found.key(salt)
            except SealError as error:
                if found is self._source or not isinstance(error, KeyMissing):
                    trouble = trouble or error
                continue
            if _key_id(kek) == kek_id:
                return found, kek
            others.append((found, _key_id(kek)))
        if trouble is not None:
            raise trouble
        if not others:
            raise SealError(
                f"this cluster's seal comes from source {source!r}, but this node is configured for"
                f' {self._source.name!r}: set seal.source = "{source}"'
            )
        raise SealError(_which_key(kek_id, others, [found for found in fitting if found is not self._source]))

    def key_at(self) -> KeyAt:
        """Where the KEK in force is found now."""
        held = self._held
        if held is None:
            return KeyAt.FIRST
        seal = held.seal
        for source, place in ((self._source, KeyAt.FIRST), *((found, KeyAt.NEXT) for found in self._following)):
            with contextlib.suppress(SealError):
                if source.name == seal.source and _key_id(source.key(seal.salt)) == seal.kek_id:
                    return place
        return KeyAt.NOWHERE

    def opened(self, seal: SealKey) -> "Sealer":
        """A sealer of its own for this seal, which no later `unlock` of this one changes. It takes this node's key, but
        for the seal in use: there the key may be lost while nodes run. Raises: SealError.
        """
        other = Sealer(self._source, *self._following)
        other._held = self._held
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

    # -- with keys that are derived from the data key, each for one purpose; all raise SealError before `unlock`

    def mac(self, sums: bytes) -> bytes:
        """Of a snapshot for keeping: HMAC-SHA256 of its sums."""
        return hmac.digest(self._in_use().mac_key, sums, "sha256")

    def proof(self, request: bytes) -> bytes:
        """That whoever sends this request has the cluster's data key: 32 bytes."""
        return hmac.digest(self._in_use().proof_key, request, "sha256")

    def draw_key(self) -> bytes:
        """For what nobody without the data key shall choose or foresee; nothing leads back from it."""
        return self._in_use().draw_key

    def _cipher(self) -> AESGCM:
        return self._in_use().aead

    # -- what this data directory was used with

    def new_kek(self) -> tuple[str, str, bytes, bytes]:
        """Where this node's key-encryption key comes from, its id, a salt, and the key. Raises: SealError."""
        salt = self._source.new_salt()
        kek = self._source.key(salt)
        return self._source.name, _key_id(kek), salt, kek

    def kek(self, source: str, kek_id: str, salt: bytes) -> bytes:
        """The one with this id, the next one included; the one in use even if its file has changed since.

        Raises: SealError when this node does not have it.
        """
        held = self._held
        if held is not None and (held.seal.source, held.seal.kek_id, held.seal.salt) == (source, kek_id, salt):
            return held.kek
        following = [found for found in self._following if found.name == source]
        others: list[tuple[KeySource, str]] = []
        troubles = ""
        for next_source in following:
            try:
                found = next_source.key(salt)
            except KeyMissing:
                continue
            except SealError as error:
                troubles += f"; {error}"
                continue
            if _key_id(found) == kek_id:
                return found
            others.append((next_source, _key_id(found)))
        if source != self._source.name:
            raise SealError(
                f"this node's data was sealed with source {source!r}, but seal.source is {self._source.name!r}"
            )
        kek = self._source.key(salt)
        if _key_id(kek) != kek_id:
            others.insert(0, (self._source, _key_id(kek)))
            which = _which_key(kek_id, others, following)
            raise SealError(f"wrong seal key: this node's data needs another one. {which}{troubles}")
        return kek

    def node_facts(self) -> dict[str, str] | None:
        """What `check_node` compares after the next start; None before `unlock`."""
        held = self._held
        return None if held is None else facts_of(held.seal)

    def check_node(self, facts: Mapping[str, Any] | None) -> None:
        """At start: is the key there, and is it the one of before? Raises: SealError."""
        if facts is None:
            self._source.key(self._source.new_salt())
            return
        try:
            source, kek_id, salt = facts["source"], facts["kek_id"], bytes.fromhex(facts["salt"])
        except (KeyError, TypeError, ValueError):
            raise SealError("node.json is damaged: it does not say which seal this node's data needs") from None
        self.kek(source, kek_id, salt)
