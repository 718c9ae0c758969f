"""Repairs of the protocol, applied to messages on their way into and out of PySyncObj's core.

DESIGN.md has the list with the failure behind each (G1..G7, R1..R9). In short: every message carries its sender's term;
matching or committed entries are never truncated; the commit index follows only what a message proves; stale answers
are dropped; each peer has one vote; elections start with PreVote.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

from cluster.base.log import Log
from cluster.raft.codec import EntryUnknown, Message, MessageInvalid, bad_field
from cluster.raft.core import FOLLOWER, RaftCore, RaftTiming
from cluster.raft.journal import Entry, Journal

#: How soon a follower campaigns when the leader's connection closes, seconds: at least, and at random on top.
_LINK_LOST_MIN: Final = 0.02
_LINK_LOST_SPREAD: Final = 0.1
_NEVER: Final = float("-inf")
#: No cluster counts so far by itself. A term or index that does leaves no room for the next ones, and a cluster that
#: has reached the last term never elects a leader again; so from here on a term goes up in small steps only.
_FAR: Final = 1 << 62
_FAR_STEP: Final = 1 << 20
_UPGRADE: Final = "this server runs an older release, and takes no further entries until it is upgraded"

#: Obeyed from any server of this cluster, member or not as far as this node knows: a node that was away may not know
#: yet that its leader was added (Raft 6). But not while another leader is heard: whoever was removed keeps a good
#: certificate. Everything else counts from members only, votes from voters only.
_FROM_LEADERS: Final = frozenset(("append_entries", "offer_snapshot", "term_notice"))
_FROM_VOTERS: Final = frozenset(("response_vote", "pre_vote_granted", "timeout_now"))
#: Of a learner, too, once no leader is heard: the entry that made it a voter may not be here, and without this node's
#: vote it may have no majority (Raft 6).
_BALLOTS: Final = frozenset(("request_vote", "pre_vote"))


class Guard:
    """Stands between the links and one core."""

    def __init__(
        self,
        core: RaftCore,
        journal: Journal,
        send: Callable[[str, Message], bool],
        timing: RaftTiming,
        clock: Callable[[], float],
        rng: random.Random,
        log: Log,
        *,
        is_fresh: bool,
        check_entry: Callable[[Entry], None],
    ) -> None:
        """`check_entry` raises MessageInvalid for one that may not be taken into the log."""
        self._core = core
        self._journal = journal
        self._send = send
        self._timing = timing
        self._clock = clock
        self._rng = rng
        self._log = log
        self._check_new = check_entry
        self._unknown = (0, 0)  # index and term of the last entry that only a newer release knows
        self._epochs: dict[str, int] = {}  # leader: number of the present probe of a peer's log
        self._seen_epoch: dict[str, int] = {}  # follower: epoch of the last append of a leader
        # Who voted for this node, and whether the voter's disk may have lost something (G7).
        self._votes: dict[str, bool] = {}
        self._votes_term = 0
        self._votes_counted = 0
        self.leader_contact = _NEVER
        #: When a leader has said up to where all is committed, and that index; None once the node has applied that.
        self.told: tuple[float, int] | None = None
        self._round = 0
        self._round_term = 0
        self._round_started = _NEVER
        self._round_votes: dict[str, bool] = {}
        self._missing: frozenset[str] = frozenset()
        self._answer_behind: Message | None = None
        self.is_fresh = is_fresh

    # -- outgoing

    def outgoing(self, peer: str, message: Message) -> Message:
        """Completes a message of the core's (G1, G4)."""
        message["ct"] = self._core.term
        match message["type"]:
            case "response_vote" | "pre_vote_granted":
                message["is_fresh"] = self.is_fresh
            case "append_entries" | "offer_snapshot":
                message["epoch"] = self._epochs.get(peer, 0)
            case "next_node_idx":
                message["epoch"] = self._seen_epoch.get(peer, 0)
        return message

    # -- incoming

    def incoming(self, peer: str, message: Message) -> Message | None:
        """What the core shall see of a message: it, a repaired copy, or nothing.

        Raises: MessageInvalid, before anything has changed here. What Raft excludes proves that whoever sent it is
        wrong, or lies: that costs the connection, or one server's key could end every other server.
        """
        core = self._core
        kind, term = message["type"], core.term
        if kind not in _FROM_LEADERS and peer not in (core.other_voters if kind in _FROM_VOTERS else core.members):
            return None
        known = core.other_voters if kind in _BALLOTS else core.members
        if peer not in known and self._has_leader_beside(peer):
            return None
        self._check_terms(message)
        match kind:
            case "append_entries" | "offer_snapshot":
                return self._from_leader(peer, message)
            case "next_node_idx":
                return self._answer(peer, message)
            case "request_vote" | "timeout_now":
                return message
            case "response_vote":
                return self._vote(peer, message) if message["term"] == term else None
            case "term_notice":
                if message["term"] > term:
                    self.step_down(message["term"])
            case "pre_vote":
                self._pre_vote(peer, message)
            case "pre_vote_granted":
                if message["round"] == self._round:
                    self._round_votes[peer] = message["is_fresh"]
        return None

    def _check_terms(self, message: Message) -> None:
        """Raises: MessageInvalid."""
        most = max(_FAR, self._core.term + _FAR_STEP)
        for name in ("term", "ct"):
            if message.get(name, 0) > most:
                raise bad_field(message, name, f"must be at most {most}")

    def _has_leader_beside(self, peer: str) -> bool:
        """Whether this node leads, or hears from another leader. A leader that was deposed by one it does not know
        loses its quorum, and stops leading by itself.
        """
        core = self._core
        is_heard = self._clock() - self.leader_contact < self._timing.election_min
        return core.is_leader or (is_heard and core.leader_id not in (None, peer))

    def after_core(self, peer: str) -> None:
        """Called when the core has seen what `incoming` returned."""
        if self._answer_behind is not None:
            answer, self._answer_behind = self._answer_behind, None
            self._send(peer, answer)

    def step_down(self, term: int) -> None:
        was_leader = self._core.is_leader
        self._core.step_down(term)
        if was_leader:
            self._log("leader.stepped_down", term=term)

    def _from_leader(self, peer: str, message: Message) -> Message | None:
        core = self._core
        if message["term"] < core.term:
            self._send(peer, {"type": "term_notice", "term": core.term})
            return None
        told = (self._clock(), message["commit_index"]) if message["type"] == "append_entries" else None
        leader = "this node" if core.is_leader else core.leader_id
        if message["term"] == core.term and leader not in (None, peer):
            # A term has one leader (Raft 5.2). Entries of another one would have the numbers of the leader's own, which
            # would then be taken for known.
            raise bad_field(message, "term", f"{leader} leads in that term")
        repaired = self._offered(message) if message["type"] == "offer_snapshot" else self._append(message)
        self.leader_contact = self._clock()
        self._seen_epoch[peer] = message["epoch"]
        if told is not None and (self.told is None or told[1] < self.told[1]):
            self.told = told
        return repaired

    def _offered(self, message: Message) -> Message:
        """A heartbeat that proves nothing about this log, so it commits nothing (G3). Raises: MessageInvalid."""
        core, log_index = self._core, message["log_index"]
        if log_index is not None and log_index > _FAR:
            raise bad_field(message, "log_index", f"must be at most {_FAR}")
        if log_index is not None and log_index <= core.applied_index:
            # The snapshot is here already, and the answer that said so was lost with a connection. What is applied is
            # committed, so the leader's log has it too.
            return self._heartbeat(message, core.commit_index, core.applied_index + 1, success=True, reset=True)
        # The answer keeps the leader sure of its quorum and changes nothing else.
        return self._heartbeat(message, core.commit_index, self._journal.entries[-1].log_index + 1)

    def _heartbeat(
        self, message: Message, commit: int, next_index: int, *, success: bool = False, reset: bool = False
    ) -> Message:
        """What the core sees instead of an append that it must not look into; the answer is sent after it."""
        self._answer_behind = {
            "type": "next_node_idx",
            "next_node_idx": next_index,
            "reset": reset,
            "success": success,
        }
        return {"type": "append_entries", "term": message["term"], "commit_index": commit, "serialized": None}

    def _append(self, message: Message) -> Message:
        """Raises: MessageInvalid."""
        entries, commit = self._journal.entries, self._core.commit_index
        first, last = entries[0].log_index, entries[-1].log_index
        previous, new = message["prevLogIdx"], message["entries"]
        _check_order(message)
        if previous > last or previous < first:
            return self._heartbeat(message, commit, last + 1, reset=True)
        if entries[previous - first].term != message["prevLogTerm"]:
            if previous <= commit:
                known_term = entries[previous - first].term
                raise bad_field(message, "prevLogTerm", f"entry {previous} is committed here, with term {known_term}")
            # Skip the whole conflicting term at once (Raft 5.3); the core would go back entry by entry.
            return self._heartbeat(message, commit, self._first_of_term(previous), reset=True)
        known = self._count_known(new)
        if known < len(new) and new[known][1] <= commit:
            raise MessageInvalid(
                f"append_entries.entries has entry {new[known][1]} with term {new[known][2]}: it is committed here,"
                f" with term {entries[new[known][1] - first].term}"
            )
        for entry in new[known:]:
            self._check_entry(*entry)  # what is in the log once is there for ever
        top = previous + len(new)
        if self.is_fresh and self._brings_up_to_date(message, top):
            self.is_fresh = False
        message["commit_index"] = min(message["commit_index"], top)  # G3
        if known == len(new) and top < last:
            # G2: nothing new, and the longer log may hold acknowledged entries. The core would truncate it.
            return self._heartbeat(message, message["commit_index"], top + 1, success=True)
        if known:
            message["prevLogIdx"], message["prevLogTerm"] = new[known - 1][1], new[known - 1][2]
            message["entries"] = new[known:]
        return message

    def _check_entry(self, command: bytes, log_index: int, term: int) -> None:
        """Raises: MessageInvalid."""
        try:
            self._check_new(Entry(command, log_index, term))
        except MessageInvalid as error:
            if isinstance(error, EntryUnknown) and self._unknown != (
                log_index,
                term,
            ):  # said once, not at every attempt
                self._unknown = (log_index, term)
                self._log("entry.unknown", log_index=log_index, term=term, reason=f"{error}: {_UPGRADE}")
            raise MessageInvalid(f"append_entries.entries has entry {log_index}: {error}") from error

    def _count_known(self, new: Sequence[tuple[bytes, int, int]]) -> int:
        """How many of these entries are here already; they follow an entry that is."""
        entries = self._journal.entries
        first, last = entries[0].log_index, entries[-1].log_index
        known = 0
        while known < len(new) and new[known][1] <= last and entries[new[known][1] - first].term == new[known][2]:
            known += 1
        return known

    def _brings_up_to_date(self, message: Message, top: int) -> bool:
        """Whether this log holds all that was ever committed, once the append is taken (G7).

        It does when it holds all that the leader has committed, an entry of the leader's own term among it: before
        that the leader does not know either how far earlier leaders had got (Raft 5.4.2). The leader whose first entry
        is the log's first had no earlier ones: with an empty log it was elected by all, whose logs were empty too.
        """
        entries, commit = self._journal.entries, message["commit_index"]
        if commit > top:
            return False
        if entries[0].log_index == 1 and self._term_behind(1, message) == message["term"]:
            return True
        if commit < entries[0].log_index:
            return False
        return bool(self._term_behind(commit - 1, message) == message["term"])

    def _term_behind(self, log_index: int, message: Message) -> int | None:
        """Term of the entry that follows `log_index` once an append is taken that matches this log."""
        entries, previous, new = self._journal.entries, message["prevLogIdx"], message["entries"]
        if log_index < previous:
            return entries[log_index + 1 - entries[0].log_index].term
        return int(new[log_index - previous][2]) if log_index - previous < len(new) else None

    def _first_of_term(self, log_index: int) -> int:
        """First entry of the term that entry `log_index` has, above the commit index: where the logs may part."""
        entries = self._journal.entries
        first, term = entries[0].log_index, entries[log_index - entries[0].log_index].term
        floor = max(self._core.commit_index, first) + 1
        while log_index > floor and entries[log_index - 1 - first].term == term:
            log_index -= 1
        return log_index

    def _answer(self, peer: str, message: Message) -> Message | None:
        core = self._core
        if message["ct"] > core.term:
            self.step_down(message["ct"])
            return None
        if message["ct"] < core.term or not core.is_leader:
            return None  # G1: an answer to an earlier term says nothing about this log (R4)
        last = self._journal.entries[-1].log_index
        if message["success"] and message["next_node_idx"] > last + 1:
            # It would count for entries that are still to come.
            raise bad_field(message, "next_node_idx", f"must be at most {last + 1}, which follows this leader's log")
        if message["reset"]:
            if message["epoch"] != self._epochs.get(peer, 0):
                return None  # G4: it rejects what was sent before the last rewind
            self._epochs[peer] = message["epoch"] + 1
        return message

    # -- elections

    def link_lost(self, peer: str) -> None:
        """The connection on which `peer` sends was closed: a sign of its process's end, so campaign soon if it led.

        PreVote makes this harmless when it was the connection only.
        """
        core = self._core
        if core.leader_id == peer and core.state == FOLLOWER:
            self.leader_contact = _NEVER
            core.campaign_within(_LINK_LOST_MIN + _LINK_LOST_SPREAD * self._rng.random())

    def may_campaign(self) -> bool:
        """PreVote (Raft thesis 9.6): only with a majority that would vote for this node does its term grow."""
        core = self._core
        if not core.is_voter:
            return False
        if core.is_taking_over or not core.other_voters:
            return True
        now, next_term = self._clock(), core.term + 1
        if self._round_term == next_term and self._is_majority(self._counted(self._round_votes)):
            self._round_term = 0
            return True
        pause = self._timing.election_min / 2 * (0.7 + 0.6 * self._rng.random())
        if self._round_term != next_term or now - self._round_started > pause:
            self._say_who_is_missing()
            self._round += 1
            self._round_term, self._round_started, self._round_votes = next_term, now, {}
            core.forget_leader()
            last = self._journal.entries[-1]
            for peer in sorted(core.other_voters):
                ballot = {"term": next_term, "last_log_index": last.log_index, "last_log_term": last.term}
                self._send(peer, {"type": "pre_vote", **ballot, "round": self._round})
        return False

    def _say_who_is_missing(self) -> None:
        """A majority would vote for this node, but not all of it counts (G7): an operator must know who is awaited."""
        votes = self._round_votes
        missing = self._core.other_voters - votes.keys()
        if missing == self._missing or self._is_majority(self._counted(votes)) or not self._is_majority(len(votes)):
            return
        self._missing = missing
        reason = "a server's disk was empty when it started: all servers must agree on the next leader"
        self._log("election.waits", missing=sorted(missing), reason=reason)

    def _is_majority(self, counted: int) -> bool:
        return counted + 1 > (len(self._core.other_voters) + 1) // 2

    def _pre_vote(self, peer: str, message: Message) -> None:
        core, last = self._core, self._journal.entries[-1]
        if message["term"] <= core.term:
            self._send(peer, {"type": "term_notice", "term": core.term})
            return
        has_leader = core.is_leader or self._clock() - self.leader_contact < self._timing.election_min
        is_current = (message["last_log_term"], message["last_log_index"]) >= (last.term, last.log_index)
        if is_current and not has_leader:
            self._send(peer, {"type": "pre_vote_granted", "round": message["round"]})

    def _vote(self, peer: str, message: Message) -> Message | None:
        """G5: PySyncObj counts messages, not peers. It sees one message for each vote that counts."""
        if self._votes_term != message["term"]:
            self._votes_term, self._votes, self._votes_counted = message["term"], {}, 0
        self._votes[peer] = message["is_fresh"]
        new = self._counted(self._votes) - self._votes_counted
        if new <= 0:
            return None
        self._votes_counted += new
        for _ in range(new - 1):
            self._core.receive(peer, message)
        return message

    def _counted(self, votes: dict[str, bool]) -> int:
        """G7: how many votes count besides this node's own, which the core takes for granted.

        A node that starts with an empty disk may have voted, and acknowledged entries, in an earlier life. So until a
        leader has brought it up to date, its vote counts only when all voters agree: then those who remember vouch for
        what it may have forgotten. That holds for this node's own vote too, and for a new cluster: two of three nodes
        with empty disks cannot know that the third one's is empty.
        """
        others = self._core.other_voters
        if votes.keys() >= others:
            return len(others)
        remembering = sum(not is_fresh for peer, is_fresh in votes.items() if peer in others)
        return remembering - 1 if self.is_fresh else remembering


def _check_order(message: Message) -> None:
    """Indexes go up by one, terms never down, and not past the leader's own (Raft 5.3). Raises: MessageInvalid."""
    index, term = message["prevLogIdx"], message["prevLogTerm"]
    for _, entry_index, entry_term in message["entries"]:
        if entry_index != index + 1:
            raise MessageInvalid(f"append_entries.entries has entry {entry_index}: must be {index + 1}, the next one")
        if entry_term < term:
            raise MessageInvalid(
                f"append_entries.entries has entry {entry_index} with term {entry_term}: must be {term} or later"
            )
        index, term = entry_index, entry_term
    if term > message["term"]:
        raise bad_field(message, "term", f"must be {term} or later, which is that of entry {index}")
