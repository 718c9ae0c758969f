"""One PKI mount of Vault or OpenBao: every call that this CA makes to it, and how the answers are read.

The calls are Consul's (docs/consul-compat.md 1.4) with the exceptions of consul-compat 11.12.

Knows both generations: since Vault 1.11 a mount holds many issuers and keys, each with an id; before, it holds one CA.
What Vault answers is only decoded here; who asks verifies it.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from providers.errors import ChainInvalid, ProviderUnavailable
from providers.pki.keys import KeyKind
from providers.pki.x509 import at, backdate_seconds
from providers.texts import one_line
from providers.vault.client import QUICK_SECONDS, VaultClient, VaultRefused
from providers.vault.config import Place

ROOT_DESCRIPTION: Final = "root CA backend for Consul Connect"
INTERMEDIATE_DESCRIPTION: Final = "intermediate CA backend for Consul Connect"

#: What Vault before 1.11 says to a path that came with issuers.
_UNKNOWN_PATH: Final = frozenset({404, 405})
#: A chain that clients can be sent is half of it at most.
_MAX_PEM: Final = 64 << 10
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA of a mount. Before Vault 1.11 there are no ids: both are empty."""

    issuer_id: str
    key_id: str  # empty too for a certificate whose key is elsewhere
    cert_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that is asked of Vault, in its words."""

    csr_pem: str
    uris: Sequence[str]
    not_after: int  # Unix seconds
    ttl_seconds: int  # what Vault before 1.11 is told instead, by whose clock it counts
    common_name: str = ""
    dns_names: Sequence[str] = ()
    addresses: Sequence[str] = ()

    def body(self, *, is_legacy: bool) -> dict[str, Any]:
        end = {"not_after": f"{at(self.not_after):%Y-%m-%dT%H:%M:%SZ}"}
        if is_legacy:
            end = {"ttl": f"{self.ttl_seconds}s"}
        return {
            "csr": self.csr_pem,
            "common_name": self.common_name,
            "exclude_cn_from_sans": True,
            # Lists and not comma-separated texts: a comma is allowed in a SPIFFE ID.
            "uri_sans": list(self.uris),
            "ip_sans": list(self.addresses),
            "alt_names": ",".join(self.dns_names),
            **end,
        }


class Mount:
    """One mount, seen with the token of one client."""

    def __init__(self, client: VaultClient, place: Place) -> None:
        self._client = client
        self.place = place

    @property
    def client(self) -> VaultClient:
        return self._client

    # --- the mount itself -----------------------------------------------------------------------------------------

    def ca_pem(self) -> str | None:
        """The mount's (default) CA; empty when it has none, None when there is no mount.

        Raises: VaultRefused, also for a mount of another engine.
        """
        try:
            return _pem_text(self._get("ca/pem").text)
        except VaultRefused as refusal:
            if is_unmounted(refusal):
                return None
            if refusal.status in _UNKNOWN_PATH:  # where there is no CA yet, the PKI engine has nothing to refuse
                raise VaultRefused(
                    f"what is mounted at {self.place} is not the PKI engine: {refusal}", refusal.answer
                ) from refusal
            raise

    def chain_pem(self) -> str:
        """The CA and what is above it, as far as the mount knows; empty when it has none."""
        return _pem_text(self._get("ca_chain").text)

    def enable(self, description: str, max_ttl_seconds: int, default_ttl_seconds: int = 0) -> None:
        config = {"max_lease_ttl": f"{max_ttl_seconds}s"}
        if default_ttl_seconds:
            config["default_lease_ttl"] = f"{default_ttl_seconds}s"
        try:
            self._sys("post", "", {"type": "pki", "description": description, "config": config})
        except VaultRefused as refusal:
            if "already in use" not in str(refusal):  # somebody else was quicker
                raise

    def tune(self, max_ttl_seconds: int) -> None:
        """Best effort: a policy that leaves mounts to Vault's operators denies it."""
        self._try("post", f"sys/mounts/{self.place.path}/tune", {"max_lease_ttl": f"{max_ttl_seconds}s"})

    def tidy_by_itself(self) -> None:
        """Best effort: Vault before 1.12 does not have it, before 1.13 not for issuers."""
        self._try("put", self._path("config/auto-tidy"), {"enabled": True, "tidy_expired_issuers": True})

    def is_made_for(self, description: str) -> bool:
        """Whether the mount was made with this description; no when that cannot be found out."""
        try:
            answer = self._sys("get", "", None)
        except VaultRefused:
            return False
        return bool(answer.get("description") == description)

    def disable(self) -> None:
        try:
            self._sys("delete", "", None)
        except VaultRefused as refusal:
            if not is_unmounted(refusal):
                raise

    # --- CAs ------------------------------------------------------------------------------------------------------

    def generate_root(self, common_name: str, uri: str, kind: KeyKind, ttl_seconds: int) -> str:
        answer = self._put(
            "root/generate/internal",
            {
                "common_name": common_name,
                "exclude_cn_from_sans": True,
                "uri_sans": uri,
                "key_type": kind.type,
                "key_bits": kind.bits,
                "ttl": f"{ttl_seconds}s",
                "not_before_duration": f"{backdate_seconds(ttl_seconds)}s",
            },
        )
        return _text(answer, "certificate")

    def key_named(self, name: str) -> str:
        """The id of the key with this name; empty when there is none, or keys have no names yet."""
        return next((key_id for key_id, key_name in self.key_names().items() if key_name == name), "")

    def key_names(self) -> dict[str, str]:
        """By the ids of keys; nothing before Vault 1.11, where they cannot be seen."""
        return {key_id: str(info.get("key_name") or "") for key_id, info in self._list("keys").items()}

    def generate_csr(self, common_name: str, uri: str, kind: KeyKind, key_name: str, key_id: str) -> tuple[str, str]:
        """A CSR for a new key of this name, or for the key with `key_id`. Returns PEM and the key's id, if any."""
        body: dict[str, Any] = {"common_name": common_name, "exclude_cn_from_sans": True, "uri_sans": uri}
        if key_id:
            answer = self._put("intermediate/generate/existing", {**body, "key_ref": key_id})
        else:
            new_key = {"key_type": kind.type, "key_bits": kind.bits, "key_name": key_name}
            answer = self._put("intermediate/generate/internal", {**body, **new_key})
        return _text(answer, "csr"), key_id or _id(answer.get("key_id"))

    def has_keys(self) -> bool:
        """Whether there are keys, used or not; no before Vault 1.11, where they cannot be seen."""
        return bool(self._list("keys"))

    def issuers(self) -> list[Issuer]:
        """Every CA of the mount; before Vault 1.11 the one that there is."""
        ids = list(self._list("issuers"))
        if not ids:
            pem = self.ca_pem()
            return [Issuer("", "", pem)] if pem else []
        return [issuer for issuer_id in ids if (issuer := self._issuer(issuer_id))]

    def _issuer(self, issuer_id: str) -> Issuer | None:
        """None when it has gone since it was listed."""
        try:
            answer = self._get(f"issuer/{issuer_id}").data
        except VaultRefused as refusal:
            if is_gone(refusal):
                return None
            raise
        return Issuer(issuer_id, _id(answer.get("key_id")), _text(answer, "certificate"))

    def set_signed(self, cert_pem: str) -> Mapping[str, str]:
        """Give the mount the certificate of its CSR. Returns issuer ids and their key ids; nothing before 1.11."""
        found = self._put("intermediate/set-signed", {"certificate": cert_pem}).get("mapping")
        return {_id(issuer): _id(key) for issuer, key in found.items()} if isinstance(found, Mapping) else {}

    def set_default(self, issuer_id: str) -> None:
        config = dict(self._get("config/issuers").data)
        if config.get("default") != issuer_id:
            # All that was read goes back, so that `default_follows_latest_issuer` stays what it is.
            self._put("config/issuers", {**config, "default": issuer_id})

    def remove(self, issuer: Issuer) -> None:
        """The issuer; with a key id also the key, and every other issuer that has it. What is gone is no error."""
        try:
            # Two leaders at once may each have installed a certificate of it.
            twins = [one.issuer_id for one in self.issuers() if one.key_id == issuer.key_id] if issuer.key_id else []
        except VaultRefused as refusal:
            if not is_unmounted(refusal):
                raise
            return
        for issuer_id in {issuer.issuer_id, *twins} - {""}:
            self._delete(f"issuer/{issuer_id}")
        if issuer.key_id:
            self._delete(f"key/{issuer.key_id}")

    def _delete(self, path: str) -> None:
        try:
            self._client.call("delete", self._path(path), namespace=self.place.namespace)
        except VaultRefused as refusal:
            if not is_unmounted(refusal) and not is_gone(refusal):
                raise

    def sign_intermediate(self, wanted: Wanted) -> str:
        body = {"use_csr_values": False, "format": "pem", "max_path_length": 0}
        # Vault's own is half a minute; releases that do not know the parameter pass over it.
        begin = {"not_before_duration": f"{backdate_seconds(wanted.ttl_seconds)}s"}
        asked = {**wanted.body(is_legacy=self._is_legacy()), **body, **begin}
        return _text(self._put("root/sign-intermediate", asked), "certificate")

    def sign_self_issued(self, cert_pem: str) -> str:
        return _text(self._put("root/sign-self-issued", {"certificate": cert_pem}), "certificate")

    def allows(self, path: str, capabilities: Iterable[str]) -> bool:
        """Whether the token has all of these, or everything; yes when Vault does not say."""
        full = self._path(path)
        try:
            body = {"paths": [full]}
            answer = self._client.call("put", "sys/capabilities-self", body, namespace=self.place.namespace).data
        except VaultRefused:
            return True
        found = answer.get(full)
        return not isinstance(found, list) or "root" in found or set(capabilities) <= set(found)

    # --- leaves ---------------------------------------------------------------------------------------------------

    def has_role(self, name: str, role: Mapping[str, Any]) -> bool:
        """Whether the role is there and is like this."""
        try:
            found = self._get(f"roles/{name}").data
        except VaultRefused as refusal:
            if refusal.status in (403, 404) and not is_unmounted(refusal):
                return False
            raise
        return all(found.get(key) == value for key, value in role.items())

    def write_role(self, name: str, role: Mapping[str, Any]) -> None:
        self._put(f"roles/{name}", role)

    def sign_leaf(self, role: str, issuer_id: str, wanted: Wanted) -> str:
        """Signed by this very issuer, whichever is the default. Raises: as VaultClient.call."""
        path = f"issuer/{issuer_id}/sign/{role}" if issuer_id else f"sign/{role}"
        body = wanted.body(is_legacy=not issuer_id)
        answer = self._client.call(
            "put", self._path(path), body, namespace=self.place.namespace, timeout_seconds=QUICK_SECONDS
        ).data
        if not str(answer.get("certificate") or "").strip() or not str(answer.get("issuing_ca") or "").strip():
            raise ProviderUnavailable("certificate info returned from Vault was blank")
        return _text(answer, "certificate")

    # --- inside ---------------------------------------------------------------------------------------------------

    def _is_legacy(self) -> bool:
        """Whether Vault is older than 1.11. A policy that does not let us look says nothing: then it is not."""
        try:
            self._get("config/issuers")
        except VaultRefused as refusal:
            return refusal.status in _UNKNOWN_PATH and not is_unmounted(refusal)
        return False

    def _path(self, path: str) -> str:
        return f"{self.place.path}/{path}"

    def _get(self, path: str) -> Any:
        return self._client.call("get", self._path(path), namespace=self.place.namespace, timeout_seconds=QUICK_SECONDS)

    def _put(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._client.call("put", self._path(path), body, namespace=self.place.namespace).data

    def _list(self, path: str) -> dict[str, Mapping[str, Any]]:
        """Ids, and what Vault tells about each; nothing for an empty list, and for Vault before 1.11."""
        try:
            answer = self._client.call("list", self._path(path), namespace=self.place.namespace).data
        except VaultRefused as refusal:
            if refusal.status in _UNKNOWN_PATH and not is_unmounted(refusal):
                return {}
            raise
        infos = answer.get("key_info")
        infos = infos if isinstance(infos, Mapping) else {}
        ids = answer.get("keys")
        return {_id(key): info if isinstance(info := infos.get(key), Mapping) else {} for key in _items(ids)}

    def _sys(self, method: str, suffix: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        path = f"sys/mounts/{self.place.path}{suffix}"
        return self._client.call(method, path, body, namespace=self.place.namespace).body

    def _try(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        with contextlib.suppress(VaultRefused):
            self._client.call(method, path, body, namespace=self.place.namespace)


def is_unmounted(refusal: VaultRefused) -> bool:
    """Nothing is mounted at the path of the call."""
    return refusal.status == 404 and "no handler for route" in refusal.answer.errors


def is_gone(refusal: VaultRefused) -> bool:
    """The mount is there, the issuer or key is not."""
    return "unable to find PKI" in refusal.answer.errors


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ProviderUnavailable(one_line(f"Vault's answer has no {name}: {sorted(answer)}"))
    if len(value) > _MAX_PEM:
        raise ChainInvalid(f"Vault's answer has a {name} of {len(value)} characters, more than {_MAX_PEM}")
    return value.strip() + "\n"


def _id(value: object) -> str:
    """Of an issuer or a key, or ""; it becomes part of paths, and of the state. Raises: ChainInvalid."""
    text = str(value or "")
    if text and not _ID.fullmatch(text):
        raise ChainInvalid(f"Vault's answer has an id that is none: {one_line(ascii(text))}")
    return text


def _pem_text(text: str) -> str:
    if len(text) > _MAX_PEM:
        raise ChainInvalid(f"Vault's answer has a CA of {len(text)} characters, more than {_MAX_PEM}")
    return text.strip() + "\n" if text.strip() else ""
