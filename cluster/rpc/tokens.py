"""The tokens of those for whom a message asks: one SecretID for each of its requests, in a header of their own.

Not in the body: a connection begins in a version of the wire that knows of no tokens (operation.py), and a server of
the release before passes over a header that it does not know. Each is base64url (RFC 4648 5), so that whatever a client
has sent as its token is carried as it is; they are separated by commas, and empty where there is none. Without any
there is no header.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from cluster.api.access import MAX_SECRET_ID
from cluster.rpc.operation import NotUnderstood

TOKENS_HEADER: Final = "Quorumca-Tokens"
#: UTF-8 has up to four bytes for a character.
_MAX_BYTES: Final = 4 * MAX_SECRET_ID


def pack_tokens(secret_ids: Sequence[str]) -> str:
    if not any(secret_ids):
        return ""
    return ",".join(_packed(secret_id) if secret_id else "" for secret_id in secret_ids)


def unpack_tokens(text: str, count: int) -> list[str]:
    """For so many requests. Raises: NotUnderstood."""
    if not text:
        return [""] * count
    parts = text.split(",", count)
    if len(parts) != count:
        raise NotUnderstood(f"{TOKENS_HEADER} has not one token for each of {count} requests")
    return [_unpacked(part) if part else "" for part in parts]


def _packed(secret_id: str) -> str:
    return base64.urlsafe_b64encode(secret_id.encode("utf-8", "surrogatepass")).decode("ascii").rstrip("=")


def _unpacked(part: str) -> str:
    if "=" in part:
        raise NotUnderstood(f"{TOKENS_HEADER} has a token with padding")
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        secret_id = data.decode("utf-8", "surrogatepass") if len(data) <= _MAX_BYTES else ""
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise NotUnderstood(f"{TOKENS_HEADER} has a token that is no base64url of UTF-8") from None
    if not 0 < len(secret_id) <= MAX_SECRET_ID:
        raise NotUnderstood(f"{TOKENS_HEADER} has a token of more than {MAX_SECRET_ID} characters")
    return secret_id
