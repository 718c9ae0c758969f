"""How a replicated dataclass may grow, and what its fields may hold (see `fsm.codec`).

Whoever proposes a command is held to the bounds, and so is whoever brings values from outside (a snapshot that is
restored, a request of another node). What is in a log already is not: it was applied before there were bounds, and has
to be applied the same way for ever.
"""

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

#: `field(metadata=ADDED)`: came after the first release of its format, and is not written while it has its default.
ADDED: Final = {"added": True}

#: What `datetime` can show: 0001-01-01 and 9999-12-31T23:59:59, the range of an X.509 time and more.
FIRST_SECOND: Final = -62_135_596_800
LAST_SECOND: Final = 253_402_300_799
#: What SQLite can hold.
MIN_INT64: Final = -(1 << 63)
MAX_INT64: Final = (1 << 63) - 1
#: Characters of a text for people.
MAX_REASON: Final = 4096
#: Of an index: counting up from it, one entry at a time, never gets to where SQLite ends.
MAX_INDEX: Final = 1 << 62
_SHOWN: Final = 80


class Bound(Protocol):
    """What a value of the right type must be besides."""

    def wrong(self, value: Any) -> str:
        """Empty if nothing is; else the value and what is allowed, to follow the field's name."""
        ...


@dataclass(frozen=True, slots=True)
class Within:
    """A number."""

    least: int
    most: int

    def wrong(self, value: Any) -> str:
        return "" if self.least <= value <= self.most else f"is {value}: must be from {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Length:
    """Bytes, or how many items there are."""

    least: int
    most: int

    def wrong(self, value: Any) -> str:
        if self.least <= len(value) <= self.most:
            return ""
        return f"has {len(value)} bytes or items: must have from {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Minimal:
    """A number in big-endian bytes, the first of which is not zero. Any other form of it is not found again."""

    def wrong(self, value: Any) -> str:
        return f"is {value[:_SHOWN].hex()}: must not begin with a zero byte" if value[:1] == b"\0" else ""


@dataclass(frozen=True, slots=True)
class Text:
    """Characters that UTF-8 can carry, without NUL, which some readers take for the end."""

    least: int
    most: int
    pattern: re.Pattern[str] | None = None
    #: Besides, where many of them are kept: a character may have four.
    most_bytes: int | None = None

    def wrong(self, value: Any) -> str:
        if not self.least <= len(value) <= self.most:
            return f"has {len(value)} characters: must have from {self.least} to {self.most}"
        if "\0" in value:
            return f"is {_shown(value)}: must not contain NUL"
        if not value.isascii() and not _is_utf8(value):
            return f"is {_shown(value)}: must not contain half of a surrogate pair"
        if self.most_bytes is not None and not value.isascii() and len(value.encode()) > self.most_bytes:
            return f"has {len(value.encode())} bytes in UTF-8: must have at most {self.most_bytes}"
        if self.pattern is not None and not self.pattern.fullmatch(value):
            return f"is {_shown(value)}: must match {self.pattern.pattern}"
        return ""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A number of a fixed set."""

    values: Container[int]
    what: str

    def wrong(self, value: Any) -> str:
        return "" if value in self.values else f"is {value}: must be {self.what}"


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_reason(text: str) -> str:
    """What can be kept of a text that may hold anything, such as what another server has answered."""
    return text[:MAX_REASON].replace("\0", "").encode("utf-8", "replace").decode()


#: An index of the state, or of one of its areas.
Index = Annotated[int, Within(0, MAX_INDEX)]
#: A moment in Unix seconds. A root that somebody brings may begin before 1970.
Time = Annotated[int, Within(FIRST_SECOND, LAST_SECOND)]
#: Of a certificate that is issued: none is older than Unix time, or ends later than a date can say (RFC 5280 4.1.2.5).
LeafTime = Annotated[int, Within(0, LAST_SECOND)]
#: A duration. Go's longest, 292 years, fits.
Seconds = Annotated[int, Within(0, 10**10)]
Percent = Annotated[int, Within(0, 100)]
KeyBits = Annotated[int, Within(0, 1 << 16)]
#: The low bits of a root's serial, as JSON shows it.
Serial64 = Annotated[int, Within(0, (1 << 64) - 1)]

#: Names that people read, and identifiers of our own making.
Name = Annotated[str, Text(0, 256)]
#: A service's or node's name, or a SPIFFE ID: part of a URI of 2048 bytes, of which a name may be a part.
Uri = Annotated[str, Text(0, 4096, most_bytes=4096)]
#: The first label of the trust domain: a UUID where we made it. Names of trust domains are in lower case (SPIFFE ID
#: standard, section 2.1); another spelling would be another cluster to whoever compares texts.
ClusterId = Annotated[str, Text(1, 63, re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"))]
#: Hex of a certificate's key identifier, which an operator's root may choose freely.
KeyText = Annotated[str, Text(0, 1024)]
Pem = Annotated[str, Text(0, 1 << 18)]
Json = Annotated[str, Text(0, 1 << 19)]
#: For people: why something ended.
Reason = Annotated[str, Text(0, MAX_REASON)]
#: A value of a provider's public state.
Value = Annotated[str, Text(0, 1 << 16)]

#: An X.509 serial, minimal big-endian (RFC 5280 4.1.2.2).
Serial = Annotated[bytes, Length(1, 20), Minimal()]
KeyId = Annotated[bytes, Length(0, 256)]
Digest = Annotated[bytes, Length(0, 64)]
RequestId = Annotated[bytes, Length(0, 64)]
Salt = Annotated[bytes, Length(0, 1024)]
Sealed = Annotated[bytes, Length(0, 1 << 19)]
