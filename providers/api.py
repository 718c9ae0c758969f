"""What a CA provider is. One contract test-suite (tests/contract) runs against every implementation.

A provider is driven by one caller at a time, from a worker process: its methods may block and may be slow, and
need not be thread-safe. It never writes to the log: what must survive is returned as new opaque `state`, and the
caller commits it (sealed) before it goes on. So every method that changes state can be called again after a crash
with the state that was committed last, and must then finish the same work instead of starting other work.

Choices that must not differ between two attempts at the same work (serial, common name, times) are made by the
caller, committed, and handed in. A provider whose backend makes such a choice itself (Vault picks serials) ignores
the given one and reports its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from providers.errors import ProviderError
from providers.grants import Grant


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Everything a provider is configured with.

    `config` is the operator's CA configuration map with secrets put back in; keys are CamelCase and matched without
    regard to case; unknown keys are ignored. `state` is what this provider returned last, empty at first.
    """

    cluster_id: str  # bare UUID; the trust domain is "<cluster_id>.consul"
    datacenter: str
    is_primary: bool
    config: Mapping[str, object] = field(repr=False)
    state: bytes = field(default=b"", repr=False)
    #: Of this node: below it, and nowhere else, a provider may read files that prove who it is. Empty: none.
    credentials_dir: str = ""


@dataclass(frozen=True, slots=True)
class RootIntent:
    """The choices for a root that is about to be made, fixed before anything is signed."""

    serial: int  # positive, 127 bits or more of randomness, at most 20 octets (RFC 5280 4.1.2.2)
    uid: str  # up to 8 characters [a-z0-9]; makes the common name unique (consul-compat 2.1)
    not_before: int  # Unix seconds; the root itself is backdated from here


@dataclass(frozen=True, slots=True)
class CAChain:
    """The CA of this datacenter as it stands.

    `root_pem` is the trust anchor. `signing_cert_pem` is the certificate whose key signs leaves (the root itself
    for a provider that signs with its root). `intermediate_pems` are the certificates that must accompany a leaf, in
    issuer order, starting with the one that signed the leaf; empty when the root signs. PEM texts end in a newline.
    """

    root_pem: str
    signing_cert_pem: str
    intermediate_pems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NameLimits:
    """The name constraints of one CA, in lower case. Nothing permitted of a kind: any, as far as it is not excluded."""

    ca: str  # its subject
    permitted_dns: tuple[str, ...]
    excluded_dns: tuple[str, ...]
    permitted_addresses: tuple[str, ...]  # networks
    excluded_addresses: tuple[str, ...]

    def packed(self) -> list[object]:
        """As it goes to a worker."""
        return [self.ca, self.permitted_dns, self.excluded_dns, self.permitted_addresses, self.excluded_addresses]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> "NameLimits":
        ca, *lists = packed
        return cls(ca, *map(tuple, lists))


@dataclass(frozen=True, slots=True)
class CSRPolicy:
    """What a leaf's CSR must agree with."""

    trust_domain: str  # "<cluster id>.consul", lower case
    datacenter: str
    domain: str = "consul"  # of the names by which servers are known, `server.<datacenter>.<domain>`
    limits: tuple[NameLimits, ...] = ()  # of every CA that vouches for leaves


@dataclass(frozen=True, slots=True)
class LeafRequest:
    csr_pem: str
    policy: CSRPolicy
    serial: int  # as in RootIntent
    now: int  # Unix seconds; the certificate is backdated from here
    grant: Grant  # what whoever asks may have


@dataclass(frozen=True, slots=True)
class IssuedLeaf:
    cert_pem: str  # the leaf alone, newline-terminated
    serial: int
    kind: str  # "service" | "agent" | "mesh-gateway"
    name: str  # service or node name; "" for a mesh gateway
    spiffe_id: str
    not_before: int  # Unix seconds
    not_after: int  # Unix seconds, inclusive (RFC 5280 4.1.2.5)
    public_key_sha256: bytes  # SHA-256 over the DER SubjectPublicKeyInfo, 32 bytes
    issuer_key_id: bytes  # the leaf's authority key identifier


@dataclass(frozen=True, slots=True)
class IntermediateRequest:
    csr_pem: str
    serial: int
    now: int  # Unix seconds


@dataclass(frozen=True, slots=True)
class CrossSignRequest:
    cert_pem: str  # the new root, self-signed
    serial: int
    now: int  # Unix seconds
    not_after: int  # Unix seconds; capped at the signing root's and at the new root's own NotAfter


class Provider(Protocol):
    """See the module's text for the rules that hold for all methods."""

    name: ClassVar[str]
    #: Canonical names of configuration keys whose values are secret: kept out of logs, the API and the plain state.
    secret_keys: ClassVar[frozenset[str]]

    def destination(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """What of a configuration says where its secrets go, and whom they are shown to, by canonical key.

        Whoever keeps secrets fills a stored one into a configuration only if this is as it was when the secret was
        given. Empty for a provider whose secrets go nowhere. Judges nothing, and raises nothing.
        """
        ...

    def check(self, config: Mapping[str, object], credentials_dir: str) -> None:
        """Judge a primary's configuration as `configure` would, as far as that takes no backend and no file. Keeps
        nothing of it. The one method that a provider of another package may leave out.

        Raises: ConfigInvalid.
        """
        ...

    def configure(self, settings: ProviderSettings) -> None:
        """Take a configuration and the state that belongs to it; may be called again with newer ones.

        Must not mutate what it is given. Touches no backend beyond what is needed to log in and to look.
        State that does not fit the configuration (another key type, another supplied key) is set aside: the
        provider then has no chain until `prepare_root` and `generate_root` have been called, and the caller
        can tell by `chain()` being None that this configuration means a new root.

        Raises: ConfigInvalid, ProviderUnavailable.
        """
        ...

    def chain(self) -> CAChain | None:
        """The chain held now, or None when there is none yet that fits the configuration. Cheap; no backend call."""
        ...

    def public_state(self) -> Mapping[str, str]:
        """Small non-secret facts for operators (the `State` of GET configuration)."""
        ...

    def prepare_root(self, intent: RootIntent) -> bytes:
        """Primary only. Make or adopt the root's key and remember the intent; returns the state to commit.

        Does nothing, and returns the state unchanged, if the state already holds a prepared or finished root.
        Raises: NotSupported in a secondary; ConfigInvalid for a supplied key or root that cannot be used.
        """
        ...

    def root_to_adopt(self) -> str:
        """Primary only. The trust anchor that the backend has already and that `generate_root` would take over, PEM.

        Empty when there is none, or no backend. Lets a caller see in time that a rotation would bring the old root
        again. Raises: as `prepare_root`.
        """
        ...

    def generate_root(self) -> tuple[CAChain, bytes]:
        """Primary only. The chain for the prepared root, made now or made earlier; with the state to commit.

        Raises: NotInitialized before `prepare_root`; NotSupported in a secondary; ChainInvalid.
        """
        ...

    def sign_leaf(self, request: LeafRequest) -> IssuedLeaf:
        """Check the CSR and sign a leaf: the hot path.

        The certificate carries what the profile says, never what the CSR asks beyond public key and SANs.
        NotAfter never exceeds the signing certificate's.

        Raises: CSRRejected, NotInitialized, ProviderUnavailable, RateLimited; ChainInvalid when the signing
        certificate has expired, or the leaf does not verify.
        """
        ...

    def sign_leaves(self, requests: Sequence[LeafRequest]) -> list[IssuedLeaf | ProviderError]:
        """As `sign_leaf` for each, with one result for each, in order; a backend may work on many at a time.

        Raises nothing but defects: what `sign_leaf` would raise is that request's result (see `one_by_one`).
        """
        ...

    def wants_renewal(self) -> bool:
        """Primary only. Whether the configuration asks for another signing certificate than the one held, for example
        elsewhere in the backend: one that `renew_signing_cert` would make. Cheap; no backend call.
        """
        ...

    def renew_signing_cert(self) -> tuple[CAChain, bytes]:
        """Primary only, where an intermediate signs. A new one, with a new key, below the same root.

        The one in use stays in use here: the new one signs once the returned state has been committed and handed to
        `configure`. Only then is the old one removed from the backend, and not at once. Called again with the state
        committed before, it returns the same certificate instead of making another.

        Raises: NotSupported where the root itself signs, and in a secondary; NotInitialized; ChainInvalid when the
        backend's root is not the stored one any more.
        """
        ...

    def sign_intermediate(self, request: IntermediateRequest) -> str:
        """Primary only. Sign a secondary's CSR as a CA certificate with path length 0; returns its PEM.

        Where there are CAs between the one that signs and the trust anchor, they follow, in issuer order.

        Raises: CSRRejected, NotSupported in a secondary, NotInitialized, ChainInvalid as for a leaf.
        """
        ...

    def generate_intermediate_csr(self) -> tuple[str, bytes]:
        """Secondary only. A CSR for a new intermediate key (PEM) and the state to commit before it is sent.

        The key in use stays in use until `set_intermediate`. Raises: NotSupported in the primary.
        """
        ...

    def set_intermediate(self, intermediate_pem: str, root_pem: str) -> tuple[CAChain, bytes]:
        """Secondary only. Accept the primary's answer to the last CSR; from then on the new key signs.

        Raises: ChainInvalid with Consul's texts, NotSupported in the primary.
        """
        ...

    def supports_cross_signing(self) -> bool: ...

    def cross_sign(self, request: CrossSignRequest) -> str:
        """Re-issue another CA's root under this root: same subject, key, SANs and SKI, new serial and issuer. PEM.

        Where there are CAs between the one that signs and the trust anchor, they follow, in issuer order.

        Raises: NotSupported, NotInitialized, ChainInvalid when either root is expired or not a CA.
        """
        ...

    def warnings(self) -> Sequence[str]:
        """What an operator should do something about although the provider works, one sentence each: a login that
        runs out, a root in the backend that is not the stored one any more. Cheap; no backend call.
        """
        ...

    def cleanup(self, *, is_unused: bool = False) -> None:
        """Remove what this provider made in its backend for the CA of its state; may be called twice.

        That CA is not needed any more by what replaced it: then its root may stay. Or, with `is_unused`, it has never
        come into use, nor been trusted by anybody: then all of it goes. What another CA uses, or somebody else has
        made, stays. Raises: ProviderError when something stays that should not, for the caller to report.
        """
        ...

    def close(self) -> None:
        """Release connections and secrets held in memory; backend state stays. The object is not used again."""
        ...


def one_by_one(
    sign: Callable[[LeafRequest], IssuedLeaf], requests: Sequence[LeafRequest]
) -> list[IssuedLeaf | ProviderError]:
    """`sign_leaves` for a provider that gains nothing from doing several at a time."""
    return [result_of(sign, request) for request in requests]


def result_of(sign: Callable[[LeafRequest], IssuedLeaf], request: LeafRequest) -> IssuedLeaf | ProviderError:
    try:
        return sign(request)
    except ProviderError as error:
        return error
