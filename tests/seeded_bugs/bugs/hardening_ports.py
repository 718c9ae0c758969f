"""The ports between nodes: what a certificate of the agent CA that is no member's makes a node do."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RPC: Final = "cluster/rpc/server.py"

_RAFT: Final = "cluster/raft/transport.py"

_T_PLACES: Final = "tests/parts/rpc/test_places.py"
_T_RPC: Final = "tests/parts/rpc/test_server.py"
_T_RAFT: Final = "tests/unit/raft/test_transport.py"
_T_RAFT_PLACES: Final = "tests/parts/raft/test_places.py"

BUGS: Final = (
    Bug(
        "bodies on the RPC port are inflated",
        "a megabyte becomes a gigabyte, and nothing else is done meanwhile",
        _RPC,
        "            auto_decompress=False,  # a small body must not become a large one\n",
        "",
        (f"{_T_RPC}::test_coded_body_is_refused_as_it_is",),
    ),
    Bug(
        "what is refused on the RPC port is read to its end",
        "whoever is refused goes on sending for ten seconds",
        _RPC,
        "            lingering_time=0,  # of a request that is refused nothing more is read\n",
        "",
        (f"{_T_PLACES}::test_refused_request_is_not_read_on",),
    ),
    Bug(
        "a Content-Encoding is passed over",
        "a coded body is taken for a message",
        _RPC,
        '        if "Content-Encoding" in request.headers:\n',
        "        if False:\n",
        (f"{_T_RPC}::test_coded_body_is_refused_as_it_is",),
    ),
    Bug(
        "strangers are heard until they have asked",
        "requests of certificates that are no member's are parsed, and read for as long as they last",
        _RPC,
        "        if self._deadline is None:\n            super().data_received(data)\n",
        "        if True:\n            super().data_received(data)\n",
        (f"{_T_PLACES}::test_nothing_is_read_of_a_stranger_once_it_was_told",),
    ),
    Bug(
        "strangers are read on after they were told",
        "whatever they send goes through the node",
        _RPC,
        "        transport.pause_reading()\n",
        "",
        (f"{_T_PLACES}::test_nothing_is_read_of_a_stranger_once_it_was_told",),
    ),
    Bug(
        "the connection of a stranger ends at once",
        "a server that is refused takes it for a lost answer, and does not say what was done",
        _RPC,
        "        self._deadline = self._loop.call_later(_TOLD_SECONDS, self._seat.end)\n",
        "        self._seat.end()\n",
        (f"{_T_PLACES}::test_connection_of_a_stranger_outlives_its_answer_for_a_moment",),
    ),
    Bug(
        "strangers give way while they wait for a request only",
        "with half a request each they hold all places, and members get no new connection",
        _RPC,
        "        self._seat.settle(lambda: True)\n",
        "        self._seat.settle(lambda: not self._is_told)\n",
        (f"{_T_PLACES}::test_strangers_give_way_whatever_they_have_said",),
    ),
    Bug(
        "connections to the RPC port outlive the removal of their server",
        "it holds the places of a member without end",
        _RPC,
        "                    connection.judge()\n",
        "                    pass\n",
        (f"{_T_PLACES}::test_connections_of_a_server_that_is_removed_end",),
    ),
    Bug(
        "what a removed server waits for is cut off",
        "whoever removes a server through itself is not told whether it was done",
        _RPC,
        "            if self._deadline is None:\n                self._be_no_member_any_more()\n",
        "            self._seat.end()\n",
        (f"{_T_PLACES}::test_request_of_a_server_that_is_being_removed_is_answered",),
    ),
    Bug(
        "every refusal on the RPC port is in the log",
        "a certificate fills the disk",
        _RPC,
        "        self._log = Seldom(log, time.monotonic)\n",
        "        self._log = lambda event, _cause, **fields: log(event, **fields)\n",
        (f"{_T_RPC}::test_strangers_are_in_the_log_once_a_second_and_say_nothing_there",),
    ),
    # -- Raft
    Bug(
        "a stranger may say on the Raft port as much as it likes",
        "a flood of small frames takes the time in which the node would lead, and there is no leader while it lasts",
        _RAFT,
        "        if self._unheard <= _MAX_UNHEARD_BYTES:\n",
        "        if True:\n",
        (f"{_T_RAFT}::test_stranger_that_goes_on_talking_is_cut_off_unheard",),
    ),
    Bug(
        "single bytes of a stranger count for one",
        "each is a turn of the loop on which the node leads, sixteen thousand times for every connection",
        _RAFT,
        "        self._unheard += max(size, _LEAST_UNHEARD_BYTES)\n",
        "        self._unheard += size\n",
        (f"{_T_RAFT}::test_stranger_that_goes_on_talking_is_cut_off_unheard",),
    ),
    Bug(
        "what a stranger sends with its hello does not count",
        "as much as the buffers hold is gone through, for every connection",
        _RAFT,
        "                    if self._is_unheard(size - offset):\n",
        "                    if False:\n",
        (f"{_T_RAFT}::test_what_a_stranger_sends_with_its_hello_counts",),
    ),
    Bug(
        "what strangers send wakes the node",
        "a round of the Raft thread for every byte",
        _RAFT,
        "        if self.standing is not Standing.STRANGER:\n            self._links.owner.wake()\n",
        "        self._links.owner.wake()\n",
        (f"{_T_RAFT}::test_stranger_that_goes_on_talking_is_cut_off_unheard",),
    ),
    Bug(
        "others are asked about a stranger once",
        "a node that was away, and whose question was lost, does not hear its leader",
        _RAFT,
        "        if names:\n            self._ask_later()\n",
        "",
        (f"{_T_RAFT_PLACES}::test_others_are_asked_about_a_stranger_while_it_is_there_and_known_no_more",),
    ),
    Bug(
        "every certificate of no server is in the log of the Raft port",
        "a client's certificate fills the disk",
        _RAFT,
        "        self.log_seldom = Seldom(log, time.monotonic)\n",
        "        self.log_seldom = lambda event, _cause, **fields: log(event, **fields)\n",
        (f"{_T_RAFT}::test_certificates_of_no_other_server_are_in_the_log_once_a_second",),
    ),
    Bug(
        "a server that is removed has a stranger's time for its last answer",
        "whoever removes a server through itself is not told whether it worked",
        "cluster/rpc/server.py",
        "        seconds = _STRANGER_SECONDS if self._current_request is None else _MAX_WAIT_SECONDS\n",
        "        seconds = _STRANGER_SECONDS\n",
        ("tests/parts/rpc/test_places.py::test_request_of_a_server_that_is_being_removed_is_answered",),
    ),
    Bug(
        "what callbacks of Raft raise is written by their loop",
        "a fault that a frame can repeat fills the log with tracebacks that no tool reads",
        "cluster/raft/replica.py",
        "        report_callbacks(self._raft_loop, log)\n",
        "",
        ("tests/parts/raft/test_replica.py::test_what_a_callback_of_raft_raises_is_a_line_of_the_log",),
    ),
)
