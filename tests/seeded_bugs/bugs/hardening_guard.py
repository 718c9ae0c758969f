"""What one server's key can do to the others."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ADMISSION: Final = "cluster/raft/admission.py"
_CODEC: Final = "cluster/raft/codec.py"
_GUARD: Final = "cluster/raft/guard.py"
_MACHINE: Final = "cluster/raft/machine.py"
_NODE: Final = "cluster/raft/node.py"

_T_GUARD: Final = "tests/unit/raft/test_guard.py"
_T_HOSTILE: Final = "tests/unit/raft/test_hostile_member.py"
_T_ANY: Final = f"{_T_HOSTILE}::test_no_message_of_a_member_ends_the_process_or_changes_what_is_committed"
_T_UNKNOWN: Final = f"{_T_HOSTILE}::test_command_that_this_release_cannot_apply_never_gets_into_the_log"
_T_STALL: Final = "tests/unit/raft/test_stall.py::test_stalled_leader_adds_no_entry_of_its_own"
_T_STALLS: Final = "tests/sim/test_stalls.py"
_T_WORD: Final = "tests/unit/raft/test_pins.py::test_word_of_a_server_counts_no_longer_than_the_server"

BUGS: Final = (
    Bug(
        "what a server contradicts ends the process",
        "whoever has the key of one server ends all others, each with one frame",
        _GUARD,
        '                raise bad_field(message, "prevLogTerm", f"entry',
        '                raise AssertionError(f"entry',
        (_T_GUARD, _T_ANY),
    ),
    Bug(
        "a second leader of one term ends the process",
        "whoever has the key of one server ends the leader with one frame, and the next one",
        _GUARD,
        '            raise bad_field(message, "term", f"{leader} leads in that term")\n',
        '            raise AssertionError("two leaders")\n',
        (_T_GUARD, _T_ANY),
    ),
    Bug(
        "a refused append is a sign of the leader's life",
        "a server that contradicts keeps the others from electing a leader",
        _GUARD,
        "        repaired = self._offered(message) if",
        "        self.leader_contact = self._clock()\n        repaired = self._offered(message) if",
        (_T_GUARD,),
    ),
    Bug(
        "entries of any term",
        "a log that ends in a term of the far future wins every election from then on",
        _GUARD,
        '    if term > message["term"]:\n',
        "    if False:\n",
        (_T_GUARD,),
    ),
    Bug(
        "terms up to the last one",
        "one frame, and no server is ever elected again",
        _GUARD,
        "        self._check_terms(message)\n",
        "",
        (_T_ANY,),
    ),
    Bug(
        "entries that are not there yet can be acknowledged",
        "the leader takes what it will write for copied, and a loss of one disk loses it",
        _GUARD,
        '        if message["success"] and message["next_node_idx"] > last + 1:\n',
        "        if False:\n",
        (_T_GUARD,),
    ),
    Bug(
        "a snapshot that counts more certificates than changes",
        "a node that took one never starts again",
        _MACHINE,
        "        if installed.leaf_index > installed.index:\n",
        "        if False:\n",
        (_T_ANY,),
    ),
    Bug(
        "commands that nobody can apply get into the log",
        "whoever leads with a command of a newer release, or with garbage, ends every node, at each start again",
        _CODEC,
        "                check_command(item)\n",
        "                pass\n",
        (_T_UNKNOWN,),
    ),
    Bug(
        "only the first command of an entry is looked at",
        "a good command in front of it brings a bad one into the log",
        _CODEC,
        "            for item in commands:\n",
        "            for item in commands[:1]:\n",
        (_T_UNKNOWN,),
    ),
    Bug(
        "what an operator has had passed over is refused",
        "a server whose disk was replaced never catches up with those that have passed over the entry",
        _NODE,
        "            if entry.command[0] != codec.REGULAR or Skip.of(entry) not in self._skipped:\n",
        "            if True:\n",
        (f"{_T_HOSTILE}::test_entry_that_an_operator_has_passed_over_is_taken_and_no_other_one",),
    ),
    Bug(
        "nobody says that a newer release leads",
        "a server that was not upgraded lags for ever, and its operator does not know why",
        _GUARD,
        '                self._log("entry.unknown",',
        '                (lambda *_, **__: None)("entry.unknown",',
        (_T_UNKNOWN,),
    ),
    Bug(
        "what was checked is kept for ever",
        "commands that are replaced before they are applied fill the memory of the nodes that got them",
        _MACHINE,
        "        if self._checked_bytes > _MAX_CHECKED_BYTES:\n",
        "        if False:\n",
        ("tests/unit/raft/test_machine.py::test_what_was_checked_and_is_never_applied_is_forgotten",),
    ),
    Bug(
        "a word outlives whoever gave it",
        "whoever had the key of a server that was removed for it is still heard, under the name of another one",
        _ADMISSION,
        "    if word.by not in members:\n        return False\n",
        "    if word.by not in members:\n        return True\n",
        (_T_WORD,),
    ),
    Bug(
        "a word outlives the key under which it was given",
        "a stolen key was exchanged, and the servers that it had vouched for are still heard",
        _ADMISSION,
        "    return any(is_key_of(key, keys) for key in word.by_keys)\n",
        "    return True\n",
        (_T_WORD,),
    ),
    Bug(
        "a word outlives the word that it was given by",
        "one that a stolen key brought in brings in the next one, and that one stays",
        _ADMISSION,
        "    while lost := [",
        "    if lost := [",
        (_T_WORD,),
    ),
    Bug(
        "a stalled leader goes on to pin keys",
        "with each entry nobody has all of them, and it leads on until an election, in which nothing is signed",
        _NODE,
        "        if self.must_not_lead:\n            return  # with another entry",
        "        if False:\n            return  # with another entry",
        (_T_STALLS,),
    ),
    Bug(
        "a stalled leader goes on to make learners voters",
        "with each entry nobody has all of them, and it leads on until an election, in which nothing is signed",
        _NODE,
        "        if not core.has_learners or not core.is_ready_leader or self.must_not_lead:\n",
        "        if not core.has_learners or not core.is_ready_leader:\n",
        (_T_STALL,),
    ),
    Bug(
        "lists in a frame of any size",
        "one frame takes up half a gigabyte of the node that gets it, and holds its Raft up for seconds",
        _CODEC,
        '    bounds = {"max_array_len": 0} if len(data) > _MAX_LISTED_BYTES else {}\n',
        "    bounds: dict[str, Any] = {}\n",
        ("tests/unit/raft/test_codec.py::test_largest_frame_takes_up_little_more_than_itself_whatever_is_in_it",),
    ),
    Bug(
        "maps in a map",
        "a frame takes up eighty times its size of the node that gets it",
        _CODEC,
        "        if self._is_found:\n",
        "        if False:\n",
        ("tests/unit/raft/test_codec.py::test_maps_in_a_frame_that_may_have_lists_are_refused_at_the_second_one",),
    ),
    Bug(
        "results by the number of an entry alone",
        "an entry of another leader under that number ends the process, or tells clients what never happened",
        _NODE,
        "        if waiting and [proposal.command for proposal in waiting] != commands:\n",
        "        if False:\n",
        (_T_GUARD,),
    ),
    Bug(
        "parts of a snapshot pile up",
        "questions of a few bytes fill the memory of whoever is asked",
        _NODE,
        "                if peer in self.core.members and self.pending_bytes(peer) <= SEND_WINDOW_BYTES:\n",
        "                if peer in self.core.members:\n",
        (f"{_T_HOSTILE}::test_parts_of_a_snapshot_that_are_not_read_are_not_piled_up",),
    ),
    Bug(
        "a snapshot over what is committed",
        "a snapshot that contradicts the log takes its place, and acknowledged entries are gone",
        _NODE,
        "        if snapshot.log_index <= self.core.commit_index or snapshot.term > self.core.term:\n",
        "        if False:\n",
        (f"{_T_HOSTILE}::test_snapshot_that_contradicts_what_is_committed_is_refused",),
    ),
)
