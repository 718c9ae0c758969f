"""What somebody who holds the key of a server can send to the Raft and the RPC port of the others, by kind.

Every kind is a lie that a server can see through, by itself or with what it knows: it may cost the connection, and
nothing else. What a server has to believe of any other one is not here: in a term of its own, somebody with a key may
be elected and write whatever they like.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from cluster.raft import codec
from cluster.raft.codec import FRAME_HEADER, MAX_FRAME_BYTES, Message
from cluster.raft.membership import ChangeKind, Member, MembershipChange
from cluster.rpc.envelope import MAX_REQUESTS
from cluster.rpc.operation import VERSION
from cluster.tls.keys import KEY_BYTES
from tests.kit.attacker import frame, hello

#: The last number that a field of a frame can have.
LAST: Final = (1 << 63) - 1
_FAR: Final = 1 << 40
#: By so much a term is newer that somebody pushes forward.
_PUSH: Final = 3
_GOLDEN: Final = Path(__file__).parents[1] / "unit" / "rpc" / "golden" / f"v{VERSION}.json"
_FLOOD: Final = 300


@dataclass(frozen=True, slots=True)
class Known:
    """What the other servers say of themselves, to lie with."""

    term: int
    #: An entry that all of them hold, and have applied.
    applied: int
    #: Of the server whose key it is, and of another one.
    me: str
    other: str


Frames = Callable[[Known, random.Random], bytes]

# -- frames that no server sends: they end the connection, whoever gets them

#: One of each kind, right in every field.
_GOOD: Final[tuple[Message, ...]] = (
    {"type": "hello", "address": "127.0.0.1:1"},
    {
        "type": "append_entries",
        "term": 1,
        "commit_index": 0,
        "prevLogIdx": 1,
        "prevLogTerm": 0,
        "entries": ((codec.NO_OP_COMMAND, 2, 1),),
        "epoch": 0,
    },
    {"type": "offer_snapshot", "term": 1, "log_index": 1, "epoch": 0},
    {"type": "next_node_idx", "next_node_idx": 1, "reset": False, "success": False, "epoch": 0},
    {"type": "request_vote", "term": 1, "last_log_index": 1, "last_log_term": 1},
    {"type": "response_vote", "term": 1, "is_fresh": False},
    {"type": "timeout_now", "term": 1},
    {"type": "term_notice", "term": 1},
    {"type": "pre_vote", "term": 1, "last_log_index": 1, "last_log_term": 1, "round": 1},
    {"type": "pre_vote_granted", "round": 1, "is_fresh": False},
    {"type": "confirm_leader", "round": 1, "term": 1},
    {"type": "leader_confirmed", "round": 1, "term": 1},
    {"type": "read_index", "request": 1},
    {"type": "read_index_reply", "request": 1, "log_index": 1},
    {"type": "who_is", "name": "a"},
    {"type": "is_server", "name": "a", "keys": (b"k" * KEY_BYTES,)},
    {"type": "pull_snapshot", "log_index": 1, "offset": 0},
    {"type": "snapshot_part", "log_index": 1, "offset": 0, "total": 1, "data": b"x"},
    {"type": "pull_bulk", "log_index": 1, "after": 0},
    {"type": "bulk_part", "log_index": 1, "after": 0, "data": b"x", "is_last": True},
)
_OF_NO_KIND: Final[tuple[Any, ...]] = (1.5, float("nan"), {"a": 1}, [[]])
#: Instead of a value of this type: what is no such value.
_WRONG: Final[Mapping[type, tuple[Any, ...]]] = {
    int: ("7", b"7", "", True, -1, -LAST, LAST + 1, (1 << 64) - 1, *_OF_NO_KIND),
    bool: (0, 1, "true", b"", None, *_OF_NO_KIND),
    str: (7, b"x", "", None, "x" * 5000, *_OF_NO_KIND),
    bytes: (7, "x", None, *_OF_NO_KIND),
    tuple: (7, "x", None, ((),), ((1, 2, 3),), (("x", 2, 1),), ((b"x", -1, 1),), ((b"", 2, 1),), 1.5, {"a": 1}),
    list: (7, "x", None, [7], [[]], [[1, 2]], 1.5, {"a": 1}),
    dict: (7, "x", b"x", [1], 1.5),
    type(None): _OF_NO_KIND,
}


def _garbage(_known: Known, rng: random.Random) -> bytes:
    return b"\xff\xff\xff\x7f" + rng.randbytes(rng.randrange(1, 4096))


def _too_long(_known: Known, rng: random.Random) -> bytes:
    length = rng.choice((MAX_FRAME_BYTES + 1, 1 << 31, (1 << 32) - 1))
    return FRAME_HEADER.pack(length) + bytes(rng.choice((0, 1 << 16)))


def _no_message(_known: Known, rng: random.Random) -> bytes:
    body = rng.choice(
        (
            b"",
            b"\xc1",
            b"\x91" * 5000,
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xffx",
            b"\xa4\xed\xa0\x80\x00",
            msgpack.packb([1, 2]),
            msgpack.packb(None),
            rng.randbytes(64) + b"\xc1",
        )
    )
    return FRAME_HEADER.pack(len(body)) + body


def _unknown(_known: Known, rng: random.Random) -> bytes:
    return frame({"type": rng.choice(("apply_command", "install", "", 7, None, True, "x" * 70_000)), "ct": 1})


def _misshapen(_known: Known, rng: random.Random) -> bytes:
    """A field too many, or too few."""
    message = _good(rng)
    if rng.random() < 0.5:
        return frame({**message, "serialized": b"x"})
    return frame({name: value for name, value in message.items() if name != list(message)[-1]})


def _mistyped(_known: Known, rng: random.Random) -> bytes:
    message = _good(rng)
    name = rng.choice([name for name in message if name != "type"])
    return frame({**message, name: _wrong(message[name], rng)})


def _second_hello(_known: Known, _rng: random.Random) -> bytes:
    return hello("127.0.0.1:9")


def _good(rng: random.Random) -> Message:
    return {"ct": 1, **rng.choice(_GOOD)}


def _wrong(value: Any, rng: random.Random) -> Any:
    return rng.choice(_WRONG[type(value)])


#: The same for requests: text may be empty there, and may be missing.
_WRONG_IN_REQUESTS: Final[Mapping[type, tuple[Any, ...]]] = {
    **_WRONG,
    int: ("7", b"7", "", True, -1, -LAST, 1 << 63, (1 << 64) - 1, *_OF_NO_KIND),
    bool: (0, 1, "true", b"", None, *_OF_NO_KIND),
    str: (7, b"x", True, *_OF_NO_KIND),
    bytes: (7, "\ud800", None, "x" * 300_000, *_OF_NO_KIND),
}


REFUSED: Final[Mapping[str, Frames]] = {
    "garbage": _garbage,
    "too long": _too_long,
    "no message": _no_message,
    "unknown": _unknown,
    "misshapen": _misshapen,
    "mistyped": _mistyped,
    "second hello": _second_hello,
}

# -- frames that cannot be true, beside the leader of the term: nothing may come of them


def _claims(
    known: Known, *entries: tuple[bytes, int], commit: int = 0, before: int = 0, before_term: int | None = None
) -> bytes:
    """An append of whoever leads in this term, which follows the entry `before`; with how far an index is off."""
    previous = before or known.applied
    message: Message = {
        "type": "append_entries",
        "ct": known.term,
        "term": known.term,
        "commit_index": commit,
        "prevLogIdx": previous,
        "prevLogTerm": known.term if before_term is None else before_term,
        "entries": tuple((command, previous + 1 + k + off, known.term) for k, (command, off) in enumerate(entries)),
        "epoch": 1,
    }
    return frame(message)


def _leads_too(known: Known, rng: random.Random) -> bytes:
    offer = {"type": "offer_snapshot", "term": known.term, "log_index": rng.choice((1, _FAR, LAST, None)), "epoch": 1}
    return rng.choice((_claims(known), _claims(known, commit=LAST), frame({"ct": known.term, **offer})))


def _contradicts(known: Known, rng: random.Random) -> bytes:
    """What is committed: another term of it, or another entry in its place."""
    if rng.random() < 0.5:
        return _claims(known, before=known.applied - rng.randrange(3), before_term=known.term + 7)
    return _claims(known, (codec.NO_OP_COMMAND, 0), before=known.applied - 1 - rng.randrange(3), commit=LAST)


def _disorder(known: Known, rng: random.Random) -> bytes:
    return _claims(known, (codec.NO_OP_COMMAND, 0), (codec.NO_OP_COMMAND, rng.choice((1, -1, _FAR))))


def _entries(known: Known, rng: random.Random) -> bytes:
    """Behind what is committed: kinds that there are not, commands that there are not, other members."""
    change = MembershipChange(ChangeKind.REMOVE, Member(known.other, "127.0.0.1:1", "127.0.0.1:2"))
    bad = rng.choice(
        (
            bytes([9]) + b"x",
            bytes([codec.REGULAR]),
            bytes([codec.REGULAR]) + b"\x91" * 3000,
            bytes([codec.REGULAR]) + msgpack.packb([99, 1, 1, [b"x"]]),
            bytes([codec.REGULAR]) + msgpack.packb([1, "x", None, 7]),
            bytes([codec.MEMBERSHIP]) + msgpack.packb([1, "learn", "x" * 5000, 7, None, "yes"]),
            codec.pack_batch(1, 1, [msgpack.packb([99, 7, []])]),  # a command that no release knows
            codec.pack_batch(1, 1, [b"\xc1" * 100] * 50),
            bytes([codec.MEMBERSHIP]) + codec.pack_change(change),
        )
    )
    return _claims(known, (bad, 0), commit=LAST)


def _holds(known: Known, rng: random.Random) -> bytes:
    """A log that goes far beyond the leader's, or ends before it begins."""
    index = rng.choice((0, _FAR, LAST))
    answer = {
        "next_node_idx": index,
        "reset": rng.random() < 0.5,
        "success": rng.random() < 0.5,
        "epoch": rng.choice((0, LAST)),
    }
    return frame({"type": "next_node_idx", "ct": known.term, **answer})


def _votes(known: Known, rng: random.Random) -> bytes:
    """That nobody has asked for."""
    return frame({"type": "response_vote", "ct": known.term, "term": known.term, "is_fresh": False}) + frame(
        {"type": "pre_vote_granted", "ct": known.term, "round": rng.choice((0, 1, LAST)), "is_fresh": False}
    )


def _reads(known: Known, rng: random.Random) -> bytes:
    """Answers to reads that others were asked for, or nobody; from the beginning of the log, or far beyond its end."""
    index = rng.choice((0, 1, LAST, None))
    replies: list[Message] = [
        {"type": "read_index_reply", "ct": known.term, "request": n, "log_index": index} for n in range(_FLOOD)
    ]
    confirmed = {"type": "leader_confirmed", "ct": known.term, "round": LAST, "term": known.term}
    return b"".join(map(frame, [*replies, confirmed]))


def _parts(known: Known, rng: random.Random) -> bytes:
    """Of a snapshot that nobody has pulled."""
    head = {"ct": known.term, "log_index": rng.choice((1, known.applied + 1, LAST))}
    part = {
        "type": "snapshot_part",
        "offset": rng.choice((0, LAST)),
        "total": rng.choice((0, 1, LAST)),
        "data": b"x" * 999,
    }
    rows = {"type": "bulk_part", "after": rng.choice((0, LAST)), "data": b"\xdd\xff\xff\xff\xff", "is_last": True}
    return frame({**head, "type": "snapshot_part", **part}) + frame({**head, **rows})


def _servers(known: Known, _rng: random.Random) -> bytes:
    """Says that others' keys are other ones."""
    word = {"type": "is_server", "ct": known.term, "keys": (b"x" * KEY_BYTES,)}
    return b"".join(frame({**word, "name": name}) for name in (known.other, known.me, "node-99"))


def _asks(known: Known, rng: random.Random) -> bytes:
    """Again and again, for much."""
    asked: tuple[Message, ...] = (
        {"type": "pull_snapshot", "log_index": rng.choice((1, known.applied, LAST)), "offset": rng.choice((0, LAST))},
        {"type": "pull_bulk", "log_index": rng.choice((1, known.applied)), "after": rng.choice((0, LAST))},
        {"type": "read_index", "request": rng.choice((0, LAST))},
        {"type": "confirm_leader", "round": rng.choice((0, LAST)), "term": known.term},
        {"type": "who_is", "name": f"node-{rng.randrange(1 << 40)}"},
    )
    return b"".join(frame({"ct": known.term, **message}) for message in asked) * (_FLOOD // len(asked))


CONTRADICTIONS: Final[Mapping[str, Frames]] = {
    "leads too": _leads_too,
    "contradicts": _contradicts,
    "disorder": _disorder,
    "entries": _entries,
    "holds": _holds,
    "votes": _votes,
    "reads": _reads,
    "parts": _parts,
    "servers": _servers,
    "asks": _asks,
}

# -- terms that are not the present one


def _in_term(term: int, known: Known, rng: random.Random) -> bytes:
    ends = {"commit_index": 0, "prevLogIdx": known.applied, "prevLogTerm": known.term, "entries": (), "epoch": 1}
    ballot = {"last_log_index": rng.choice((0, _FAR)), "last_log_term": rng.choice((0, term))}
    message: Message = rng.choice(
        (
            {"type": "term_notice", "term": term},
            {"type": "request_vote", "term": term, **ballot},
            {"type": "pre_vote", "term": term, **ballot, "round": 1},
            {"type": "timeout_now", "term": term},
            {"type": "append_entries", "term": term, **ends},
            {"type": "next_node_idx", "next_node_idx": 1, "reset": True, "success": True, "epoch": 0},
            {"type": "confirm_leader", "round": 1, "term": term},
        )
    )
    return frame({"ct": term, **message})


def _old(known: Known, rng: random.Random) -> bytes:
    return _in_term(rng.randrange(known.term), known, rng)


def _far(known: Known, rng: random.Random) -> bytes:
    """So late that none would be left for the servers."""
    return _in_term(rng.choice((LAST, LAST - 1, 3 << 61)), known, rng)


def _newer(known: Known, rng: random.Random) -> bytes:
    """Any server may begin a term: it costs an election."""
    return _in_term(known.term + rng.randint(1, _PUSH), known, rng)


TERMS: Final[Mapping[str, Frames]] = {"old term": _old, "far term": _far}
PUSHES: Final[Mapping[str, Frames]] = {"newer term": _newer}

# -- requests on the RPC port


@dataclass(frozen=True, slots=True)
class Request:
    """Everything in it is to be refused."""

    kind: str
    operation: str
    body: bytes
    version: str = str(VERSION)

    def packed(self) -> bytes:
        head = (
            f"POST /rpc/{self.operation} HTTP/1.1\r\nHost: x\r\nQuorumca-Rpc: {self.version}\r\nConnection: close\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def _good_requests() -> dict[str, list[Any]]:
    golden = json.loads(_GOLDEN.read_text())
    return {name: msgpack.unpackb(bytes.fromhex(of["request"])) for name, of in golden.items() if name != "envelope"}


GOOD_REQUESTS: Final = _good_requests()


def _enveloped(*requests: Any, milliseconds: Any = 2000) -> bytes:
    body: bytes = msgpack.packb([milliseconds, list(requests)], unicode_errors="surrogatepass")
    return body


def bad_requests(operation: str, rng: random.Random) -> Iterator[Request]:
    """One of each kind; none of them can be understood."""
    good = GOOD_REQUESTS[operation]
    for position, value in enumerate(good):
        wrong = rng.choice(_WRONG_IN_REQUESTS[type(value)])
        bad = [*good[:position], wrong, *good[position + 1 :]]
        yield Request("mistyped", operation, _enveloped(bad))
    if good:
        yield Request("too few fields", operation, _enveloped(good[: rng.randrange(len(good))]))
    for value in (7, "x", b"x", True, {"a": 1}, 1.5):
        yield Request("no request", operation, _enveloped(value))
    for milliseconds in ("7", -1, LAST, None, 1.5):
        yield Request("no time", operation, _enveloped({}, milliseconds=milliseconds))
    yield Request("too many", operation, _enveloped(*[{}] * (MAX_REQUESTS + 1)))
    yield Request("huge count", operation, b"\x92\x01\xdd\xff\xff\xff\xff")
    yield Request("nested", operation, b"\x91" * rng.choice((100, 5000, 100_000)))
    yield Request("garbage", operation, b"\xc1" + rng.randbytes(rng.randrange(4096)))
    yield Request("unknown version", operation, _enveloped({}), rng.choice(("0", "99", "x", "-1", "1" * 5000)))
    unknown = rng.choice(("apply_command", "x" * 3000, "%00", "..%2f..", "sign%0a", "__init__"))
    yield Request("unknown operation", unknown, _enveloped(good))


def is_refused(answer: bytes) -> bool:
    """Whether the answer to one of these says so, for all that was in it. An answer may be missing, too."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        return not head.startswith(b"HTTP/1.1 2")
    return all(error is not None for error, _ in msgpack.unpackb(body))


def split(data: bytes) -> list[bytes]:
    """The bodies of whole frames."""
    bodies, offset = [], 0
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        bodies.append(data[offset + FRAME_HEADER.size :][:length])
        offset += FRAME_HEADER.size + length
    return bodies
