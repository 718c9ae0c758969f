"""Elections, replication, membership and reads."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_GUARD: Final = "cluster/raft/guard.py"
_CORE: Final = "cluster/raft/core.py"
_NODE: Final = "cluster/raft/node.py"
_READS: Final = "cluster/raft/reads.py"
_TRANSPORT: Final = "cluster/raft/transport.py"

_CRASH: Final = "tests/crash/test_crash_points.py"
_T_GUARD: Final = "tests/unit/raft/test_guard.py"
_T_NODE: Final = "tests/unit/raft/test_node.py"
_T_READS: Final = "tests/unit/raft/test_reads.py"
_T_TRANSPORT: Final = "tests/unit/raft/test_transport.py"

BUGS: Final = (
    Bug(
        "no PreVote",
        "a node that was cut off deposes a healthy leader when it comes back",
        _GUARD,
        "        if core.is_taking_over or not core.other_voters:\n",
        "        if True:\n",
        (_T_GUARD,),
    ),
    Bug(
        "PreVote is granted while there is a leader",
        "a node with one broken connection deposes a healthy leader",
        _GUARD,
        "        if is_current and not has_leader:\n",
        "        if is_current:\n",
        (_T_GUARD,),
    ),
    Bug(
        "answers of an earlier term count",
        "an entry is committed that a majority no longer holds",
        _GUARD,
        '        if message["ct"] < core.term or not core.is_leader:\n',
        "        if not core.is_leader:\n",
        (_T_GUARD,),
    ),
    Bug(
        "a later term in an answer is not noticed",
        "a deposed leader goes on leading",
        _GUARD,
        '        if message["ct"] > core.term:\n',
        "        if False:\n",
        (_T_GUARD,),
    ),
    Bug(
        "a leader of an earlier term is not told",
        "it goes on until its quorum is gone, and its clients wait",
        _GUARD,
        '        if message["term"] < core.term:\n'
        '            self._send(peer, {"type": "term_notice", "term": core.term})\n',
        '        if message["term"] < core.term:\n',
        (_T_GUARD,),
    ),
    Bug(
        "an old append truncates a longer log",
        "acknowledged entries are removed by a message that came late",
        _GUARD,
        "        if known == len(new) and top < last:\n",
        "        if False:\n",
        (_T_GUARD,),
    ),
    Bug(
        "the commit index is not clamped",
        "entries that the leader does not have are applied",
        _GUARD,
        '        message["commit_index"] = min(message["commit_index"], top)  # G3\n',
        "",
        (_T_GUARD,),
    ),
    Bug(
        "stale rejections count",
        "a leader goes back again and again, and sends the same entries for ever",
        _GUARD,
        '            if message["epoch"] != self._epochs.get(peer, 0):\n',
        "            if False:\n",
        (_T_GUARD,),
    ),
    Bug(
        "votes are counted by message",
        "a repeated vote makes a leader without a majority",
        _GUARD,
        "        new = self._counted(self._votes) - self._votes_counted\n"
        "        if new <= 0:\n            return None\n",
        "        new = max(1, self._counted(self._votes) - self._votes_counted)\n",
        (_T_GUARD,),
    ),
    Bug(
        "strangers and learners vote",
        "a leader without a majority of the voters",
        _GUARD,
        "        if kind not in _FROM_LEADERS and peer not in",
        "        if False and peer not in",
        (_T_GUARD,),
    ),
    Bug(
        "an empty disk votes like any other",
        "a replaced disk helps a node without the latest entries to lead",
        _GUARD,
        "        remembering = sum(not is_fresh for peer, is_fresh in votes.items() if peer in others)\n",
        "        remembering = sum(peer in others for peer in votes)\n",
        (_T_GUARD,),
    ),
    Bug(
        "the mark of a new disk goes before its entries are durable",
        "as above, with a power cut in between",
        _NODE,
        "            self.journal.sync()  # never unmarked without the entries that brought this node up to date\n",
        "",
        (_T_GUARD, _CRASH),
    ),
    Bug(
        "a leader does not step down without its quorum",
        "its clients wait for ever, and it serves stale reads",
        _CORE,
        "            leaderFallbackTimeout=timing.quorum_loss,\n",
        "            leaderFallbackTimeout=1e9,\n",
        (_T_GUARD,),
    ),
    Bug(
        "two membership changes at a time",
        "two majorities that do not meet",
        _CORE,
        "        if not self.is_ready_leader or self.pending_change is not None:\n",
        "        if not self.is_ready_leader:\n",
        (_T_GUARD,),
    ),
    Bug(
        "reads without confirmation",
        "a deposed leader serves stale reads",
        _READS,
        "        if len(round_.confirmed & others) + 1 > (len(others) + 1) // 2:\n",
        "        if True:\n",
        (_T_READS,),
    ),
    Bug(
        "reads before the first own entry is committed",
        "a new leader does not know yet what is committed, and serves less",
        _READS,
        "            if not core.is_ready_leader:\n",
        "            if False:\n",
        (_T_READS,),
    ),
    Bug(
        "a received snapshot replaces a log that has got there by itself",
        "acknowledged entries behind the snapshot are removed",
        _NODE,
        "        if 0 <= position < len(entries) and entries[position].term == snapshot.term:\n",
        "        if False:\n",
        (_T_NODE,),
    ),
    Bug(
        "frames of any length",
        "one peer fills the memory of another",
        _TRANSPORT,
        "                if length > most:\n",
        "                if False:\n",
        (_T_TRANSPORT,),
    ),
    Bug(
        "messages before the hello",
        "a connection of another protocol is taken for a peer",
        _TRANSPORT,
        '        if message["type"] != "hello":\n',
        "        if False:\n",
        (_T_TRANSPORT,),
    ),
)
