"""What Raft messages and log entries look like as bytes, and what a peer may send: everything else is refused.

msgpack only. pysyncobj's own pickle functions are replaced by ones that refuse, so nothing that arrives from the
network or from disk can reach an unpickler.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn

import msgpack

from cluster.base.names import MAX_ADDRESS_LENGTH
from cluster.raft.membership import MAX_KEYS, MAX_NAME_LENGTH, ChangeKind, Member, MembershipChange
from cluster.tls.keys import KEY_BYTES

Message = dict[str, Any]

FRAME_HEADER: Final = struct.Struct("<I")
MAX_FRAME_BYTES: Final = 16 << 20
MAX_COMMAND_BYTES: Final = 1 << 20
#: Objects may take eighty times the bytes that announce them. No frame has a map of more fields than a message. Small
#: ones may have anything else; larger ones no map in a map, the worst of them; and no lists are in those that are
#: larger than anything but ledger rows, which are one value.
_SMALL_FRAME_BYTES: Final = 64 << 10
_MAX_LISTED_BYTES: Final = 4 << 20

# First byte of an entry's command, PySyncObj's numbers.
REGULAR: Final = 0
NO_OP: Final = 1
MEMBERSHIP: Final = 2
NO_OP_COMMAND: Final = bytes([NO_OP])

_ENTRY_VERSION: Final = 1
#: Of a membership entry that says something about keys, or about a name that comes back. The release before this one
#: knows neither: such entries are made only once every server is of this release (`RaftNode.may_pin`).
_PINNED_ENTRY_VERSION: Final = 2


class MessageInvalid(ValueError):
    """A frame or entry that no correct peer sends. It costs whoever sent it the connection, and this node nothing."""


class EntryUnknown(MessageInvalid):
    """An entry that a newer release has made: no node that does not know it takes it, and one that has it in its log
    must stop rather than skip it.
    """


# -- log entries


def pack_batch(origin: int, sequence: int, commands: list[bytes]) -> bytes:
    """A regular entry: commands of the state machine, and who waits for their results."""
    body: bytes = msgpack.packb([_ENTRY_VERSION, origin, sequence, commands])
    return bytes([REGULAR]) + body


def unpack_batch(command: bytes) -> tuple[int, int, list[bytes]]:
    """Origin, sequence and commands of a regular entry. Raises: MessageInvalid."""
    value = _unpack(memoryview(command)[1:])
    _check_version(value)
    if len(value) != 4:
        raise MessageInvalid("entry of a wrong length")
    _, origin, sequence, commands = value
    if not (
        type(origin) is int
        and type(sequence) is int
        and isinstance(commands, list)
        and all(type(item) is bytes for item in commands)
    ):
        raise MessageInvalid("entry with fields of a wrong type")
    return origin, sequence, commands


def _check_version(value: Any, *, newest: int = _ENTRY_VERSION) -> None:
    """Raises: MessageInvalid, EntryUnknown."""
    if not (isinstance(value, list) and value and type(value[0]) is int and value[0] >= _ENTRY_VERSION):
        raise MessageInvalid("entry of an unknown format")
    if value[0] > newest:
        raise EntryUnknown(f"entry of format {value[0]}, which a newer release has written")


def check_entry(command: bytes, check_command: Callable[[bytes], None]) -> None:
    """An entry that may be taken into the log: one that can be read when its turn comes, and so can what is in it.

    Raises: MessageInvalid, EntryUnknown.
    """
    match command[0]:
        case 0:  # REGULAR
            _, _, commands = unpack_batch(command)
            for item in commands:
                check_command(item)
        case 2:  # MEMBERSHIP
            unpack_change(command)
        case 1:  # NO_OP
            pass
        case kind:
            raise MessageInvalid(f"entry of unknown kind {kind}")


def pack_change(change: MembershipChange) -> bytes:
    """The command of a membership entry, after PySyncObj's type byte."""
    member = change.member
    fields = [change.kind.value, member.id, member.raft_address, member.rpc_address, member.is_voter]
    if member.keys or change.keys_before or change.was_removed:
        pinned = [list(member.keys), list(change.keys_before), change.was_removed]
        body: bytes = msgpack.packb([_PINNED_ENTRY_VERSION, *fields, *pinned])
    else:
        body = msgpack.packb([_ENTRY_VERSION, *fields])
    return body


def unpack_change(command: bytes) -> MembershipChange | None:
    """The change a whole entry stands for, None for another kind of entry. Raises: MessageInvalid."""
    if command[:1] != bytes([MEMBERSHIP]):
        return None
    value = _unpack(memoryview(command)[1:])
    _check_version(value, newest=_PINNED_ENTRY_VERSION)
    if [value[0], len(value)] not in ([_ENTRY_VERSION, 6], [_PINNED_ENTRY_VERSION, 9]):
        raise MessageInvalid("membership entry of a wrong length")
    _, kind, member_id, raft_address, rpc_address, is_voter, *pinned = value
    if not (_is_name(member_id) and _is_address(raft_address) and _is_address(rpc_address) and _is_bool(is_voter)):
        raise MessageInvalid("membership entry with fields of a wrong type or length")
    if type(kind) is not str or kind not in set(ChangeKind):
        raise MessageInvalid(f"membership entry of unknown kind {kind!r}")
    member = Member(member_id, raft_address, rpc_address, is_voter)
    if not pinned:
        return MembershipChange(ChangeKind(kind), member)
    keys, keys_before, was_removed = pinned
    if not (is_keys(keys) and is_keys(keys_before) and _is_bool(was_removed)):
        raise MessageInvalid("membership entry with keys of a wrong type or length")
    return MembershipChange(ChangeKind(kind), replace(member, keys=tuple(keys)), tuple(keys_before), was_removed)


# -- messages between nodes

_Check = Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_bytes(value: Any) -> bool:
    return type(value) is bytes


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_NAME_LENGTH


def is_keys(value: Any) -> bool:
    """Whether these can be the keys of one server."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_KEYS
        and all(type(key) is bytes and len(key) == KEY_BYTES for key in value)
    )


def _is_maybe_count(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_address(value: Any) -> bool:
    """By its length alone: what an address looks like is checked where it comes in (`base/names.py`)."""
    return type(value) is str and 0 < len(value) <= MAX_ADDRESS_LENGTH


def _is_entries(value: Any) -> bool:
    return type(value) is tuple and all(
        type(entry) is tuple
        and len(entry) == 3
        and type(entry[0]) is bytes
        and 0 < len(entry[0]) <= MAX_COMMAND_BYTES
        and _is_count(entry[1])
        and _is_count(entry[2])
        for entry in value
    )


#: Every message type with exactly its fields. `ct` is the sender's current term; `epoch` numbers probes of a log.
#: The first seven are PySyncObj's, the others ours.
_SCHEMA: Final[Mapping[str, Mapping[str, _Check]]] = {
    "hello": {"address": _is_address},
    "append_entries": {
        "term": _is_count,
        "commit_index": _is_count,
        "prevLogIdx": _is_count,
        "prevLogTerm": _is_count,
        "entries": _is_entries,
        "epoch": _is_count,
    },
    # The leader no longer has the entries this node needs: a heartbeat that offers the snapshot instead.
    "offer_snapshot": {"term": _is_count, "log_index": _is_maybe_count, "epoch": _is_count},
    "next_node_idx": {"next_node_idx": _is_count, "reset": _is_bool, "success": _is_bool, "epoch": _is_count},
    "request_vote": {"term": _is_count, "last_log_index": _is_count, "last_log_term": _is_count},
    "response_vote": {"term": _is_count, "is_fresh": _is_bool},
    "timeout_now": {"term": _is_count},
    "term_notice": {"term": _is_count},
    "pre_vote": {"term": _is_count, "last_log_index": _is_count, "last_log_term": _is_count, "round": _is_count},
    "pre_vote_granted": {"round": _is_count, "is_fresh": _is_bool},
    "confirm_leader": {"round": _is_count, "term": _is_count},
    "leader_confirmed": {"round": _is_count, "term": _is_count},
    "read_index": {"request": _is_count},
    "read_index_reply": {"request": _is_count, "log_index": _is_maybe_count},
    # Of and to servers that are pinned, who are all of a release that knows these (`admission.py`).
    "who_is": {"name": _is_name},
    "is_server": {"name": _is_name, "keys": lambda value: bool(value) and is_keys(value)},
    "pull_snapshot": {"log_index": _is_count, "offset": _is_count},
    "snapshot_part": {"log_index": _is_count, "offset": _is_count, "total": _is_count, "data": _is_bytes},
    "pull_bulk": {"log_index": _is_count, "after": _is_count},
    "bulk_part": {"log_index": _is_count, "after": _is_count, "data": _is_bytes, "is_last": _is_bool},
}

#: Of the largest of them: its own, its type, and its sender's term. One map may fill a frame, too.
_MAX_FIELDS: Final = max(map(len, _SCHEMA.values())) + 2


def bad_field(message: Message, name: str, why: str) -> MessageInvalid:
    """Of a field that is of its type, and cannot be true: `why` says what is known here."""
    return MessageInvalid(f"{message['type']}.{name} is {message[name]}: {why}")


def pack_frame(message: Message) -> bytes:
    body: bytes = msgpack.packb(message)
    return FRAME_HEADER.pack(len(body)) + body


def unpack_message(data: bytes | memoryview) -> Message:
    """A message that has exactly the fields of its type, each of its type. Raises: MessageInvalid."""
    is_small = len(data) <= _SMALL_FRAME_BYTES
    message = _unpack(data, use_list=False, max_map_len=_MAX_FIELDS) if is_small else _unpack_large(data)
    if type(message) is not dict:
        raise MessageInvalid("not a map")
    kind = message.get("type")
    fields = _SCHEMA.get(kind) if type(kind) is str else None
    if fields is None or len(message) != len(fields) + 2 or not _is_count(message.get("ct")):
        raise MessageInvalid(f"unknown or incomplete message {kind!r:.40}")
    for name, check in fields.items():
        if name not in message or not check(message[name]):
            raise MessageInvalid(f"{kind}: bad field {name!r}")
    return message


class _OneMap:
    """Told of each map when it is complete, the innermost first: lets one pass."""

    __slots__ = ("_is_found",)

    def __init__(self) -> None:
        self._is_found = False

    def __call__(self, found: Message) -> Message:
        if self._is_found:
            raise ValueError("more than one map")
        self._is_found = True
        return found


def _unpack_large(data: bytes | memoryview) -> Any:
    bounds = {"max_array_len": 0} if len(data) > _MAX_LISTED_BYTES else {}
    return _unpack(data, use_list=False, object_hook=_OneMap(), max_map_len=_MAX_FIELDS, **bounds)


def _unpack(data: bytes | memoryview, *, use_list: bool = True, **bounds: Any) -> Any:
    try:
        # Lengths are bounded by the input's own length, which the caller has bounded.
        return msgpack.unpackb(data, use_list=use_list, **bounds)
    except (ValueError, TypeError, ArithmeticError, msgpack.UnpackException, RecursionError) as error:
        raise MessageInvalid(f"not msgpack: {error}") from error


# -- no pickle


def forbid_pickle() -> None:
    """Make every pickle function that pysyncobj could call refuse."""
    import pysyncobj.journal
    import pysyncobj.pickle

    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("pickle is disabled")

    for name in ("dumps", "loads", "dump", "load"):
        setattr(pysyncobj.pickle, name, refuse)
    for name in ("dumps", "loads"):
        setattr(pysyncobj.journal, name, refuse)
