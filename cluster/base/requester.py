"""Who asked for a certificate, as it is recorded: known to the leader itself, or by the word of another server.

The latter has the server's name in front, `node-2: 10.0.0.7`; the API shows both by themselves.
"""

from typing import Final

from cluster.base.names import is_node_name

#: Letters of what is said of who asked.
MAX_REQUESTER: Final = 128
_MARK: Final = ": "


def recorded(said: str, server: str = "") -> str:
    """What is recorded of who asked, as far as it is a text for people; `server` is who says so, if not the leader."""
    text = "".join(letter for letter in said[:MAX_REQUESTER] if letter.isprintable())
    return f"{server}{_MARK}{text}" if server else text


def shown(text: str) -> tuple[str, str]:
    """Who asked, and the server that says so, or "" where the leader knows it itself."""
    server, mark, said = text.partition(_MARK)
    return (said, server) if mark and is_node_name(server) else (text, "")
