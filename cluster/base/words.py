"""What went wrong, in words for a person who has never seen this program's inside.

Texts of other libraries are made for those who wrote the code: numbers, names of exceptions, places in a parser. Who
has a file or an address to mend needs the reason alone; which file or address it was, the caller says.
"""

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

#: It puts an address in Python's form into the texts of the system's errors, and several of these into one.
_OF_ASYNCIO: Final = re.compile(r"Connect call failed|\[Errno|Multiple exceptions")
#: Editors that write one hide it.
_BYTE_ORDER_MARKS: Final = (("UTF-8", b"\xef\xbb\xbf"), ("UTF-16", b"\xff\xfe"), ("UTF-16", b"\xfe\xff"))
_UNREADABLE: Final = "it cannot be read"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: OpenSSL's names of reasons, where they say too little.
_TLS_REASONS: Final = {
    "CA_KEY_TOO_SMALL": "the key of a CA is too small: must be RSA of 2048 bits or more, or EC",
    "CA_MD_TOO_WEAK": "a CA has signed with a hash that is too weak: must be SHA-256 or better",
    "EE_KEY_TOO_SMALL": "the key is too small: must be RSA of 2048 bits or more, or EC",
}


def plain(error: BaseException) -> str:
    """Completes a sentence such as "FILE cannot be used: ..."; one line, and never empty."""
    # A process that has not loaded it has none of its errors.
    if (tls := sys.modules.get("ssl")) is not None and isinstance(error, tls.SSLError):
        if isinstance(error, tls.SSLCertVerificationError):
            return f"its certificate is refused: {error.verify_message}"
        return _of_tls(error)
    match error:
        case OSError():
            return _of_system(error)
        case UnicodeDecodeError() if mark := byte_order_mark(error.object):
            return f"it begins with a byte-order mark ({mark}): must be {error.encoding.upper()} without one"
        case UnicodeDecodeError():
            return f"it is not text in {error.encoding.upper()}"
        case json.JSONDecodeError():
            return f"it is not JSON: {error.msg.lower()} (line {error.lineno}, column {error.colno})"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return _UNREADABLE


def byte_order_mark(data: bytes) -> str:
    """The encoding whose mark it begins with; empty: with none."""
    return next((name for name, mark in _BYTE_ORDER_MARKS if data.startswith(mark)), "")


def _of_tls(error: "ssl.SSLError") -> str:
    if reason := getattr(error, "reason", None):  # only errors that OpenSSL itself has raised have one
        return _TLS_REASONS.get(reason) or str(reason).replace("_", " ").lower()
    if error.strerror and "_ssl.c" not in error.strerror:  # one of our own
        return error.strerror
    return "the other side does not speak TLS, or ended the handshake"


def _of_system(error: OSError) -> str:
    text = error.strerror or ""
    if text and not _OF_ASYNCIO.search(text):
        return text
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return "it took too long" if isinstance(error, TimeoutError) else "the connection was closed"


def without_ids(text: str) -> str:
    """For an error about what stands in a place where a SecretID may have been put by mistake: it is not repeated."""
    return _UUID.sub("<hidden>", text)
