"""What a URL says, decoded strictly: broken escapes, text that is not UTF-8 and NUL are refused, never guessed at."""

import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from cluster.base.errors import BadRequest

#: Parameters of the query string by name. Of one that is repeated the first counts, as in Go.
Query = Mapping[str, str]

MAX_PARAMETERS: Final = 64
_MAX_SHOWN: Final = 100
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NO_PARAMETERS: Final[Query] = {}
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}

#: Understood, or at least tolerated, at every endpoint.
GENERAL: Final = frozenset(
    (
        *("cached", "consistent", "leader", "max_stale", "stale"),
        *("dc", "ns", "partition", "peer", "near"),
        *("hash", "index", "wait"),
        *("pretty", "token"),
    )
)


#: Of what is given twice, the first counts, as in Consul. Not of this: somebody may have put the other there.
_ONCE: Final = "token"
#: Of Consul's other edition. Here, as in its community edition, there is one of each.
_DIVISIONS: Final = {"ns": "Namespaces", "partition": "Partitions"}
_THE_ONLY_ONE: Final = ("", "default")


def parse_query(raw: str) -> Query:
    """Raises: BadRequest."""
    if not raw:
        return _NO_PARAMETERS
    parts = raw.split("&")
    if len(parts) > MAX_PARAMETERS:
        raise BadRequest(f"Invalid query string: {len(parts)} parameters, at most {MAX_PARAMETERS} are allowed")
    query: dict[str, str] = {}
    for part in parts:
        if part:
            name, _, text = part.replace("+", " ").partition("=")
            name, value = _decoded(name, "query string"), _decoded(text, "query string")
            if query.setdefault(name, value) != value and name == _ONCE:
                raise BadRequest(f"two different tokens: the query string has {_ONCE} twice")
    return query


def check_path(raw: str) -> None:
    """That decoding the path, which the router does leniently, loses nothing. Raises: BadRequest."""
    if "%" in raw or not raw.isascii():
        _decoded(raw, "URL path")


def parse_bool(text: str) -> bool | None:
    """As Go's ParseBool; None for anything else."""
    return _BOOLEANS.get(text)


def refuse_divisions(query: Query) -> None:
    """Whoever means another namespace or partition must not give rights in this one. Raises: BadRequest, in Consul's
    words.
    """
    for name, what in _DIVISIONS.items():
        if query.get(name, "") not in _THE_ONLY_ONE:
            raise BadRequest(f'Invalid query parameter: "{name}" - {what} are a Consul Enterprise feature')


def refuse_unknown(query: Query, known: Collection[str]) -> None:
    """A filter that is misspelt must not silently select everything. Raises: BadRequest."""
    for name in query:
        if name not in known and name not in GENERAL:
            raise BadRequest(f"Unknown query parameter {shown(name)}: allowed are {', '.join(sorted(known))}")


def shown(value: object) -> str:
    """A client's value in an error text: bounded, and on one line."""
    text = ascii(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def require_length(text: str, name: str, most: int) -> None:
    """Raises: BadRequest."""
    if len(text) > most:
        raise BadRequest(f"{name} has {len(text)} characters: at most {most} are allowed")


def _decoded(raw: str, what: str) -> str:
    text = raw
    if "%" in raw:
        if _BROKEN_ESCAPE.search(raw):
            raise BadRequest(f"Invalid {what}: broken percent-encoding in {shown(raw)}")
        data = unquote_to_bytes(raw.encode("utf-8", "surrogateescape"))
    elif raw.isascii():
        data = b""
    else:
        data = raw.encode("utf-8", "surrogateescape")
    if data:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"Invalid {what}: {shown(raw)} is not UTF-8") from None
    if "\0" in text:
        raise BadRequest(f"Invalid {what}: {shown(raw)} contains NUL")
    return text
