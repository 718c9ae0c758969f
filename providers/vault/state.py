"""What the Vault provider remembers: which of Vault's issuers are this CA, and how far it has come; no secret."""

from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from providers.api import CAChain, RootIntent
from providers.config.common import DEFAULT_KEY_KIND
from providers.errors import ConfigInvalid
from providers.pki.keys import KeyKind
from providers.vault.config import Place, VaultConfig
from providers.vault.mount import Issuer

FORMAT: Final = 1

_NAME: Final = "vault"
# msgpack integers end at 64 bits.
_SERIAL_BYTES: Final = 20


@dataclass(frozen=True, slots=True)
class Held:
    """An issuer of a mount that this CA uses, or has used."""

    place: Place
    issuer: Issuer


@dataclass(frozen=True, slots=True)
class Pending:
    """A CSR on its way to the primary."""

    place: Place
    key_id: str
    csr_pem: str


@dataclass(frozen=True, slots=True)
class VaultState:
    cluster_id: str
    is_primary: bool
    root: Place  # the primary's; empty path in a secondary
    key_kind: KeyKind  # what the configuration asked for when this was made
    intent: RootIntent | None = None  # the primary's
    root_pem: str = ""  # the trust anchor
    above: tuple[str, ...] = ()  # CA certificates between `signing` and the anchor, in issuer order
    signing: Held | None = None
    generation: int = 0  # how many intermediates there have been before `signing`
    pending: Pending | None = None  # a secondary's
    superseded: tuple[Held, ...] = field(default=())  # not needed once this state is committed

    @property
    def chain(self) -> CAChain | None:
        if self.signing is None:
            return None
        cert_pem = self.signing.issuer.cert_pem
        return CAChain(self.root_pem, cert_pem, (cert_pem, *self.above))

    @property
    def places(self) -> frozenset[Place]:
        """Mounts at which something of this CA is."""
        held = (self.signing, self.pending, *self.superseded)
        return frozenset({self.root, *(one.place for one in held if one is not None)})

    def fits(self, config: VaultConfig, cluster_id: str, *, is_primary: bool) -> bool:
        """Whether the configuration means this CA. Another place or kind for intermediates counts from the next on.

        Raises: ConfigInvalid for a change that Consul refuses.
        """
        if (self.cluster_id, self.is_primary) != (cluster_id, is_primary):
            return False
        if not is_primary:
            return True
        if self.root != config.root:
            return False
        wanted = config.common.key_kind
        if wanted.type != self.key_kind.type and self.key_kind.type != DEFAULT_KEY_KIND.type:
            raise ConfigInvalid(_INCOMPATIBLE.format("PrivateKeyType"))
        if wanted.bits != self.key_kind.bits and self.key_kind.bits != DEFAULT_KEY_KIND.bits:
            raise ConfigInvalid(_INCOMPATIBLE.format("PrivateKeyBits"))
        return True


_INCOMPATIBLE: Final = (
    "new configuration is incompatible with previous configuration: "
    "cannot update the {} field without changing RootPKIPath"
)


def encode(state: VaultState) -> bytes:
    intent, pending = state.intent, state.pending
    packed: bytes = msgpack.packb(
        {
            "format": FORMAT,
            "provider": _NAME,
            "primary": state.is_primary,
            "cluster_id": state.cluster_id,
            "root_place": _pack_place(state.root),
            "key_kind": [state.key_kind.type, state.key_kind.bits],
            "intent": intent and [intent.serial.to_bytes(_SERIAL_BYTES, "big"), intent.uid, intent.not_before],
            "root": state.root_pem,
            "above": list(state.above),
            "signing": state.signing and _pack_held(state.signing),
            "generation": state.generation,
            "pending": pending and [_pack_place(pending.place), pending.key_id, pending.csr_pem],
            "superseded": [_pack_held(held) for held in state.superseded],
        }
    )
    return packed


def decode(data: bytes) -> VaultState | None:
    """None for what this provider has not written.

    Raises: ConfigInvalid for a newer format: setting that aside would make a new CA out of a mere downgrade.
    """
    try:
        head = msgpack.unpackb(data)
        if not isinstance(head, dict) or head.get("provider") != _NAME:
            return None
        if head["format"] > FORMAT:
            raise ConfigInvalid(
                f"the CA's stored state has format {head['format']}, this version knows up to {FORMAT}: "
                "it was written by a newer version, which must be installed again"
            )
        intent, pending = head["intent"], head["pending"]
        return VaultState(
            cluster_id=head["cluster_id"],
            is_primary=head["primary"],
            root=Place(*head["root_place"]),
            key_kind=KeyKind(*head["key_kind"]),
            intent=RootIntent(int.from_bytes(intent[0], "big"), *intent[1:]) if intent else None,
            root_pem=head["root"],
            above=tuple(head["above"]),
            signing=_held(head["signing"]) if head["signing"] else None,
            generation=head["generation"],
            pending=Pending(Place(*pending[0]), *pending[1:]) if pending else None,
            superseded=tuple(map(_held, head["superseded"])),
        )
    except (ValueError, TypeError, KeyError, msgpack.UnpackException):
        return None


def _pack_place(place: Place) -> list[str]:
    return [place.namespace, place.path]


def _pack_held(held: Held) -> list[Any]:
    issuer = held.issuer
    return [_pack_place(held.place), [issuer.issuer_id, issuer.key_id, issuer.cert_pem]]


def _held(packed: list[Any]) -> Held:
    place, issuer = packed
    return Held(Place(*place), Issuer(*issuer))
