"""What names and addresses may look like."""

import ipaddress
import re
from typing import Final

#: What a log entry, a snapshot and a message between nodes have room for.
MAX_ADDRESS_LENGTH: Final = 255
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
