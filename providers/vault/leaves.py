"""The hot path: leaves signed by one of Vault's issuers, judged before anybody gets them."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from providers.api import CAChain, IssuedLeaf, LeafRequest, result_of
from providers.errors import CSRRejected, ProviderError, ProviderUnavailable, SigningKeyGone
from providers.pki import spiffe
from providers.pki.csr import check_csr, plain_pem
from providers.pki.x509 import load_cert, unix
from providers.vault import roles as vault_roles
from providers.vault.client import VaultRefused
from providers.vault.mount import Mount, Wanted, is_gone, is_unmounted

#: How many leaves of one batch are with Vault at a time.
_THREADS: Final = 8
#: Behind a write of the role, it is a standby that has not heard of it yet.
_NO_ROLE: Final = "unknown role"


class VaultLeaves:
    """Signs leaves with one issuer; lives as long as a provider's configuration does."""

    def __init__(self, mount: Mount, issuer_id: str, chain: CAChain, cluster_id: str, ttl_seconds: int) -> None:
        """Raises: ValueError when the chain cannot be decoded."""
        self._mount = mount
        self._issuer_id = issuer_id  # empty before Vault 1.11, where a mount has one issuer
        self.chain = chain
        self._not_after = unix(load_cert(chain.signing_cert_pem).not_valid_after_utc)
        self._trust_domain = spiffe.trust_domain_of(cluster_id)
        self._ttl_seconds = ttl_seconds
        self._threads: ThreadPoolExecutor | None = None  # none before there is a batch
        self._roles_lock = threading.Lock()
        self._roles_ready: set[str] = set()

    def sign(self, request: LeafRequest) -> IssuedLeaf:
        """Raises: as Provider.sign_leaf; SigningKeyGone when the issuer is not there any more."""
        csr = check_csr(request.csr_pem, request.policy, request.grant)
        ttl_seconds = min(self._ttl_seconds, csr.ttl_max_seconds or self._ttl_seconds)
        asked = vault_roles.wanted(csr, plain_pem(request.csr_pem), ttl_seconds, request.now, self._not_after)
        try:
            leaf_pem = self._signed(csr.key_kind.type, asked)
        except VaultRefused as refusal:
            raise self._error(refusal) from refusal
        return vault_roles.check_leaf(leaf_pem, csr, asked, self.chain, request.now)

    def sign_all(self, requests: Sequence[LeafRequest]) -> list[IssuedLeaf | ProviderError]:
        if len(requests) <= 1:
            return [result_of(self.sign, request) for request in requests]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="vault-sign")
        client = self._mount.client
        until = client.operation_ends

        def sign(request: LeafRequest) -> IssuedLeaf | ProviderError:
            with client.operation(until):
                return result_of(self.sign, request)

        return list(self._threads.map(sign, requests))

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _signed(self, key_type: str, asked: Wanted) -> str:
        role = vault_roles.role_name(key_type)
        self._ensure_role(key_type)
        try:
            return self._mount.sign_leaf(role, self._issuer_id, asked)
        except VaultRefused as refusal:
            if _NO_ROLE not in refusal.answer.errors:
                raise
        # Somebody has removed it.
        self._ensure_role(key_type, is_lost=True)
        return self._mount.sign_leaf(role, self._issuer_id, asked)

    def _ensure_role(self, key_type: str, *, is_lost: bool = False) -> None:
        """Once for each configuration. A policy that keeps roles from us is not asked again."""
        with self._roles_lock:
            if key_type in self._roles_ready and not is_lost:
                return
            name = vault_roles.role_name(key_type)
            role = vault_roles.role(key_type, self._trust_domain, self._ttl_seconds)
            if not self._mount.has_role(name, role):
                try:
                    self._mount.write_role(name, role)
                except VaultRefused as refusal:
                    if refusal.status != 403 or is_lost:
                        raise
            self._roles_ready.add(key_type)

    def _error(self, refusal: VaultRefused) -> ProviderError:
        if is_unmounted(refusal) or is_gone(refusal) or "no default issuer" in refusal.answer.errors:
            return SigningKeyGone(
                f"error issuing cert: the issuer at {self._mount.place} that signs leaves has been removed: {refusal}"
            )
        if refusal.status == 400 and _NO_ROLE not in refusal.answer.errors:
            return CSRRejected(f"error issuing cert: {refusal}")
        return ProviderUnavailable(f"error issuing cert: {refusal}")
