"""Somebody who has a certificate: what they may fill a node with."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RAFT: Final = "cluster/raft/transport.py"

_T_RAFT: Final = "tests/unit/raft/test_transport.py"

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
)
