"""How the CA's keys and an operator's secrets pass through a node's main process, which speaks to the network: under a
cover whose key it does not have.

The process that keeps the data key (keeper.py) and the ones that sign have the key of the cover; it is made anew at
each start of a node, and what is covered with it is of no use to anybody else, nor later. The main process carries
covered values from one to the other, and may compare them: equal values have equal covers, which is what AES-SIV is for
(RFC 5297, section 1.3.3), and what a PUT that repeats the stored secrets is recognised by.
"""

import json
import socket
from collections.abc import Mapping
from typing import Final

COVER_KEY_BYTES: Final = 64
#: Of a value that is not there, or was cleared: nothing to cover, and who carries it must see that.
NOTHING: Final = b""


class CoverError(ValueError):
    """What should be covered is not, or with another key."""


class Cover:
    """One key, of one life of a node. Values are bytes, or plain JSON."""

    # Ciphers are loaded when there is something to cover: a process that signs nothing yet goes without their memory.

    def __init__(self, key: bytes) -> None:
        """COVER_KEY_BYTES of it."""
        self._key = key

    def cover(self, plain: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return AESSIV(self._key).encrypt(plain, None) if plain else NOTHING

    def uncover(self, covered: bytes) -> bytes:
        """Raises: CoverError."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        if not covered:
            return NOTHING
        try:
            return AESSIV(self._key).decrypt(covered, None)
        except (InvalidTag, ValueError):
            raise CoverError("a value is not covered as this node's processes cover theirs") from None

    def cover_values(self, values: Mapping[str, object]) -> dict[str, bytes]:
        """Of a configuration. Equal values have equal covers, in whichever order the keys of a map are."""
        return {name: NOTHING if value == "" else self.cover(_text(value)) for name, value in values.items()}

    def uncover_values(self, covered: Mapping[str, bytes]) -> dict[str, object]:
        """Raises: CoverError."""
        return {name: json.loads(self.uncover(value)) if value else "" for name, value in covered.items()}


def _text(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def hand_over(key: bytes, to: socket.socket) -> None:
    """To a process that signs, straight from the one that has it. Closes the socket."""
    with to:
        to.sendall(key)


def take_over(source: socket.socket) -> bytes:
    """The other side of `hand_over`; closes the socket. Raises: CoverError."""
    with source, source.makefile("rb") as file:
        key = file.read(COVER_KEY_BYTES)
    if len(key) != COVER_KEY_BYTES:
        raise CoverError("the process that keeps the seal key has handed over no key")
    return key
