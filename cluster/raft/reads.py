"""ReadIndex (Raft thesis 6.4): a log index from which on a read is linearizable, without writing anything.

The leader confirms with a majority that it still leads; a follower asks the leader. A lease would be cheaper and is not
used: nothing here bounds how far clocks or schedulers of different nodes drift apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cluster.raft.codec import Message
from cluster.raft.core import RaftCore

ReadCallback = Callable[[int | None], None]

_EXPIRY_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Round:
    number: int
    term: int
    log_index: int
    started: float
    waiting: list[ReadCallback] = field(default_factory=list)
    confirmed: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What waits for the word of the leader, and of nobody else."""

    leader: str
    started: float
    waiting: list[ReadCallback]


class ReadIndex:
    """Both sides of the protocol for one node. Callbacks get an index, or None: ask again, perhaps elsewhere."""

    def __init__(
        self, core: RaftCore, send: Callable[[str, Message], bool], clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self._core = core
        self._send = send
        self._clock = clock
        self._wake = wake
        self._number = 0
        self._next: list[ReadCallback] = []
        self._rounds: dict[int, _Round] = {}
        self._asked: dict[int, _Asked] = {}

    def request(self, done: ReadCallback) -> None:
        """Reads that arrive before the next `pump` share a round."""
        self._next.append(done)
        self._wake()

    def pump(self) -> None:
        """Start a round for what has come in, and give up on what is too old."""
        if self._next:
            waiting, self._next = self._next, []
            self._start(waiting)
        if not self._rounds and not self._asked:
            return
        expired = self._clock() - _EXPIRY_SECONDS
        for number in [number for number, round_ in self._rounds.items() if round_.started < expired]:
            _finish(self._rounds.pop(number).waiting, None)
        for number in [number for number, asked in self._asked.items() if asked.started < expired]:
            _finish(self._asked.pop(number).waiting, None)

    def _start(self, waiting: list[ReadCallback]) -> None:
        core = self._core
        self._number += 1
        if core.is_leader:
            if not core.is_ready_leader:
                _finish(waiting, None)
                return
            round_ = _Round(self._number, core.term, core.commit_index, self._clock(), waiting)
            self._rounds[round_.number] = round_
            for peer in sorted(core.other_voters):
                self._send(peer, {"type": "confirm_leader", "round": round_.number, "term": round_.term})
            self._check(round_)
        elif core.leader_id is not None:
            self._asked[self._number] = _Asked(core.leader_id, self._clock(), waiting)
            self._send(core.leader_id, {"type": "read_index", "request": self._number})
        else:
            _finish(waiting, None)

    def incoming(self, peer: str, message: Message) -> None:
        core = self._core
        match message["type"]:
            case "confirm_leader":
                if message["term"] == core.term:
                    answer = {"type": "leader_confirmed", "round": message["round"], "term": core.term}
                    self._send(peer, answer)
                elif message["term"] < core.term:
                    self._send(peer, {"type": "term_notice", "term": core.term})
            case "leader_confirmed":
                round_ = self._rounds.get(message["round"])
                if round_ is not None and message["term"] == round_.term == core.term and core.is_leader:
                    round_.confirmed.add(peer)
                    self._check(round_)
            case "read_index":
                request = message["request"]

                def reply(log_index: int | None) -> None:
                    self._send(peer, {"type": "read_index_reply", "request": request, "log_index": log_index})

                if core.is_leader:
                    self.request(reply)
                else:
                    reply(None)
            case "read_index_reply":
                asked = self._asked.get(message["request"])
                if asked is not None and asked.leader == peer:
                    del self._asked[message["request"]]
                    _finish(asked.waiting, message["log_index"])

    def fail_all(self) -> None:
        """This node stopped leading, or its leader changed: nothing under way can be trusted."""
        for round_ in self._rounds.values():
            _finish(round_.waiting, None)
        for asked in self._asked.values():
            _finish(asked.waiting, None)
        self._rounds.clear()
        self._asked.clear()

    def _check(self, round_: _Round) -> None:
        others = self._core.other_voters
        if len(round_.confirmed & others) + 1 > (len(others) + 1) // 2:
            self._rounds.pop(round_.number, None)
            _finish(round_.waiting, round_.log_index)


def _finish(waiting: list[ReadCallback], log_index: int | None) -> None:
    for done in waiting:
        done(log_index)
