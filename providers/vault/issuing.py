"""Making CAs in Vault so that a crash between any two calls costs nothing: whoever tries again finds what is there.

Keys are named after what they are for, so an attempt that died has left something that can be recognised, and one
need never gets two intermediates. Everything that Vault returns is verified before it is used.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509 as cx509

from providers.api import CAChain, CrossSignRequest, IntermediateRequest, RootIntent
from providers.errors import ChainInvalid, ConfigInvalid, CSRRejected, ProviderUnavailable
from providers.pki import keys, spiffe, verify, x509
from providers.pki.csr import check_intermediate_csr, plain_pem
from providers.pki.issuing import cross_terms, require_future
from providers.pki.x509 import unix
from providers.texts import one_line
from providers.vault.config import VaultConfig
from providers.vault.mount import INTERMEDIATE_DESCRIPTION, ROOT_DESCRIPTION, Issuer, Mount, Wanted
from providers.vault.state import Held, Pending

PROVIDER: Final = "vault"
#: Then the kind of key, and the generation.
_KEY_NAME: Final = "quorumca-{}-"


@dataclass(frozen=True, slots=True)
class MountedRoot:
    """The CA of the root mount, and what is above it: the CA first, the trust anchor last."""

    certs: tuple[cx509.Certificate, ...]

    @property
    def ca(self) -> cx509.Certificate:
        return self.certs[0]

    @property
    def anchor_pem(self) -> str:
        return x509.cert_pem(self.certs[-1])

    @property
    def above(self) -> tuple[str, ...]:
        """What a client that knows the anchor alone needs beside the intermediate."""
        return tuple(map(x509.cert_pem, self.certs[:-1]))

    def chain(self, signing_pem: str) -> CAChain:
        return CAChain(self.anchor_pem, signing_pem, (signing_pem, *self.above))


class Issuing:
    """One configuration's work on CA certificates. Holds nothing but what it was made with."""

    def __init__(self, config: VaultConfig, cluster_id: str, root: Mount, intermediate: Mount) -> None:
        self._config = config
        self._cluster_id = cluster_id
        self._trust_domain = spiffe.trust_domain_of(cluster_id)
        self._uri = spiffe.signing_id(self._trust_domain).uri
        self._root = root
        self._intermediate = intermediate

    # --- root -----------------------------------------------------------------------------------------------------

    def find_root(self) -> MountedRoot | None:
        """The root mount's CA, judged; None when there is none yet.

        Raises: ConfigInvalid for one that cannot be this cluster's.
        """
        pem = self._root.ca_pem()
        if not pem:
            return None
        try:
            certs = x509.load_bundle(pem + self._root.chain_pem())
        except ValueError as error:
            raise ConfigInvalid(
                f"the CA at RootPKIPath {self._root.place} cannot be used: {one_line(error)}"
            ) from error
        ordered = [certs[0]]
        while ordered[-1].issuer != ordered[-1].subject:
            above = [cert for cert in certs if cert.subject == ordered[-1].issuer and cert not in ordered]
            if not above:
                raise ConfigInvalid(
                    f"the CA at RootPKIPath {self._root.place} is signed by "
                    f"{one_line(ordered[-1].issuer.rfc4514_string())}, whose certificate the mount does not have: "
                    "import the chain up to a self-signed root"
                )
            ordered.append(above[0])
        self._require_room(ordered)
        for cert in ordered:
            foreign = [uri for uri in x509.uris(cert) if uri.lower().startswith("spiffe:") and uri != self._uri]
            if foreign:
                raise ConfigInvalid(
                    f"the CA at RootPKIPath {self._root.place} belongs to {one_line(foreign[0])}, "
                    f"this cluster is {self._uri}"
                )
        return MountedRoot(tuple(ordered))

    def look(self) -> None:
        """Both mounts, before anything is made in one of them. Raises: ConfigInvalid, ProviderRefused."""
        self.find_root()
        self._intermediate.ca_pem()

    def _require_room(self, ordered: Sequence[cx509.Certificate]) -> None:
        """For an intermediate below them all. Raises: ConfigInvalid."""
        for below, cert in enumerate(ordered, start=1):
            length = x509.path_length(cert)
            if length is not None and length < below:
                raise ConfigInvalid(
                    f"the CA at RootPKIPath {self._root.place} cannot sign an intermediate: the path length of "
                    f"{one_line(cert.subject.rfc4514_string())} is {length}, and must be {below} or more, or unlimited"
                )

    def root_name(self, intent: RootIntent) -> str:
        """Of a root that is made for this intent."""
        return x509.common_name("pri", intent.uid, PROVIDER, self._cluster_id)

    def has_only(self, root: Mount, intent: RootIntent) -> bool:
        """Whether the mount holds nothing but what has been made for this intent."""
        issuers, name = root.issuers(), x509.distinguished_name(self.root_name(intent))
        if not issuers:
            return not root.has_keys()
        return all(self._decoded(issuer.cert_pem).subject == name for issuer in issuers)

    def ensure_root(self, intent: RootIntent) -> MountedRoot:
        """The mount's CA, made if there is none."""
        found = self.find_root()
        if found is not None:
            return found
        common = self._config.common
        if self._root.ca_pem() is None:
            self._root.enable(ROOT_DESCRIPTION, common.root_ttl_seconds, common.root_ttl_seconds)
        self._root.generate_root(self.root_name(intent), self._uri, common.key_kind, common.root_ttl_seconds)
        made = self.find_root()
        if made is None:
            raise ProviderUnavailable(f"Vault has made a root at {self._root.place}, but does not show it")
        return made

    def sign_secondary(self, root: MountedRoot, request: IntermediateRequest) -> str:
        csr = check_intermediate_csr(request.csr_pem, self._trust_domain)
        names = csr.subject.get_attributes_for_oid(cx509.NameOID.COMMON_NAME)
        # A leaf's issuer must not be empty (consul-compat 10.2), and Consul's own secondaries send an empty subject.
        name = (
            str(names[0].value) if names else x509.common_name("sec", x509.uid_of(csr.key), PROVIDER, self._cluster_id)
        )
        if x509.distinguished_name(name) in [cert.subject for cert in root.certs]:
            raise CSRRejected("CSR subject must not be the name of the root that signs it")
        pem = self._signed(root, plain_pem(request.csr_pem), name, request.now)
        return "".join((pem, *root.above))

    def cross_sign(self, root: MountedRoot, request: CrossSignRequest) -> str:
        """Vault re-issues any certificate that names itself as its issuer, as it is, serial and validity included.

        So it is given one that is like the other root, but with the serial and the validity that are wanted. Whose
        signature is on it does not matter to Vault; the key for that is of the kind that signs in the end, because
        Vault takes over the signature algorithm where it can.
        """
        terms = cross_terms(request, root.ca)
        stand_in = keys.generate(keys.kind_of(x509.public_key(root.ca)))
        template = x509.build_cross_signed(
            x509.Issuer(terms.other, stand_in), terms.other, request.serial, terms.validity
        )
        cert = self._decoded(self._root.sign_self_issued(x509.cert_pem(template)))
        is_same = (
            cert.subject == terms.other.subject
            and x509.public_key(cert) == x509.public_key(terms.other)
            and x509.subject_key_id(cert) == x509.subject_key_id(terms.other)
            and cert.serial_number == request.serial
            and cert.not_valid_after_utc == terms.validity.not_after
        )
        if not is_same:
            raise ChainInvalid("certificate that Vault has cross-signed is not what was asked for")
        verify.verify_below(cert, [], root.ca, now=request.now)
        return "".join((x509.cert_pem(cert), *root.above))

    # --- intermediates --------------------------------------------------------------------------------------------

    def intermediate_below(self, root: MountedRoot, uid: str, generation: int, now: int) -> tuple[Held, int]:
        """The primary's intermediate of this generation: made now, or by an attempt that was cut off.

        With the generation that it is: a later one if something else has the name of this one.
        """
        self._ensure_intermediate_mount()
        issuers = self._intermediate.issuers()
        while True:
            key_name = self._key_name(uid, generation)
            name, key_id = self._common_name("pri", key_name), self._intermediate.key_named(key_name)
            mine = [issuer for issuer in issuers if self._is_for(issuer, key_id, name)]
            if (left := next((issuer for issuer in mine if self._is_below(issuer, root, now)), None)) is not None:
                self._make_default(left)
                issuer = replace(left, cert_pem=x509.cert_pem(self._decoded(left.cert_pem)))
                return Held(self._intermediate.place, issuer), generation
            if not mine or not key_id:
                break
            generation += 1  # a key that has been used for something else stays with that
        kind = self._config.common.key_kind
        csr_pem, key_id = self._intermediate.generate_csr(name, self._uri, kind, key_name, key_id)
        pem = self._signed(root, csr_pem, name, now)
        return Held(self._intermediate.place, self.install(self._intermediate, pem, key_id)), generation

    def left_behind(self, mount: Mount, uid: str, generation: int, used: Issuer | None) -> list[Held]:
        """Keys up to this generation that are not in use: attempts were cut off, or another leader was faster."""
        prefix = _KEY_NAME.format(uid)
        mine = {
            key_id
            for key_id, name in mount.key_names().items()
            if name.startswith(prefix) and _generation_in(name) <= generation
        }
        kept = {used.key_id} if used else set[str]()
        if used and mine - kept:
            above = x509.authority_key_id(self._decoded(used.cert_pem))
            kept |= {
                one.key_id for one in mount.issuers() if x509.authority_key_id(self._decoded(one.cert_pem)) != above
            }
        return [Held(mount.place, Issuer("", key_id, "")) for key_id in mine - kept]

    def _is_for(self, issuer: Issuer, key_id: str, name: str) -> bool:
        """Whether an attempt has made this issuer for what is wanted; before Vault 1.11 names must do."""
        if issuer.issuer_id:
            return bool(key_id) and issuer.key_id == key_id
        return self._decoded(issuer.cert_pem).subject == x509.distinguished_name(name)

    def _is_below(self, issuer: Issuer, root: MountedRoot, now: int) -> bool:
        try:
            verify.verify_ca(root.chain(issuer.cert_pem), trust_domain=self._trust_domain, now=now)
        except ChainInvalid:
            return False
        return True

    def request_from_primary(self, generation: int) -> Pending:
        """A secondary's CSR. A key that an earlier attempt has left is used, unless it is in use already."""
        self._ensure_intermediate_mount()
        used = {issuer.key_id for issuer in self._intermediate.issuers()}
        while True:
            key_name = self._key_name(self._cluster_id[:8], generation)
            key_id = self._intermediate.key_named(key_name)
            if not key_id or key_id not in used:
                break
            generation += 1
        name, kind = self._common_name("sec", key_name), self._config.common.key_kind
        csr_pem, key_id = self._intermediate.generate_csr(name, self._uri, kind, key_name, key_id)
        return Pending(self._intermediate.place, key_id, csr_pem)

    def install(self, mount: Mount, cert_pem: str, key_id: str) -> Issuer:
        """Give the mount the certificate of its key, and make it the default there."""
        mapping = mount.set_signed(cert_pem)
        if not key_id:
            return Issuer("", "", cert_pem)
        issuer_id = next((issuer for issuer, key in mapping.items() if key == key_id), "")
        if not issuer_id:
            # An attempt before this one has installed it: then Vault need not list it again.
            cert = self._decoded(cert_pem)
            known = [one for one in mount.issuers() if one.key_id == key_id and self._decoded(one.cert_pem) == cert]
            if not known:
                raise ProviderUnavailable(f"could not find key_id {key_id} in the mapping of Vault's answer")
            issuer_id = known[0].issuer_id
        issuer = Issuer(issuer_id, key_id, cert_pem)
        mount.set_default(issuer_id)
        return issuer

    # --- inside ---------------------------------------------------------------------------------------------------

    def _make_default(self, issuer: Issuer) -> None:
        if issuer.issuer_id:
            self._intermediate.set_default(issuer.issuer_id)

    def _ensure_intermediate_mount(self) -> None:
        ttl = self._config.common.intermediate_ttl_seconds
        if self._intermediate.ca_pem() is None:
            self._intermediate.enable(INTERMEDIATE_DESCRIPTION, ttl)
        else:
            self._intermediate.tune(ttl)
        self._intermediate.tidy_by_itself()

    def _signed(self, root: MountedRoot, csr_pem: str, name: str, now: int) -> str:
        """An intermediate for this CSR, by the root mount's CA; verified."""
        ttl = self._config.common.intermediate_ttl_seconds
        not_before, root_end = now - x509.backdate_seconds(ttl), unix(root.ca.not_valid_after_utc)
        not_after = min(not_before + ttl, root_end)
        require_future(not_after, now, "root certificate is expired")
        asked = Wanted(csr_pem, [self._uri], not_after, min(ttl, root_end - now), common_name=name)
        cert = self._decoded(self._root.sign_intermediate(asked))
        pem = x509.cert_pem(cert)
        if x509.public_key(cert) != check_intermediate_csr(csr_pem, self._trust_domain).key:
            raise ChainInvalid("intermediate from Vault is for a different key than the CSR")
        constraints = cert.extensions.get_extension_for_class(cx509.BasicConstraints).value
        if not constraints.ca or constraints.path_length != 0:
            raise ChainInvalid("intermediate from Vault must be a CA of path length 0")
        try:
            verify.verify_ca(root.chain(pem), trust_domain=self._trust_domain, now=now)
        except ChainInvalid as error:
            raise ChainInvalid(f"intermediate from Vault does not verify: {one_line(error)}") from error
        return pem

    def _key_name(self, uid: str, generation: int) -> str:
        kind = self._config.common.key_kind
        return f"{_KEY_NAME.format(uid)}{kind.type}{kind.bits}-{generation}"

    def _common_name(self, role: str, key_name: str) -> str:
        """Follows from what it is for, and differs from the root's."""
        uid = x509.uid_from(hashlib.sha256(key_name.encode()).digest())
        return x509.common_name(role, uid, PROVIDER, self._cluster_id)

    def _decoded(self, pem: str) -> cx509.Certificate:
        try:
            return x509.load_cert(pem)
        except ValueError as error:
            raise ChainInvalid(f"certificate from Vault cannot be decoded: {one_line(error)}") from error


def _generation_in(key_name: str) -> int:
    number = key_name.rpartition("-")[2]
    return int(number) if number.isdecimal() and len(number) < 10 else 0
