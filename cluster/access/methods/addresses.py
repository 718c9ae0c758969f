"""Where a node may be sent: https URLs, and the addresses that their hosts turn out to have.

Whoever may write an auth method chooses a URL that the leader, or any node, then asks. It must not become a way to
reach what only this machine reaches: a cloud's metadata service (link-local), or the cluster's own ports.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

IPAddress = IPv4Address | IPv6Address
MAX_URL: Final = 2048

#: No user, fragment, backslash, space or control: readers of URLs disagree about these. The host is for ASCII names
#: (RFC 5891 A-labels), and literal addresses.
_URL: Final = re.compile(
    r"https://(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?)(?P<query>(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)",
)
#: "This network" (RFC 791): Linux takes 0.0.0.0 for itself.
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")
_BROADCAST: Final = IPv4Address("255.255.255.255")
#: RFC 6052: a translator takes the last 32 bits for an IPv4 address.
_NAT64: Final = IPv6Network("64:ff9b::/96")


class UrlRefused(ValueError):
    """It is no URL that a node may be sent to."""


@dataclass(frozen=True, slots=True)
class HttpsUrl:
    text: str
    host: str  # lower case, without brackets and without a final dot
    port: int
    path: str
    query: str


def https_url(text: str) -> HttpsUrl:
    """Raises: UrlRefused."""
    found = _URL.fullmatch(text) if len(text) <= MAX_URL else None
    if found is None:
        raise UrlRefused(f"{text[:200]!a}: must be an https URL of at most {MAX_URL} characters, without a user")
    port = int(found["port"] or "443")
    if not 1 <= port <= 65535:
        raise UrlRefused(f"{text[:200]!a}: the port must be from 1 to 65535")
    host = found["host"].strip("[]").lower().removesuffix(".")
    if not host:
        raise UrlRefused(f"{text[:200]!a}: has no host")
    return HttpsUrl(text, host, port, found["path"], found["query"])


#: Whether the cluster itself listens there.
IsOwn = Callable[[IPAddress, int], bool]


@dataclass(frozen=True, slots=True)
class OwnPorts:
    """The cluster's ports, on loopback and on the addresses of its servers as they are now."""

    ports: frozenset[int]
    addresses: Callable[[], Collection[IPAddress]]

    def __call__(self, address: IPAddress, port: int) -> bool:
        return port in self.ports and (address.is_loopback or address in self.addresses())


def why_not(text: str, port: int, is_own: IsOwn) -> str:
    """Why a node may not connect to this address; empty if it may. Loopback is allowed: key servers run there, too."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "it is no address"
    for meant in _meant(address):
        if meant.is_link_local:
            return "it is a link-local address"
        if meant.is_multicast or meant == _BROADCAST:
            return "it is a multicast address"
        if meant.is_unspecified or (isinstance(meant, IPv4Address) and meant in _THIS_NETWORK):
            return "it is an unspecified address"
        if is_own(meant, port):
            return "it is a port of this cluster"
    return ""


def _meant(address: IPAddress) -> Iterator[IPAddress]:
    """The address, and the IPv4 addresses that an IPv6 address may lead to."""
    yield address
    if isinstance(address, IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
