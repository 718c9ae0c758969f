"""What names and addresses may look like."""

import ipaddress
import re
from typing import Final

#: What a log entry, a snapshot and a message between nodes have room for.
MAX_ADDRESS_LENGTH: Final = 255
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{0,5})?", re.IGNORECASE)
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NODE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_node_name(text: str) -> bool:
    """A DNS label in lower case: it becomes part of the certificate's name."""
    return _NODE_NAME.fullmatch(text) is not None


def is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_address(text: str) -> bool:
    """host:port, an IPv6 host in brackets."""
    host, _, port = text.rpartition(":")
    has_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    is_bracketed = host.startswith("[") and host.endswith("]")
    is_plain = len(text) <= MAX_ADDRESS_LENGTH and text.isprintable() and " " not in text
    return has_port and bool(host) and is_plain and (":" not in host or is_bracketed)


def parse_host(text: str) -> tuple[str, int | None] | None:
    """Name or address and port of a Host header (RFC 9110 7.2); None for what is none.

    A name is in lower case and without the dot that ends an absolute one. An address is in its one canonical form, and
    an IPv4 address that is written as an IPv6 one is the IPv4 address. Numbers that only some resolvers take for an
    address, such as `127.1` or `0x7f000001`, are names here.
    """
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    host, port_text = found[1].lower(), (found[2] or "")[1:]
    port = int(port_text) if port_text else None
    if port is not None and port > 65535:
        return None
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return None
        return str(address.ipv4_mapped or address), port
    if (ip := ip_address(host)) is not None:
        return str(ip), port
    host = host.removesuffix(".")
    return (host, port) if _DNS_NAME.fullmatch(host) else None


def is_host_pattern(text: str) -> bool:
    """A DNS name, `*.` and a DNS name, or an IP address; without a port."""
    name = text.lower().removeprefix("*.")
    return ip_address(text.strip("[]")) is not None or _DNS_NAME.fullmatch(name) is not None


def ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
