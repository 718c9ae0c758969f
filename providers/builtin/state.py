"""What the built-in provider is configured with, what it remembers, and whether the one still fits the other.

Owns the identity rules (docs/consul-compat.md 10.1): which change of configuration keeps the CA's key and root, and
which means new ones. The state holds private keys in plain; the caller seals it before it goes anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from providers.api import RootIntent
from providers.config.common import CommonConfig
from providers.config.decode import Fields
from providers.errors import ConfigInvalid
from providers.pki import keys
from providers.pki.keys import KeyKind, SigningKey
from providers.pki.x509 import load_bundle

FORMAT = 1

# msgpack integers end at 64 bits.
_SERIAL_BYTES = 20


@dataclass(frozen=True, slots=True)
class BuiltinConfig:
    common: CommonConfig
    private_key: SigningKey | None = field(repr=False)  # the operator's, if there is one that counts
    key_cleared: bool  # no operator's key shall be kept: PrivateKey is "", or not of the kind asked for
    root_cert_pem: str
    cross_signing: bool
    test_state: Mapping[str, str]

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> "BuiltinConfig":
        """Raises: ConfigInvalid."""
        fields = Fields(raw)
        common = CommonConfig.read(fields)
        key_pem, root_cert_pem = fields.text("PrivateKey"), fields.text("RootCert").strip()
        no_cross_signing = fields.flag("DisableCrossSigning", default=False)
        test_state = fields.text_map("test_state")
        fields.finish()
        if root_cert_pem and not key_pem.strip():
            raise ConfigInvalid("must provide a private key when providing a root cert")
        common.validate()
        key = _supplied_key(key_pem)
        key_fits = key is None or common.accepts_key(keys.kind_of(key))
        if root_cert_pem and not key_fits:
            raise ConfigInvalid(
                "RootCert goes with a PrivateKey that is not of the kind PrivateKeyType and PrivateKeyBits ask for: "
                "leave RootCert out to get a new key and root, or leave out type and bits to keep both"
            )
        return cls(
            common=common,
            private_key=key if key_fits else None,
            key_cleared=not key_fits or (key is None and fields.get("PrivateKey") is not None),
            root_cert_pem=root_cert_pem,
            cross_signing=not no_cross_signing,
            test_state=test_state,
        )


def private_key_fits(raw: Mapping[str, object]) -> bool:
    """Whether the PrivateKey of a configuration is of the kind that its explicit PrivateKeyType and Bits ask for.

    For the caller that puts stored secrets back into a PUT: when it put PrivateKey back and this is False, the stored
    value counts as cleared (consul-compat 10.1) and must be forgotten, or the next PUT without type and bits would
    bring the old key back. A configuration that cannot be decoded is judged by `configure`, not here.
    """
    fields = Fields(raw)
    common, key_pem = CommonConfig.read(fields), fields.text("PrivateKey")
    try:
        key = _supplied_key(key_pem)
    except ConfigInvalid:
        return True
    return key is None or common.accepts_key(keys.kind_of(key))


def _supplied_key(pem: str) -> SigningKey | None:
    if not pem.strip():
        return None
    try:
        return keys.load_pem(pem)
    except keys.KeyRefused as error:
        raise ConfigInvalid(f"PrivateKey cannot be used: {error}") from error


@dataclass(frozen=True, slots=True)
class PrimaryState:
    """A root, prepared (key and intent) or finished (root_pem too)."""

    cluster_id: str
    key_kind: KeyKind  # what the configuration asked for when the key was made
    key_der: bytes = field(repr=False)
    supplied_key_id: bytes  # of the operator's key, or empty: the key was generated here
    intent: RootIntent
    root_ttl_seconds: int
    root_pem: str = ""

    def fits(self, config: BuiltinConfig, cluster_id: str, key: SigningKey) -> bool:
        """Whether this state is what the configuration asks for; `key` is `key_der`, decoded."""
        if self.cluster_id != cluster_id:
            return False
        if config.private_key is not None:
            same_key = keys.key_id(config.private_key.public_key()) == keys.key_id(key.public_key())
            return same_key and self._has_root(config.root_cert_pem)
        if self.supplied_key_id:
            # An omitted PrivateKey keeps the operator's key; an explicit "" does not, nor does another kind.
            return not config.key_cleared and config.common.accepts_key(keys.kind_of(key))
        return self.key_kind == config.common.key_kind

    def _has_root(self, wanted_pem: str) -> bool:
        """An omitted RootCert stays with its key; one that is given must be the one that is held."""
        if not wanted_pem or not self.root_pem:
            return True
        try:
            wanted = load_bundle(wanted_pem)
        except ValueError:
            return False  # `prepare_root` says what is wrong with it
        return _ders(wanted) == _ders(load_bundle(self.root_pem))


@dataclass(frozen=True, slots=True)
class SecondaryState:
    """An intermediate: the one in use, the one that is being asked for, or both."""

    cluster_id: str
    key_kind: KeyKind
    key_der: bytes = field(default=b"", repr=False)
    intermediate_pem: str = ""
    root_pem: str = ""
    pending_key_der: bytes = field(default=b"", repr=False)
    pending_csr_pem: str = ""

    def fits(self, config: BuiltinConfig, cluster_id: str) -> bool:
        return self.cluster_id == cluster_id and self.key_kind == config.common.key_kind


State = PrimaryState | SecondaryState


def encode(state: State) -> bytes:
    head: dict[str, object] = {
        "format": FORMAT,
        "provider": "consul",
        "primary": isinstance(state, PrimaryState),
        "cluster_id": state.cluster_id,
        "key_kind": [state.key_kind.type, state.key_kind.bits],
        "key": state.key_der,
        "root": state.root_pem,
    }
    match state:
        case PrimaryState():
            head |= {
                "supplied_key_id": state.supplied_key_id,
                "serial": state.intent.serial.to_bytes(_SERIAL_BYTES, "big"),
                "uid": state.intent.uid,
                "not_before": state.intent.not_before,
                "root_ttl_seconds": state.root_ttl_seconds,
            }
        case SecondaryState():
            head |= {
                "intermediate": state.intermediate_pem,
                "pending_key": state.pending_key_der,
                "pending_csr": state.pending_csr_pem,
            }
    packed: bytes = msgpack.packb(head)
    return packed


def decode(data: bytes) -> State | None:
    """None for what this provider has not written: nothing at all, or another provider's state.

    Raises: ConfigInvalid for a newer format. Setting that aside would make a new root out of a mere downgrade.
    """
    try:
        head = msgpack.unpackb(data)
        if not isinstance(head, dict) or head.get("provider") != "consul":
            return None
        if head["format"] > FORMAT:
            raise ConfigInvalid(
                f"the CA's stored state has format {head['format']}, this version knows up to {FORMAT}: "
                "it was written by a newer version, which must be installed again"
            )
        key_kind = KeyKind(*head["key_kind"])
        if not head["primary"]:
            return SecondaryState(
                cluster_id=head["cluster_id"],
                key_kind=key_kind,
                key_der=head["key"],
                intermediate_pem=head["intermediate"],
                root_pem=head["root"],
                pending_key_der=head["pending_key"],
                pending_csr_pem=head["pending_csr"],
            )
        return PrimaryState(
            cluster_id=head["cluster_id"],
            key_kind=key_kind,
            key_der=head["key"],
            supplied_key_id=head["supplied_key_id"],
            intent=RootIntent(int.from_bytes(head["serial"], "big"), head["uid"], head["not_before"]),
            root_ttl_seconds=head["root_ttl_seconds"],
            root_pem=head["root"],
        )
    except (ValueError, TypeError, KeyError, msgpack.UnpackException):
        return None


def _ders(certs: list[Certificate]) -> list[bytes]:
    return [cert.public_bytes(Encoding.DER) for cert in certs]
