"""SPIFFE IDs as Consul shapes them: parse, format, compare. Knows nothing of certificates.

signing       spiffe://<trust domain>
service       spiffe://<trust domain>[/ap/P]/ns/N/dc/DC/svc/NAME
agent         spiffe://<trust domain>[/ap/P]/agent/client/dc/DC/id/NODE
mesh gateway  spiffe://<trust domain>[/ap/P]/gateway/mesh/dc/DC
server        spiffe://<trust domain>/agent/server/dc/DC
"""

import functools
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

# SPIFFE ID standard, section 2: at most 2048 bytes, trust domain at most 255.
MAX_URI_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255

# What certificates are issued for.
MAX_NAME = 128
NAME_RULE = f"1 to {MAX_NAME} of the characters A-Z a-z 0-9 . _ -, and neither . nor .."

DEFAULT = "default"  # name of the only partition and namespace of the community edition


class Kind(StrEnum):
    SIGNING = "signing"
    SERVICE = "service"
    AGENT = "agent"
    MESH_GATEWAY = "mesh-gateway"
    SERVER = "server"


class SpiffeError(ValueError):
    """The text is not a SPIFFE ID of a known kind; the text is Consul's where Consul has one."""


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`trust_domain` is kept as written; comparisons ignore its case. `name` is the service's or node's."""

    kind: Kind
    trust_domain: str
    datacenter: str = ""
    name: str = ""
    namespace: str = DEFAULT
    partition: str = DEFAULT

    @property
    def path(self) -> str:
        """The part after the trust domain, with every segment percent-encoded where needed."""
        datacenter, name = _escape(self.datacenter), _escape(self.name)
        partition = "" if self.partition == DEFAULT else f"/ap/{_escape(self.partition)}"
        match self.kind:
            case Kind.SIGNING:
                return ""
            case Kind.SERVICE:
                return f"{partition}/ns/{_escape(self.namespace)}/dc/{datacenter}/svc/{name}"
            case Kind.AGENT:
                return f"{partition}/agent/client/dc/{datacenter}/id/{name}"
            case Kind.MESH_GATEWAY:
                return f"{partition}/gateway/mesh/dc/{datacenter}"
            case Kind.SERVER:
                return f"/agent/server/dc/{datacenter}"

    @property
    def uri(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"

    def in_trust_domain(self, trust_domain: str) -> "SpiffeId":
        """The same identity under another trust domain (consul-compat 3, rule 10b)."""
        return self if trust_domain == self.trust_domain else replace(self, trust_domain=trust_domain)


def trust_domain_of(cluster_id: str) -> str:
    """`.consul` is fixed; it does not follow the DNS domain (consul-compat 2.2)."""
    return f"{cluster_id.lower()}.consul"


def signing_id(trust_domain: str) -> SpiffeId:
    """The identity of the CA itself."""
    return SpiffeId(Kind.SIGNING, trust_domain.lower())


def same_trust_domain(one: str, other: str) -> bool:
    return one.lower() == other.lower()


def check_issuable(identity: SpiffeId, uri: str = "") -> None:
    """Whether certificates are issued for this identity, and for this spelling of it.

    What `parse` reads is more: as Consul does, and as the record of former releases holds it. But a name is good only
    where all who compare it read the same, and libraries such as go-spiffe refuse other characters and escapes (SPIFFE
    ID standard, section 2.2). Raises: SpiffeError.
    """
    for field in ("namespace", "partition"):
        if (value := getattr(identity, field)) != DEFAULT:
            raise SpiffeError(f"{field} {value[:MAX_NAME]!r}: must be {DEFAULT!r}")
    if identity.kind in (Kind.SERVICE, Kind.AGENT):
        check_name("service" if identity.kind is Kind.SERVICE else "node", identity.name)
    if "%" in uri:
        raise SpiffeError(f"{uri[:MAX_URI_BYTES]!r}: must have no percent-escapes")


def check_name(what: str, name: str) -> None:
    """The name of a service or node for which a certificate is asked for. Raises: SpiffeError."""
    if not _ISSUED_NAME.fullmatch(name) or name in _DOTS:
        raise SpiffeError(f"{what} name {name[:MAX_NAME]!r}: must be {NAME_RULE}")


def can_sign(signer: SpiffeId, subject: SpiffeId) -> bool:
    """Whether the CA `signer` may sign for `subject` (consul-compat 2.2).

    An agent is False although agents are signed: their CSRs are made before the trust domain is known, so the CA
    puts its own in (rule 10b) instead of comparing.
    """
    if signer.kind is not Kind.SIGNING:
        return False
    match subject.kind:
        case Kind.SIGNING | Kind.SERVICE | Kind.MESH_GATEWAY | Kind.SERVER:
            return same_trust_domain(signer.trust_domain, subject.trust_domain)
        case Kind.AGENT:
            return False


@functools.lru_cache(maxsize=1024)  # a service asks again and again, with the same ID, for its next certificate
def parse(uri: str) -> SpiffeId:
    """Read a SPIFFE ID; percent-escapes are decoded segment by segment, so an escaped slash stays inside its name.

    Raises: SpiffeError.
    """
    if not uri[:9].lower().startswith("spiffe://"):
        raise SpiffeError("SPIFFE ID must have 'spiffe' scheme")
    parts = _URI.fullmatch(uri)
    if parts is None or len(uri) > MAX_URI_BYTES or parts.end("host") - 9 > MAX_TRUST_DOMAIN_BYTES:
        raise _unexpected(uri)
    trust_domain, path = parts.groups()
    # The signing ID needs a dot that is not the first character: its host is "<cluster id>.<domain>".
    if not path and trust_domain.find(".") > 0:
        return SpiffeId(Kind.SIGNING, trust_domain)
    for kind, form in _FORMS:
        if found := form.fullmatch(path):
            fields = {field: _unescape(kind, field, raw) for field, raw in found.groupdict(DEFAULT).items()}
            return SpiffeId(kind, trust_domain, **fields)
    raise _unexpected(uri)


# Host: the characters of DNS and SPIFFE names and nothing else, so no user, port or bracket can be slipped past the
# comparison of trust domains. Path: printable ASCII without what RFC 3986 reserves for other uses or forbids.
_URI = re.compile(r"[sS][pP][iI][fF][fF][eE]://(?P<host>[A-Za-z0-9._-]+)((?:/[!-~]*)?)")
_PARTITION = r"(?:/ap/(?P<partition>[^/]+))?"
_DATACENTER = r"/dc/(?P<datacenter>[^/]+)"
_FORMS = (
    (Kind.SERVICE, re.compile(rf"{_PARTITION}/ns/(?P<namespace>[^/]+){_DATACENTER}/svc/(?P<name>[^/]+)")),
    (Kind.AGENT, re.compile(rf"{_PARTITION}/agent/client{_DATACENTER}/id/(?P<name>[^/]+)")),
    (Kind.MESH_GATEWAY, re.compile(rf"{_PARTITION}/gateway/mesh{_DATACENTER}")),
    (Kind.SERVER, re.compile(rf"/agent/server{_DATACENTER}")),
)
_DOTS = (".", "..")
_ISSUED_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_NAME}}}")
_PLAIN = re.compile(r"[A-Za-z0-9._~-]+")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")


def _unexpected(uri: str) -> SpiffeError:
    return SpiffeError(f"SPIFFE ID is not in the expected format: {uri[:MAX_URI_BYTES]}")


def _unescape(kind: Kind, field: str, raw: str) -> str:
    """One decoded path segment."""
    if _PLAIN.fullmatch(raw) and raw not in _DOTS:
        return raw
    if not _SEGMENT.fullmatch(raw):
        raise _invalid(kind, field, f"invalid URL escape or character in {raw!r}")
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise _invalid(kind, field, f"{raw!r} is not UTF-8") from None
    # Dot segments would be resolved away by URL libraries, and controls forge log lines and ACL names.
    if text in _DOTS or not text.isprintable():
        raise _invalid(kind, field, f"{raw!r} is not allowed")
    return text


def _invalid(kind: Kind, field: str, why: str) -> SpiffeError:
    labels = {"partition": "admin partition", "name": "node" if kind is Kind.AGENT else "service"}
    return SpiffeError(f"Invalid {labels.get(field, field)}: {why}")


def _escape(text: str) -> str:
    """One path segment of a URI; what RFC 3986 calls `pchar` stays as it is."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe="!$&'()*+,;=:@")
