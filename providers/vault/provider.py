"""The provider "vault": signs through HashiCorp Vault or OpenBao, where the keys stay.

In the primary the CA of the mount RootPKIPath signs an intermediate whose key is made at IntermediatePKIPath, and that
signs leaves; in a secondary the primary signs the intermediate. The state says which of Vault's issuers are this CA's
(vault_state.py). Once there is one, a Vault that is away delays signing and nothing else: `configure` and `chain` work.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Concatenate, Final, ParamSpec, TypeVar

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
from providers.errors import (
    ChainInvalid,
    ConfigInvalid,
    NotInitialized,
    NotSupported,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
)
from providers.pki import keys, spiffe, x509
from providers.pki.issuing import NO_CSR, NO_INTERMEDIATE, NOT_ROOT, accept_intermediate
from providers.vault import state as vault_state
from providers.vault.auth import TokenRefused, login_request
from providers.vault.client import VaultClient, VaultRefused
from providers.vault.config import Place, TLSOptions, VaultConfig, destination
from providers.vault.issuing import Issuing, MountedRoot
from providers.vault.leaves import VaultLeaves
from providers.vault.mount import INTERMEDIATE_DESCRIPTION, ROOT_DESCRIPTION, Issuer, Mount
from providers.vault.state import Held, VaultState
from providers.vault.transport import HvacTransport, Transport
from providers.vault.upkeep import Upkeep

_REPAIR: Final = (
    "put it back there, or rotate to another RootPKIPath with ForceWithoutCrossSigning: it cannot cross-sign any more"
)
_ROOT_CHECK_SECONDS: Final = 300.0
#: Other processes may sign with what was in use before, until they too have the state that replaces it.
_REMOVAL_SECONDS: Final = 60.0

Connect = Callable[[str, TLSOptions], Transport]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _in_time(
    method: Callable[Concatenate["VaultProvider", _Arguments], _Result],
) -> Callable[Concatenate["VaultProvider", _Arguments], _Result]:
    """Of an operation that asks Vault, more than once perhaps: however slow each answer is, it ends."""

    @functools.wraps(method)
    def bounded(self: "VaultProvider", /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        if self._client is None:
            return method(self, *arguments, **named)
        with self._client.operation():
            return method(self, *arguments, **named)

    return bounded


class VaultProvider:
    """See providers/api.py for the contract."""

    name: ClassVar[str] = "vault"
    # An auth method is secret as a whole: which of its parameters are depends on its type.
    secret_keys: ClassVar[frozenset[str]] = frozenset({"Token", "AuthMethod", "auth_method"})

    def __init__(
        self,
        connect: Connect = HvacTransport,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._now = now
        self._cluster_id = ""
        self._is_primary = False
        self._config: VaultConfig | None = None
        self._client: VaultClient | None = None
        self._state: VaultState | None = None
        self._leaves: VaultLeaves | None = None
        self._upkeep: Upkeep | None = None
        self._root_warning = ""
        self._root_checked_at: float | None = None
        self._removal_due = 0.0
        self._to_remove: tuple[Held, ...] = ()

    # --- configuration --------------------------------------------------------------------------------------------

    def destination(self, config: Mapping[str, object]) -> Mapping[str, object]:
        return destination(config)

    def check(self, config: Mapping[str, object], credentials_dir: str) -> None:
        VaultConfig.parse(config, is_primary=True, credentials_dir=credentials_dir)

    def configure(self, settings: ProviderSettings) -> None:
        config = VaultConfig.parse(
            settings.config, is_primary=settings.is_primary, credentials_dir=settings.credentials_dir
        )
        cluster_id = settings.cluster_id.lower()
        state = vault_state.decode(settings.state)
        if state is not None and not state.fits(config, cluster_id, is_primary=settings.is_primary):
            state = None
        config.require_paths(state.places if state is not None else ())
        is_complete = state is not None and state.signing is not None
        if config.auth_method:
            with contextlib.suppress(ProviderUnavailable):  # a file that may appear later
                login_request(config.auth_method, config.tls.files)
        client = VaultClient(config, self._connect(config.address, config.tls), clock=self._clock, now=self._now)
        try:
            client.tokens.current()
        except ProviderError as error:
            # A CA that exists is held although Vault is away: its chain is served, and signing goes on when Vault is
            # back. A wrong token is refused, for somebody may be about to configure it.
            if not is_complete or isinstance(error, TokenRefused) or not error.retryable:
                client.close()
                raise
        self.close()
        self._config, self._client, self._cluster_id = config, client, cluster_id
        self._is_primary, self._removal_due = settings.is_primary, self._clock() + _REMOVAL_SECONDS
        try:
            self._hold(state)
        except ValueError:  # a state that contradicts itself is no state
            self._hold(None)
        self._to_remove = self._state.superseded if self._state else ()
        self._upkeep = Upkeep(self._look_after)
        self._upkeep.start()

    def chain(self) -> CAChain | None:
        return self._leaves.chain if self._leaves else None

    def public_state(self) -> Mapping[str, str]:
        """Nothing, as in Consul: which mounts are used is in the configuration."""
        return {}

    def warnings(self) -> Sequence[str]:
        client = self._client
        upkeep = self._upkeep.trouble if self._upkeep else ""
        texts = (client.trouble, client.tokens.warning, self._root_warning, upkeep) if client else ()
        return tuple(text for text in texts if text)

    # --- primary --------------------------------------------------------------------------------------------------

    @_in_time
    def prepare_root(self, intent: RootIntent) -> bytes:
        config = self._as_primary(NOT_ROOT)
        if self._state is None:
            self._issuing().look()  # refuse before anything is committed
            self._state = VaultState(self._cluster_id, True, config.root, config.common.key_kind, intent)
        return vault_state.encode(self._state)

    @_in_time
    def root_to_adopt(self) -> str:
        self._as_primary(NOT_ROOT)
        root = self._issuing().find_root() if self._leaves is None else None
        return root.anchor_pem if root else ""

    @_in_time
    def generate_root(self) -> tuple[CAChain, bytes]:
        self._as_primary(NOT_ROOT)
        state = self._state
        if state is None or state.intent is None:
            raise NotInitialized("provider not initialized")
        if state.signing is None:
            issuing = self._issuing()
            root = issuing.ensure_root(state.intent)
            held, generation = issuing.intermediate_below(root, state.intent.uid, 0, state.intent.not_before)
            self._hold(replace(state, root_pem=root.anchor_pem, above=root.above, signing=held, generation=generation))
        assert self._state is not None
        return self._require_leaves().chain, vault_state.encode(self._state)

    def wants_renewal(self) -> bool:
        """IntermediatePKIPath, or its namespace, has been changed."""
        signing = self._state.signing if self._state else None
        return self._is_primary and signing is not None and signing.place != self._require_config().intermediate

    @_in_time
    def renew_signing_cert(self) -> tuple[CAChain, bytes]:
        config = self._as_primary(NOT_ROOT)
        state = self._state
        if state is None or state.intent is None or state.signing is None:
            raise NotInitialized("provider not initialized")
        root = self._stored_root(state)
        left = self._remove(state.superseded)
        self._remove(self._left_behind(state, state.signing, state.generation))
        try:
            held, generation = self._issuing().intermediate_below(
                root, state.intent.uid, state.generation + 1, int(self._now())
            )
        except (ProviderRefused, ChainInvalid):
            self._give_back(config.intermediate, state.intent, state.signing)
            raise
        renewed = replace(
            state,
            key_kind=config.common.key_kind,
            signing=held,
            generation=generation,
            superseded=(*left, state.signing),
        )
        assert renewed.chain is not None
        return renewed.chain, vault_state.encode(renewed)

    @_in_time
    def sign_intermediate(self, request: IntermediateRequest) -> str:
        self._as_primary(NOT_ROOT)
        self._require_leaves()
        assert self._state is not None
        return self._issuing().sign_secondary(self._stored_root(self._state), request)

    @_in_time
    def supports_cross_signing(self) -> bool:
        """Whether the policy allows it, as far as Vault says: better known before a rotation than in it."""
        if not self._is_primary or self._config is None:
            return False
        return self._mount(self._config.root).allows("root/sign-self-issued", ["update", "sudo"])

    @_in_time
    def cross_sign(self, request: CrossSignRequest) -> str:
        self._as_primary(NOT_ROOT)
        self._require_leaves()
        assert self._state is not None
        return self._issuing().cross_sign(self._stored_root(self._state), request)

    def _stored_root(self, state: VaultState) -> MountedRoot:
        """What is in the root mount now, if it is what it was."""
        try:
            root = self._issuing().find_root()
        except ConfigInvalid as error:
            self._root_warning = (
                f"stored CA root is not the one at RootPKIPath {state.root} any more: {error}; {_REPAIR}"
            )
            raise ChainInvalid(self._root_warning) from error
        if root is None or (root.anchor_pem, root.above) != (state.root_pem, state.above):
            self._root_warning = self._root_difference(state, root)
            raise ChainInvalid(self._root_warning)
        self._root_warning = ""
        return root

    def _root_difference(self, state: VaultState, root: MountedRoot | None) -> str:
        found = x509.root_id(x509.cert_pem(root.ca)) if root else "none"
        stored = x509.root_id(state.above[0] if state.above else state.root_pem)
        return f'stored CA root "{stored}" is not the one at RootPKIPath {state.root} any more ({found}): {_REPAIR}'

    # --- secondary ------------------------------------------------------------------------------------------------

    @_in_time
    def generate_intermediate_csr(self) -> tuple[str, bytes]:
        config = self._as_secondary(NO_CSR)
        state = self._state or VaultState(self._cluster_id, False, config.root, config.common.key_kind)
        old, kind = state.pending, config.common.key_kind
        if old is None or (old.place, state.key_kind) != (config.intermediate, kind):
            pending = self._issuing().request_from_primary(state.generation + (state.signing is not None))
            unused = (Held(old.place, Issuer("", old.key_id, "")),) if old else ()
            state = replace(state, pending=pending, key_kind=kind, superseded=(*state.superseded, *unused))
            self._state = state
        assert state.pending is not None
        return state.pending.csr_pem, vault_state.encode(state)

    @_in_time
    def set_intermediate(self, intermediate_pem: str, root_pem: str) -> tuple[CAChain, bytes]:
        self._as_secondary(NO_INTERMEDIATE)
        state = self._state
        if state is None:
            raise NotInitialized("no intermediate CSR has been generated")
        chain = accept_intermediate(intermediate_pem, root_pem, self._trust_domain)
        state = self._with_intermediate(state, chain)
        self._hold(replace(state, root_pem=chain.root_pem, above=chain.intermediate_pems[1:]))
        assert self._state is not None
        return self._require_leaves().chain, vault_state.encode(self._state)

    def _with_intermediate(self, state: VaultState, chain: CAChain) -> VaultState:
        """The pending key goes only when it is the one that was certified: a late answer leaves it alone."""
        cert_pem, pending, signing = chain.signing_cert_pem, state.pending, state.signing
        key_id = keys.key_id(x509.public_key(x509.load_cert(cert_pem)))
        if pending is not None and key_id == keys.key_id(x509.csr_key(pending.csr_pem)):
            issuer = self._issuing().install(self._mount(pending.place), cert_pem, pending.key_id)
            held = Held(pending.place, issuer)
            superseded = (*state.superseded, signing) if signing else state.superseded
            generation = state.generation + (signing is not None)
            return replace(state, signing=held, pending=None, superseded=superseded, generation=generation)
        if signing is None or key_id != keys.key_id(x509.public_key(x509.load_cert(signing.issuer.cert_pem))):
            raise ChainInvalid("intermediate cert is for a different private key")
        if signing.issuer.cert_pem == cert_pem:
            return state
        issuer = self._issuing().install(self._mount(signing.place), cert_pem, signing.issuer.key_id)
        # The key stays in use: only the certificate that it had goes.
        old = replace(signing, issuer=replace(signing.issuer, key_id=""))
        return replace(state, signing=replace(signing, issuer=issuer), superseded=(*state.superseded, old))

    # --- leaves ---------------------------------------------------------------------------------------------------

    @_in_time
    def sign_leaf(self, request: LeafRequest) -> IssuedLeaf:
        return self._require_leaves().sign(request)

    @_in_time
    def sign_leaves(self, requests: Sequence[LeafRequest]) -> list[IssuedLeaf | ProviderError]:
        if self._leaves is None:
            return one_by_one(self.sign_leaf, requests)
        return self._leaves.sign_all(requests)

    # --- end ------------------------------------------------------------------------------------------------------

    @_in_time
    def cleanup(self, *, is_unused: bool = False) -> None:
        state = self._state
        if state is None or self._client is None:
            return
        held = [*state.superseded, *([state.signing] if state.signing else [])]
        if state.pending:
            held.append(Held(state.pending.place, Issuer("", state.pending.key_id, "")))
        held += self._left_behind(state, state.signing, sys.maxsize)
        left = self._remove(held)
        for place in {self._require_config().intermediate, *(one.place for one in held)}:
            self._disable(place, state.signing)
        if is_unused and state.intent is not None:
            root = self._mount(state.root)
            if root.is_made_for(ROOT_DESCRIPTION) and self._issuing().has_only(root, state.intent):
                root.disable()
        _require_none(left)

    def _leave(self, places: set[Place]) -> None:
        """Mounts of before IntermediatePKIPath was changed, once nothing of ours is in them."""
        state = self._state
        if state is not None and state.signing is not None:
            for place in places - {state.signing.place, self._require_config().intermediate}:
                self._disable(place, None)

    def _disable(self, place: Place, ours: Held | None) -> None:
        mount = self._mount(place)
        if mount.is_made_for(INTERMEDIATE_DESCRIPTION) and not _is_in_use(mount, ours):
            mount.disable()

    def _give_back(self, place: Place, intent: RootIntent, signing: Held) -> None:
        """What an attempt has left at a place where nothing of this CA is yet; best effort."""
        if place == signing.place:
            return  # the next attempt goes on there
        with contextlib.suppress(ProviderError):
            self._remove(self._issuing().left_behind(self._mount(place), intent.uid, sys.maxsize, None))
            self._disable(place, None)

    def _left_behind(self, state: VaultState, signing: Held | None, generation: int) -> list[Held]:
        """Beside what the state knows of; nothing where Vault does not let us look."""
        if state.intent is None:
            return []  # a secondary's
        mount = self._mount(signing.place if signing else self._require_config().intermediate)
        with contextlib.suppress(VaultRefused):
            used = signing.issuer if signing else None
            return self._issuing().left_behind(mount, state.intent.uid, generation, used)
        return []

    def _remove(self, held: Sequence[Held]) -> list[Held]:
        """What is left, because Vault does not let us remove it."""
        left = []
        for one in held:
            try:
                self._mount(one.place).remove(one.issuer)
            except VaultRefused:
                left.append(one)
        return left

    def close(self) -> None:
        if self._upkeep is not None:
            self._upkeep.stop()
        if self._client is not None:
            self._client.close()
        self._upkeep, self._client, self._config = None, None, None
        self._root_warning, self._root_checked_at, self._to_remove = "", None, ()
        self._hold(None)

    # --- between calls --------------------------------------------------------------------------------------------

    @_in_time
    def _look_after(self) -> None:
        """In the upkeep thread. What fails is tried again at the next look; tokens say what is wrong themselves."""
        client = self._client
        if client is None:
            return
        with contextlib.suppress(ProviderError):
            client.tokens.keep_alive()
        with contextlib.suppress(ProviderError):
            self._look_at_root(is_troubled=bool(client.trouble))
        with contextlib.suppress(ProviderError):
            if self._to_remove and self._clock() >= self._removal_due:
                removed, self._to_remove = self._to_remove, tuple(self._remove(self._to_remove))
                self._leave({held.place for held in removed} - {held.place for held in self._to_remove})
                self._removal_due = self._clock() + _REMOVAL_SECONDS

    def _look_at_root(self, *, is_troubled: bool) -> None:
        """Now and then; whether Vault is back, at once."""
        state, due = self._state, self._root_checked_at
        if state is None or state.signing is None or not self._is_primary:
            return
        if due is not None and not is_troubled and self._clock() < due + _ROOT_CHECK_SECONDS:
            return
        with contextlib.suppress(ChainInvalid):  # the warning has been set
            self._stored_root(state)
        self._root_checked_at = self._clock()

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def _trust_domain(self) -> str:
        return spiffe.trust_domain_of(self._cluster_id)

    def _issuing(self) -> Issuing:
        config = self._require_config()
        return Issuing(config, self._cluster_id, self._mount(config.root), self._mount(config.intermediate))

    def _mount(self, place: Place) -> Mount:
        if self._client is None:
            raise NotInitialized("provider not configured")
        return Mount(self._client, place)

    def _as_primary(self, refusal: str) -> VaultConfig:
        if self._config is not None and not self._is_primary:
            raise NotSupported(refusal)
        return self._require_config()

    def _as_secondary(self, refusal: str) -> VaultConfig:
        if self._is_primary:
            raise NotSupported(refusal)
        return self._require_config()

    def _require_config(self) -> VaultConfig:
        if self._config is None:
            raise NotInitialized("provider not configured")
        return self._config

    def _require_leaves(self) -> VaultLeaves:
        if self._leaves is None:
            raise NotInitialized("provider not initialized")
        return self._leaves

    def _hold(self, state: VaultState | None) -> None:
        """Make `state` the one that counts; whatever it says is decoded once, here."""
        if self._leaves is not None:
            self._leaves.close()
        self._state, self._leaves = state, None
        if state is not None and state.signing is not None and (chain := state.chain) is not None:
            issuer, ttl = state.signing.issuer, self._require_config().common.leaf_ttl_seconds
            self._leaves = VaultLeaves(self._mount(state.signing.place), issuer.issuer_id, chain, self._cluster_id, ttl)


def _require_none(left: Sequence[Held]) -> None:
    if left:
        where = ", ".join(f"{one.issuer.issuer_id or one.issuer.key_id} at {one.place}" for one in left)
        raise ProviderUnavailable(f"Vault does not let us remove what is not needed any more: {where}")


def _is_in_use(mount: Mount, ours: Held | None) -> bool:
    """Whether a mount holds what is not ours. Certificates whose key is elsewhere do not count: they sign nothing."""
    if mount.has_keys():
        return True
    others = [one for one in mount.issuers() if ours is None or one.cert_pem != ours.issuer.cert_pem]
    return any(one.key_id or not one.issuer_id for one in others)
