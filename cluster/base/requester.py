"""Who asked for a certificate, as it is recorded: known to the leader itself, or by the word of another server.

The latter has the server's name in front, `node-2: 10.0.0.7`. Where access control is in use, the AccessorID of the
token is in front of all, `4f1c...@node-2: 10.0.0.7`: the leader has looked it up itself. The API shows each by itself.
No server's word can pass for what the leader knows, because a server's name stands in front of its word.
"""

import re
from typing import Final, NamedTuple

from cluster.base.names import is_node_name

#: Letters of what is said of who asked.
MAX_REQUESTER: Final = 128
_MARK: Final = ": "
_FORM: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ACCESSOR_ID: Final = re.compile(_FORM)
_ACCESSOR: Final = re.compile(f"({_FORM})@")


class Requester(NamedTuple):
    said: str
    server: str  # that says so, or "" where the leader knows it itself
    accessor_id: str  # "" where access control was not in use


def recorded(said: str, server: str = "") -> str:
    """What is recorded of who asked, as far as it is a text for people; `server` is who says so, if not the leader."""
    text = "".join(letter for letter in said[:MAX_REQUESTER] if letter.isprintable())
    return f"{server}{_MARK}{text}" if server else text


def with_accessor(requested_by: str, accessor_id: str) -> str:
    """What was `recorded`, and by which token it was asked; "" for none."""
    return f"{accessor_id}@{requested_by}" if accessor_id else requested_by


def beginning_of(accessor_id: str) -> str | None:
    """How what is recorded of this token begins; None if it is no AccessorID."""
    lower = accessor_id.lower()
    return with_accessor("", lower) if _ACCESSOR_ID.fullmatch(lower) else None


def shown(text: str) -> Requester:
    accessor_id = ""
    if found := _ACCESSOR.match(text):
        accessor_id, text = found[1], text[found.end() :]
    server, mark, said = text.partition(_MARK)
    return Requester(said, server, accessor_id) if mark and is_node_name(server) else Requester(text, "", accessor_id)
