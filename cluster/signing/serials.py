"""Serials and the other random choices that the leader makes for a certificate before it is signed.

The leader draws serials: one that another server chose could be short, or made to collide. A request has an id of its
own, drawn by the server that was asked, and its serial is drawn from that and the CSR with a key of the cluster's
(`Sealer.draw`). So a repetition gets the same serial from any leader, the ledger recognises it by that, no id has to be
kept, and two CSRs never share a serial. While servers of the release before take part, the id is the serial, as it
always was for them. Only a change of the data key (`seal rotate`), or the exchange of the last of those servers,
between a request and its repetition makes two certificates of it, of which one reaches nobody. And a repetition that
comes after the record was tidied makes a second certificate with the serial, of which the first has expired by then.
"""

import secrets
from typing import Final

from providers.api import RootIntent

_ID_BYTES: Final = 20
_SERIAL_BITS: Final = 128


def new_request_id() -> bytes:
    """No shorter than 16 bytes and longer than a serial of ours; a good serial for a leader that takes it for one."""
    return bytes([secrets.randbelow(127) + 1]) + secrets.token_bytes(_ID_BYTES - 1)


def is_serial(request_id: bytes) -> bool:
    """Whether a request's id has the form of `new_serial`."""
    return int.from_bytes(request_id, "big").bit_length() == _SERIAL_BITS == 8 * len(request_id)


def is_request_id(request_id: bytes) -> bool:
    """Whether a request's id has the form of `new_request_id`."""
    return len(request_id) == _ID_BYTES and 0 < request_id[0] < 1 << 7


def new_serial() -> int:
    """Positive, 127 random bits after a one: of one length, and within 20 octets (RFC 5280 4.1.2.2)."""
    return secrets.randbits(127) | 1 << 127


def serial_from(drawn: bytes) -> bytes:
    """Of 16 or more random bytes the first 16, in the form of `new_serial`."""
    return bytes([drawn[0] | 1 << 7]) + drawn[1 : _SERIAL_BITS // 8]


def new_intent(now: int) -> RootIntent:
    return RootIntent(serial=new_serial(), uid=_uid(), not_before=now)


def _uid() -> str:
    """Eight characters [a-z0-9], which make the CA's common name unique."""
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "".join(secrets.choice(alphabet) for _ in range(8))
