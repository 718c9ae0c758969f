"""The built-in provider, "consul": signs with a key that it holds.

In the primary the root itself signs leaves; in a secondary an intermediate does, which the primary has signed. Keys
live in the state (providers/builtin/state.py), which the caller seals, commits and hands back: nothing is kept
anywhere else, so an instance may be dropped at any moment. Clock and serials come in with each request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from providers.api import (
    CAChain,
    CrossSignRequest,
    IntermediateRequest,
    IssuedLeaf,
    LeafRequest,
    ProviderSettings,
    RootIntent,
    one_by_one,
)
from providers.builtin import state as builtin_state
from providers.builtin.state import BuiltinConfig, PrimaryState, SecondaryState
from providers.errors import ChainInvalid, CSRRejected, NotInitialized, NotSupported, ProviderError
from providers.pki import keys, spiffe, verify, x509
from providers.pki.csr import check_intermediate_csr
from providers.pki.issuing import NO_CSR, NO_INTERMEDIATE, NOT_ROOT, accept_intermediate, cross_terms, require_future
from providers.pki.keys import SigningKey, VerifyKey
from providers.pki.leaf import LeafSigner
from providers.pki.x509 import Issuer, Validity, at, unix


@dataclass(frozen=True, slots=True)
class _Active:
    """A complete CA, decoded once: what signing needs."""

    chain: CAChain
    issuer: Issuer
    leaves: LeafSigner


class BuiltinProvider:
    """See providers/api.py for the contract."""

    name: ClassVar[str] = "consul"
    secret_keys: ClassVar[frozenset[str]] = frozenset({"PrivateKey"})

    def __init__(self) -> None:
        self._cluster_id = ""
        self._is_primary = False
        self._config: BuiltinConfig | None = None
        self._state: PrimaryState | SecondaryState | None = None
        self._key: SigningKey | None = None  # the state's, decoded
        self._active: _Active | None = None

    # --- configuration --------------------------------------------------------------------------------------------

    def destination(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Nowhere: the key that an operator gives stays here."""
        return {}

    def check(self, config: Mapping[str, object], credentials_dir: str) -> None:
        BuiltinConfig.parse(config)

    def configure(self, settings: ProviderSettings) -> None:
        config = BuiltinConfig.parse(settings.config)
        state = builtin_state.decode(settings.state)
        self._cluster_id = settings.cluster_id.lower()
        self._is_primary = settings.is_primary
        self._config = config
        self._hold(None)
        try:
            key = _decode_key(state.key_der) if state else None
            match state:
                case PrimaryState() if self._is_primary and key and state.fits(config, self._cluster_id, key):
                    self._hold(state, key)
                case SecondaryState() if not self._is_primary and state.fits(config, self._cluster_id):
                    self._hold(state, key)
        except (ChainInvalid, ValueError):  # a state that contradicts itself is no state
            self._hold(None)

    def chain(self) -> CAChain | None:
        return self._active.chain if self._active else None

    def public_state(self) -> Mapping[str, str]:
        """Only what Consul's own API test puts there (consul-compat 9): the built-in provider has no facts to show."""
        return self._config.test_state if self._config else {}

    # --- primary --------------------------------------------------------------------------------------------------

    def prepare_root(self, intent: RootIntent) -> bytes:
        config = self._as_primary(NOT_ROOT)
        if not isinstance(self._state, PrimaryState):
            key = config.private_key or keys.generate(config.common.key_kind)
            state = PrimaryState(
                cluster_id=self._cluster_id,
                key_kind=config.common.key_kind,
                key_der=keys.to_der(key),
                supplied_key_id=keys.key_id(key.public_key()) if config.private_key else b"",
                intent=intent,
                root_ttl_seconds=config.common.root_ttl_seconds,
            )
            if config.root_cert_pem:  # refuse before anything is committed
                self._adopt(config, state, key)
            self._hold(state, key)
        assert self._state is not None
        return builtin_state.encode(self._state)

    def root_to_adopt(self) -> str:
        """None: there is no backend that could have one, and an operator's comes with the configuration."""
        self._as_primary(NOT_ROOT)
        return ""

    def generate_root(self) -> tuple[CAChain, bytes]:
        config = self._as_primary(NOT_ROOT)
        state, key = self._state, self._key
        if not isinstance(state, PrimaryState) or key is None:
            raise NotInitialized("provider not initialized")
        if not state.root_pem:
            root_pem = self._adopt(config, state, key) if config.root_cert_pem else self._self_signed(state, key)
            verify.verify_ca(CAChain(root_pem, root_pem), trust_domain=self._trust_domain, now=state.intent.not_before)
            self._hold(replace(state, root_pem=root_pem), key)
        assert self._state is not None
        return self._require_active().chain, builtin_state.encode(self._state)

    def _adopt(self, config: BuiltinConfig, state: PrimaryState, key: SigningKey) -> str:
        root = verify.check_supplied_root(
            config.root_cert_pem, key, cluster_id=self._cluster_id, now=state.intent.not_before
        )
        return x509.cert_pem(root)

    def _self_signed(self, state: PrimaryState, key: SigningKey) -> str:
        intent = state.intent
        begin = intent.not_before - x509.backdate_seconds(state.root_ttl_seconds)
        root = x509.build_root(
            key,
            x509.common_name("pri", intent.uid, self.name, self._cluster_id),
            spiffe.signing_id(self._trust_domain).uri,
            intent.serial,
            Validity(at(begin), at(intent.not_before + state.root_ttl_seconds)),
        )
        return x509.cert_pem(root)

    def sign_intermediate(self, request: IntermediateRequest) -> str:
        config = self._as_primary(NOT_ROOT)
        root = self._require_active().issuer
        csr = check_intermediate_csr(request.csr_pem, self._trust_domain)
        subject = csr.subject
        if not subject.rdns:
            subject = x509.distinguished_name(self._secondary_name(csr.key))
        if subject == root.cert.subject:
            raise CSRRejected("CSR subject must not be the name of the root that signs it")
        ttl = config.common.intermediate_ttl_seconds
        not_before = request.now - x509.backdate_seconds(ttl)
        not_after = min(not_before + ttl, unix(root.cert.not_valid_after_utc))
        require_future(not_after, request.now, "root certificate is expired")
        cert = x509.build_intermediate(
            root, subject, csr.key, csr.names, request.serial, Validity(at(not_before), at(not_after))
        )
        verify.verify_below(cert, [], root.cert, now=request.now)
        return x509.cert_pem(cert)

    def wants_renewal(self) -> bool:
        return False

    def renew_signing_cert(self) -> tuple[CAChain, bytes]:
        self._as_primary(NOT_ROOT)
        raise NotSupported("the root itself signs leaves here: there is no intermediate to renew")

    def supports_cross_signing(self) -> bool:
        return self._is_primary and self._config is not None and self._config.cross_signing

    def cross_sign(self, request: CrossSignRequest) -> str:
        config = self._as_primary(NOT_ROOT)
        if not config.cross_signing:
            raise NotSupported("cross-signing disabled")
        root = self._require_active().issuer
        terms = cross_terms(request, root.cert)
        cert = x509.build_cross_signed(root, terms.other, request.serial, terms.validity)
        verify.verify_below(cert, [], root.cert, now=request.now)
        return x509.cert_pem(cert)

    # --- secondary ------------------------------------------------------------------------------------------------

    def generate_intermediate_csr(self) -> tuple[str, bytes]:
        config = self._as_secondary(NO_CSR)
        state = self._state
        if not isinstance(state, SecondaryState):
            state = SecondaryState(self._cluster_id, config.common.key_kind)
        if not state.pending_csr_pem:
            key = keys.generate(config.common.key_kind)
            name = self._secondary_name(key.public_key())
            state = replace(
                state,
                pending_key_der=keys.to_der(key),
                pending_csr_pem=x509.build_intermediate_csr(key, name, spiffe.signing_id(self._trust_domain).uri),
            )
            self._state = state
        return state.pending_csr_pem, builtin_state.encode(state)

    def set_intermediate(self, intermediate_pem: str, root_pem: str) -> tuple[CAChain, bytes]:
        self._as_secondary(NO_INTERMEDIATE)
        state = self._state
        if not isinstance(state, SecondaryState):
            raise NotInitialized("no intermediate CSR has been generated")
        chain = accept_intermediate(intermediate_pem, root_pem, self._trust_domain)
        theirs = x509.public_key(x509.load_cert(chain.signing_cert_pem))
        for key_der in (state.pending_key_der, state.key_der):
            key = _decode_key(key_der)
            if key is not None and keys.key_id(key.public_key()) == keys.key_id(theirs):
                break
        else:
            raise ChainInvalid("intermediate cert is for a different private key")
        # Key and certificate change together, so there is no moment at which one is without the other. The pending
        # key goes only when it is the one that was certified: an old answer that arrives late leaves it alone.
        if key_der == state.pending_key_der:
            state = replace(state, pending_key_der=b"", pending_csr_pem="")
        intermediate = "".join(chain.intermediate_pems)
        self._hold(replace(state, key_der=key_der, intermediate_pem=intermediate, root_pem=chain.root_pem), key)
        assert self._state is not None
        return self._require_active().chain, builtin_state.encode(self._state)

    # --- both -----------------------------------------------------------------------------------------------------

    def sign_leaf(self, request: LeafRequest) -> IssuedLeaf:
        return self._require_active().leaves.sign(request)

    def sign_leaves(self, requests: Sequence[LeafRequest]) -> list[IssuedLeaf | ProviderError]:
        return one_by_one(self.sign_leaf, requests)

    def warnings(self) -> Sequence[str]:
        """None: all that can go wrong here shows when something is asked for."""
        return ()

    def cleanup(self, *, is_unused: bool = False) -> None:
        """Nothing to do: the keys are in the state, and the caller forgets that when rollback is over."""

    def close(self) -> None:
        self._config = None
        self._hold(None)

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def _trust_domain(self) -> str:
        return spiffe.trust_domain_of(self._cluster_id)

    def _secondary_name(self, key: VerifyKey) -> str:
        return x509.common_name("sec", x509.uid_of(key), self.name, self._cluster_id)

    def _as_primary(self, refusal: str) -> BuiltinConfig:
        if self._config is not None and not self._is_primary:
            raise NotSupported(refusal)
        return self._require_config()

    def _as_secondary(self, refusal: str) -> BuiltinConfig:
        if self._is_primary:
            raise NotSupported(refusal)
        return self._require_config()

    def _require_config(self) -> BuiltinConfig:
        if self._config is None:
            raise NotInitialized("provider not configured")
        return self._config

    def _require_active(self) -> _Active:
        if self._active is None:
            raise NotInitialized("provider not initialized")
        return self._active

    def _hold(self, state: PrimaryState | SecondaryState | None, key: SigningKey | None = None) -> None:
        """Make `state`, with its decoded key, the one that counts; whatever it says is decoded once, here."""
        self._state, self._key, self._active = state, key, None
        match state:
            case PrimaryState(root_pem=root_pem) if root_pem:
                chain = CAChain(root_pem, root_pem)
            case SecondaryState(intermediate_pem=intermediates) if intermediates:
                pems = x509.split_bundle(intermediates)
                chain = CAChain(state.root_pem, pems[0], pems)
            case _:
                return
        cert = x509.load_cert(chain.signing_cert_pem)
        if key is None or keys.key_id(key.public_key()) != keys.key_id(x509.public_key(cert)):
            raise ChainInvalid("stored key and stored certificate do not belong together")
        ttl = self._require_config().common.leaf_ttl_seconds
        issuer = Issuer(cert, key)
        self._active = _Active(chain, issuer, LeafSigner(chain, issuer, ttl))


def _decode_key(key_der: bytes) -> SigningKey | None:
    try:
        return keys.load_der(key_der) if key_der else None
    except (ValueError, TypeError):
        return None
