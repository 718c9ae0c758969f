"""Those for whom a message asks: a SecretID for each of its requests, and an address, in a header of their own.

Not in the body: a connection begins in a version of the wire that knows of no tokens (operation.py), and a server of
the release before passes over a header that it does not know. Each is base64url (RFC 4648 5), so that whatever a client
has sent as its token is carried as it is; they are separated by commas, and empty where there is none. The client's
address, where it is said, comes after a dot. Without any there is no header.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Final, NamedTuple

from cluster.api.access import MAX_SECRET_ID
from cluster.rpc.operation import NotUnderstood

TOKENS_HEADER: Final = "Quorumca-Tokens"
#: UTF-8 has up to four bytes for a character.
_MAX_BYTES: Final = 4 * MAX_SECRET_ID
#: Characters of an address: no longer than one of IPv6 with a zone.
_MAX_ADDRESS: Final = 64


class ForWhom(NamedTuple):
    secret_id: str
    asked_from: str = ""  # the client's address, in the words of the server that was asked


def pack_tokens(asks: Sequence[tuple[str, str]]) -> str:
    """Of each: as `ForWhom`."""
    if not any(secret_id or address for secret_id, address in asks):
        return ""
    return ",".join(_packed_one(*ask) for ask in asks)


def _packed_one(secret_id: str, address: str) -> str:
    return f"{_packed(secret_id)}.{_packed(address[:_MAX_ADDRESS])}" if address else _packed(secret_id)


def unpack_tokens(text: str, count: int) -> list[ForWhom]:
    """For so many requests. Raises: NotUnderstood."""
    if not text:
        return [ForWhom("")] * count
    parts = text.split(",", count)
    if len(parts) != count:
        raise NotUnderstood(f"{TOKENS_HEADER} has not one token for each of {count} requests")
    return [_unpacked_one(part) for part in parts]


def _unpacked_one(part: str) -> ForWhom:
    secret_id, dot, address = part.partition(".")
    return ForWhom(_unpacked(secret_id) if secret_id else "", _unpacked(address, _MAX_ADDRESS) if dot else "")


def _packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii").rstrip("=")


def _unpacked(part: str, most: int = MAX_SECRET_ID) -> str:
    if "=" in part:
        raise NotUnderstood(f"{TOKENS_HEADER} has a token with padding")
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        text = data.decode("utf-8", "surrogatepass") if len(data) <= _MAX_BYTES else ""
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise NotUnderstood(f"{TOKENS_HEADER} has a token that is no base64url of UTF-8") from None
    if not 0 < len(text) <= most:
        raise NotUnderstood(f"{TOKENS_HEADER} has a token or an address of no, or more than {most} characters")
    return text
