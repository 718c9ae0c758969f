"""Vault as far as the provider uses it, in memory: a transport that answers like the recorded real server.

`is_legacy` makes it one of before 1.11: one CA for each mount, and no ids. A test may have any call fail, before or
after it has taken effect, and may replace any answer.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from providers.vault.transport import Answer, TransportFailure
from tests.kit import pki

TOKEN = "t-root"

_OF_ISSUERS = ("keys", "key", "issuers", "issuer")
CA_USAGE = pki.key_usage(key_cert_sign=True, crl_sign=True)


class Crash(Exception):
    """The process that made a call has died."""


@dataclass
class Key:
    name: str
    private: pki.PrivateKey


@dataclass
class Mount:
    description: str
    keys: dict[str, Key] = field(default_factory=dict)
    issuers: dict[str, tuple[str, x509.Certificate]] = field(default_factory=dict)  # id -> key id, certificate
    default: str = ""
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    engine: str = "pki"

    def key_of(self, issuer_id: str) -> pki.PrivateKey:
        return self.keys[self.issuers[issuer_id][0]].private


class FakeVault:
    """Hand `connect` to a VaultProvider."""

    def __init__(self, *, is_legacy: bool = False) -> None:
        self.is_legacy = is_legacy
        self.mounts: dict[str, Mount] = {}
        self.tokens: dict[str, dict[str, Any]] = {TOKEN: {"ttl": 0, "renewable": False}}
        self.logins: dict[str, Callable[[Mapping[str, Any]], bool]] = {}  # path -> whether the body is right
        self.denied: set[str] = set()  # methods and paths, in part
        self.capabilities = ["root"]
        self.outage: Answer | TransportFailure | None = None
        self.replace: dict[str, Callable[[Answer], Answer]] = {}  # path, in part -> another answer
        self.crash_at: int | None = None
        self.is_crash_after = False
        self.calls: list[str] = []
        self.sent: list[Mapping[str, Any]] = []
        self.clock_ahead = timedelta(0)
        self._ids: Iterator[int] = itertools.count(1)

    def connect(self, address: str, tls: object) -> "FakeVault":
        return self

    def close(self) -> None: ...

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        token: str,
        namespace: str,
        timeout_seconds: float,
    ) -> Answer:
        full = f"{namespace}:{path}" if namespace else path
        number = len(self.calls)
        self.calls.append(f"{method} {full}")
        self.sent.append(dict(body or {}))
        if number == self.crash_at and not self.is_crash_after:
            raise Crash
        if isinstance(self.outage, TransportFailure):
            raise self.outage
        answer = self.outage or self._answer(method, path, dict(body or {}), token, namespace)
        if number == self.crash_at:
            raise Crash
        for part, change in self.replace.items():
            if part in path:
                return change(answer)
        return answer

    # --- routes ---------------------------------------------------------------------------------------------------

    def _answer(self, method: str, path: str, body: dict[str, Any], token: str, namespace: str) -> Answer:
        if path.startswith("auth/") and not path.startswith("auth/token/"):
            return self._login(path, body)
        if token not in self.tokens or any(part in f"{method} {path}" for part in self.denied):
            return failure(403, "permission denied")
        if path.startswith("auth/token/"):
            return self._token(path.rpartition("/")[2], token)
        if path == "sys/capabilities-self":
            return data({body["paths"][0]: self.capabilities})
        prefix = f"{namespace}:" if namespace else ""
        if path.startswith("sys/mounts/"):
            return self._sys(method, prefix + path.removeprefix("sys/mounts/"), body)
        name, _, rest = path.partition("/")
        mount = self.mounts.get(prefix + name)
        if mount is None:
            return failure(404, f'no handler for route "{path}". route entry not found.')
        if mount.engine != "pki":
            return failure(404)  # as kv answers to what it does not have
        return self._pki(mount, method, rest, body)

    def _login(self, path: str, body: dict[str, Any]) -> Answer:
        if path not in self.logins or not self.logins[path](body):
            return failure(400, "invalid role or secret ID")
        token = f"t-{next(self._ids)}"
        self.tokens[token] = {"ttl": 3600, "renewable": True}
        return Answer(200, body={"auth": {"client_token": token, "lease_duration": 3600, "renewable": True}})

    def _token(self, what: str, token: str) -> Answer:
        found = self.tokens[token]
        match what:
            case "lookup-self":
                return data(found)
            case "renew-self":
                lease = {"lease_duration": found.get("renewed", found["ttl"]), "renewable": found["renewable"]}
                return Answer(200, body={"auth": {"client_token": token, **lease}})
            case _:
                del self.tokens[token]
                return Answer(204)

    def _sys(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        path = path.removesuffix("/tune")
        match method:
            case "delete":
                self.mounts.pop(path, None)
            case "get" if path in self.mounts:
                return Answer(200, body={"description": self.mounts[path].description})
            case "get":
                return failure(400, "No secret engine mount")
            case _ if "type" in body:
                self.mounts[path] = Mount(body["description"])
        return Answer(204)

    def _pki(self, mount: Mount, method: str, path: str, body: dict[str, Any]) -> Answer:
        head, _, rest = path.partition("/")
        if self.is_legacy and (head in _OF_ISSUERS or path == "config/issuers"):
            return failure(404, "1 error occurred: * unsupported path")
        match head, rest:
            case "ca", "pem":
                return Answer(200, text=self._pem(mount, [mount.default] if mount.default else []))
            case "ca_chain", _:
                return Answer(200, text=self._pem(mount, list(mount.issuers)))
            case "root", "generate/internal":
                return self._generate_root(mount, body)
            case "root", "sign-intermediate":
                return data({"certificate": pki.pem(self._intermediate(mount, body))})
            case "root", "sign-self-issued":
                return data({"certificate": pki.pem(self._reissued(mount, body["certificate"]))})
            case "intermediate", "generate/internal" | "generate/existing":
                return self._csr(mount, body)
            case "intermediate", "set-signed":
                return self._set_signed(mount, body["certificate"])
            case "keys", _:
                infos: dict[str, Any] = {key_id: {"key_name": key.name} for key_id, key in mount.keys.items()}
                return listing(infos)
            case "issuers", _:
                return listing({issuer_id: {} for issuer_id in mount.issuers})
            case "config", "issuers":
                mount.default = body.get("default", mount.default)
                return data({"default": mount.default, "default_follows_latest_issuer": False})
            case "config", _:
                return Answer(204)
            case "roles", name:
                if method == "get":
                    return data(mount.roles[name]) if name in mount.roles else failure(404)
                mount.roles[name] = body
                return Answer(204)
            case "sign", role:
                return self._leaf(mount, mount.default, role, body)
            case "issuer", where if "/sign/" in where:
                issuer_id, _, role = where.partition("/sign/")
                return self._leaf(mount, issuer_id, role, body)
            case "issuer", issuer_id if method == "delete":
                mount.issuers.pop(issuer_id, None)
                mount.default = "" if mount.default == issuer_id else mount.default
                return Answer(204)
            case "issuer", issuer_id:
                if issuer_id not in mount.issuers:
                    return failure(500, f"unable to find PKI issuer for reference: {issuer_id}")
                key_id, cert = mount.issuers[issuer_id]
                return data({"certificate": pki.pem(cert), "key_id": key_id})
            case "key", key_id:
                mount.keys.pop(key_id, None)
                return Answer(204)
            case _:
                return failure(404, "1 error occurred: * unsupported path")

    def _pem(self, mount: Mount, issuer_ids: list[str]) -> str:
        return "".join(pki.pem(mount.issuers[issuer_id][1]) for issuer_id in issuer_ids)

    # --- CAs ------------------------------------------------------------------------------------------------------

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._ids)}"

    def _new_key(self, mount: Mount, body: Mapping[str, Any]) -> str:
        if self.is_legacy:
            mount.keys.clear()  # there is one
        kind, bits = body["key_type"], body["key_bits"]
        private: pki.PrivateKey
        if kind == "ec":
            private = ec.generate_private_key(pki.CURVES[bits]())
        else:
            private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        key_id = self._id("key")
        mount.keys[key_id] = Key(body.get("key_name", ""), private)
        return key_id

    def _generate_root(self, mount: Mount, body: Mapping[str, Any]) -> Answer:
        key_id = self._new_key(mount, body)
        private = mount.keys[key_id].private
        name = pki.name(body["common_name"])
        end = self._now() + timedelta(seconds=int(body["ttl"].removesuffix("s")))
        begin = self._begin(body)
        cert = self._signed(name, name, private.public_key(), private, None, end, [body["uri_sans"]], None, begin)
        mount.default = self._id("issuer")
        mount.issuers[mount.default] = (key_id, cert)
        return data({"certificate": pki.pem(cert), "issuer_id": mount.default, "key_id": key_id})

    def _csr(self, mount: Mount, body: Mapping[str, Any]) -> Answer:
        key_id = body.get("key_ref") or self._new_key(mount, body)
        names = pki.alt_names(uris=[body["uri_sans"]])
        csr = pki.csr_of(mount.keys[key_id].private, names, subject=body["common_name"])
        answer = {"csr": csr.public_bytes(serialization.Encoding.PEM).decode()}
        return data(answer if self.is_legacy else {**answer, "key_id": key_id})

    def _intermediate(self, mount: Mount, body: Mapping[str, Any]) -> x509.Certificate:
        _, issuer = mount.issuers[mount.default]
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        name = pki.name(body["common_name"])
        key = csr.public_key()
        private = mount.key_of(mount.default)
        end, begin = self._end(body), self._begin(body)
        return self._signed(name, issuer.subject, key, private, issuer, end, body["uri_sans"], 0, begin)

    def _set_signed(self, mount: Mount, pem: str) -> Answer:
        cert = pki.load(pem)
        wanted = pki.spki(cert.public_key())
        key_id = next(
            (key_id for key_id, key in mount.keys.items() if pki.spki(key.private.public_key()) == wanted), ""
        )
        known = [issuer_id for issuer_id, (_, other) in mount.issuers.items() if other == cert]
        if self.is_legacy:
            mount.issuers.clear()
        issuer_id = known[0] if known else self._id("issuer")
        mount.issuers[issuer_id] = (key_id, cert)
        if self.is_legacy or not mount.default:
            mount.default = issuer_id
        if self.is_legacy:
            return Answer(204)
        return data({"mapping": {issuer_id: key_id} if not known else None})

    def _reissued(self, mount: Mount, pem: str) -> x509.Certificate:
        _, issuer = mount.issuers[mount.default]
        cert = pki.load(pem)
        builder = x509.CertificateBuilder(
            issuer.subject,
            cert.subject,
            cert.public_key(),
            cert.serial_number,
            cert.not_valid_before_utc,
            cert.not_valid_after_utc,
            [extension for extension in cert.extensions if extension.oid != x509.AuthorityKeyIdentifier.oid],
        ).add_extension(_authority(issuer), critical=False)
        return builder.sign(mount.key_of(mount.default), hashes.SHA256())

    def _leaf(self, mount: Mount, issuer_id: str, role: str, body: Mapping[str, Any]) -> Answer:
        if issuer_id not in mount.issuers:
            return failure(500, f"unable to find PKI issuer for reference: {issuer_id}")
        if role not in mount.roles:
            return failure(400, f"unknown role: {role}")
        rules = mount.roles[role]
        issuer = mount.issuers[issuer_id][1]
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        begin = self._now() - timedelta(seconds=rules["not_before_duration"])
        dns = [name for name in body["alt_names"].split(",") if name and "_" not in name]
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
        names += [x509.IPAddress(ip_address(address)) for address in body["ip_sans"]]
        names += [x509.UniformResourceIdentifier(uri) for uri in body["uri_sans"]]
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (pki.key_usage(digital_signature=True, key_encipherment="KeyEncipherment" in rules["key_usage"]), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), False),
            (_authority(issuer), False),
            (x509.SubjectAlternativeName(names), True),
        ]
        builder = x509.CertificateBuilder(
            issuer.subject, x509.Name([]), csr.public_key(), x509.random_serial_number(), begin, self._end(body)
        )
        for value, is_critical in extensions:
            builder = builder.add_extension(value, is_critical)
        cert = builder.sign(mount.key_of(issuer_id), hashes.SHA256())
        return data({"certificate": pki.pem(cert), "issuing_ca": pki.pem(issuer)})

    def _signed(
        self,
        subject: x509.Name,
        issuer_name: x509.Name,
        key: Any,
        private: pki.PrivateKey,
        issuer: x509.Certificate | None,
        end: datetime,
        uris: list[str],
        path_length: int | None,
        begin: datetime | None = None,
    ) -> x509.Certificate:
        own_id = x509.SubjectKeyIdentifier.from_public_key(key)
        above = _authority(issuer) if issuer else x509.AuthorityKeyIdentifier(own_id.digest, None, None)
        begin = begin or self._begin({})
        builder = (
            x509.CertificateBuilder(issuer_name, subject, key, x509.random_serial_number(), begin, end)
            .add_extension(CA_USAGE, critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(own_id, critical=False)
            .add_extension(above, critical=False)
        )
        if uris:
            builder = builder.add_extension(x509.SubjectAlternativeName(pki.alt_names(uris=uris)), critical=False)
        return builder.sign(private, hashes.SHA256())

    def mount_root(
        self, path: str, *, is_below: bool = False, uris: tuple[str, ...] = (), path_length: int | None = None
    ) -> Mount:
        """A CA that an operator has put there; with `is_below`, itself signed by a root that the mount knows too.
        `path_length` is that of its self-signed root.
        """
        mount = self.mounts[path] = Mount("theirs")
        end = self._now() + timedelta(days=3650)
        private = ec.generate_private_key(ec.SECP256R1())
        name = pki.name(f"{path} root")
        top = self._signed(name, name, private.public_key(), private, None, end, list(uris), path_length)
        mount.keys["key-top"], mount.issuers["top"] = Key("", private), ("key-top", top)
        mount.default = "top"
        if is_below:
            below = ec.generate_private_key(ec.SECP256R1())
            cert = self._signed(pki.name(f"{path} CA"), name, below.public_key(), private, top, end, list(uris), None)
            mount.keys = {"key-below": Key("", below)}
            mount.issuers = {"below": ("key-below", cert), "top": ("", top)}
            mount.default = "below"
        return mount

    def _now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0) + self.clock_ahead

    def _begin(self, body: Mapping[str, Any]) -> datetime:
        """Half a minute back, where nothing else is asked for."""
        return self._now() - timedelta(seconds=int(body.get("not_before_duration", "30s").removesuffix("s")))

    def _end(self, body: Mapping[str, Any]) -> datetime:
        if "not_after" in body and not self.is_legacy:
            return datetime.strptime(body["not_after"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return self._now() + timedelta(seconds=int(body["ttl"].removesuffix("s")))


def common_name(cert: x509.Certificate) -> str:
    return str(cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _authority(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(pki.ski(issuer), None, None)


def data(fields: Mapping[str, Any]) -> Answer:
    return Answer(200, body={"data": fields})


def listing(infos: Mapping[str, Any]) -> Answer:
    return data({"keys": list(infos), "key_info": dict(infos)}) if infos else failure(404)


def failure(status: int, *errors: str) -> Answer:
    return Answer(status, body={"errors": list(errors)})
