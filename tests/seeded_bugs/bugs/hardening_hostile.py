"""Somebody who has a certificate: what they may fill a node with, and say in another's name."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RAFT: Final = "cluster/raft/transport.py"
_GUARD: Final = "cluster/raft/guard.py"
_READS: Final = "cluster/raft/reads.py"

_T_RAFT: Final = "tests/unit/raft/test_transport.py"
_T_GUARD: Final = "tests/unit/raft/test_guard.py"
_T_READS: Final = "tests/unit/raft/test_reads.py"

BUGS: Final = (
    Bug(
        "frames of strangers are kept",
        "a certificate of a server that never was fills a node's memory, by as much for each connection as the largest"
        " frame has",
        _RAFT,
        "                    if self._is_greeted and self.standing is Standing.STRANGER:\n",
        "                    if False:\n",
        (f"{_T_RAFT}::test_no_part_of_a_frame_of_a_stranger_is_kept",),
    ),
    Bug(
        "a hello may be as long as a frame",
        "before it has said who it is, a connection may fill a node's memory",
        _RAFT,
        "                most = MAX_FRAME_BYTES if self._is_greeted else _MAX_HELLO_BYTES\n",
        "                most = MAX_FRAME_BYTES\n",
        (f"{_T_RAFT}::test_hello_that_is_as_long_as_a_frame_is_refused_by_its_header",),
    ),
    Bug(
        "a term may have two leaders",
        "entries of somebody with a server's key take the place of the leader's own, whose loss nobody notices",
        _GUARD,
        """        if message["term"] == core.term and not core.is_leader and core.leader_id not in (None, peer):\n""",
        "        if False:\n",
        (f"{_T_GUARD}::test_nobody_else_leads_in_the_term_of_the_leader",),
    ),
    Bug(
        "any server answers for the leader",
        "what somebody reads is as old as another server says",
        _READS,
        "                if asked is not None and asked.leader == peer:\n",
        "                if asked is not None:\n",
        (f"{_T_READS}::test_only_the_leader_that_was_asked_answers",),
    ),
)
