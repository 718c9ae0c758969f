"""What a server that says it leads can send to one that lags."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ADMISSION: Final = "cluster/raft/admission.py"
_CATCHUP: Final = "cluster/raft/catchup.py"
_CODEC: Final = "cluster/raft/codec.py"
_LEDGER: Final = "fsm/ledger.py"
_LOG: Final = "cluster/base/log.py"
_MACHINE: Final = "cluster/raft/machine.py"
_REPLICA: Final = "cluster/raft/replica.py"
_SNAPSHOT: Final = "cluster/raft/snapshot.py"
_UPKEEP: Final = "cluster/node/upkeep.py"

_T_HOSTILE: Final = "tests/unit/raft/test_hostile_member.py"
_T_LEDGER: Final = "tests/unit/fsm/test_ledger.py::test_copy_that_was_cut_short_is_taken_back"
_T_MACHINE: Final = "tests/unit/raft/test_machine.py"
_T_SNAPSHOT: Final = "tests/unit/raft/test_snapshot.py"

_T_GOES_ON: Final = f"{_T_MACHINE}::test_log_that_goes_on_has_nothing_of_a_copy_that_was_not_finished"
_T_INSTALLED: Final = f"{_T_MACHINE}::test_installed_snapshot_takes_back_what_the_ledger_says_it_has_applied"
_T_PLACE: Final = f"{_T_MACHINE}::test_row_that_is_not_between_the_ledger_and_the_snapshot_is_refused"
_T_PART: Final = f"{_T_MACHINE}::test_part_that_is_refused_takes_up_little_more_than_itself"
_T_STATE: Final = f"{_T_MACHINE}::test_state_that_is_refused_takes_up_little_more_than_itself"

BUGS: Final = (
    Bug(
        "rows of a copy count as applied",
        "one row from another server has a node pass over every certificate to come, after restarts too",
        _MACHINE,
        "        self._ledger.commit(self._ledger.applied_log_index)\n        self._parts += 1\n",
        "        self._ledger.commit(rows[-1][11])\n        self._parts += 1\n",
        (_T_GOES_ON,),
    ),
    Bug(
        "an unfinished copy stays when the log goes on",
        "certificates are taken for duplicates of rows that one server made up",
        _MACHINE,
        "        self._drop_unfinished_copy(log_index)\n",
        "",
        (_T_GOES_ON,),
    ),
    Bug(
        "an unfinished copy is dropped while the log is read again",
        "rows that the ledger has rightly go, and do not come back",
        _MACHINE,
        "        if log_index > self._ledger.applied_log_index and self._ledger.last_id > self._state.leaf_index:\n",
        "        if self._ledger.last_id > self._state.leaf_index:\n",
        (_T_MACHINE,),
    ),
    Bug(
        "the ledger is believed about what it has",
        "a ledger that was made to say so misses certificates",
        _MACHINE,
        " and self._state.leaf_index <= self._ledger.last_id\n",
        "\n",
        (f"{_T_MACHINE}::test_ledger_that_says_it_has_an_entry_and_has_not_takes_it",),
    ),
    Bug(
        "an installed snapshot leaves the applied index as it is",
        "a good snapshot does not mend a ledger that passes over entries",
        _MACHINE,
        "        self._ledger.cut_to(installed.leaf_index, log_index)\n",
        "        self._ledger.cut_to(installed.leaf_index, self._ledger.applied_log_index)\n",
        (_T_INSTALLED,),
    ),
    Bug(
        "rows above the snapshot",
        "a copy has rows that no snapshot stands on",
        _MACHINE,
        "            if row[0] > leaf_index:\n",
        "            if False:\n",
        (_T_PLACE,),
    ),
    Bug(
        "rows of any log entry",
        "the record of a node says of certificates that they are of entries to come",
        _MACHINE,
        "            if not before <= row[11] <= log_index:\n",
        "            if False:\n",
        (_T_PLACE,),
    ),
    Bug(
        "a copy is built on what another server has sent",
        "rows that one server made up come with the next one's good snapshot",
        _CATCHUP,
        "                self._bulk.bulk_restart(self._applied_index())\n",
        "                pass\n",
        (f"{_T_HOSTILE}::test_copy_is_not_built_on_what_another_server_has_sent",),
    ),
    Bug(
        "a copy that goes further than the snapshot is built on",
        "one row of far away, and the next good snapshot leaves a hole in the record",
        _MACHINE,
        "        if self._ledger.last_id > self._leaf_index_of(state):\n",
        "        if False:\n",
        (f"{_T_HOSTILE}::test_honest_snapshot_mends_a_ledger_that_says_anything",),
    ),
    Bug(
        "a part that does not fit is asked for again and again",
        "a ledger that was made to say too much is never brought up to date",
        _CATCHUP,
        "            self._bulk.bulk_restart(self._applied_index())\n            self._give_up(",
        "            self._give_up(",
        (f"{_T_HOSTILE}::test_honest_snapshot_mends_a_ledger_that_says_anything",),
    ),
    Bug(
        "rows that are taken back stay in the digest",
        "a node's record differs from the others', or looks damaged",
        _LEDGER,
        "        while self._delete(self._rows_above(last_id)):\n            pass\n",
        '        self._db.execute("DELETE FROM cert WHERE id > ?", (last_id,))\n',
        (_T_LEDGER,),
    ),
    Bug(
        "a ledger that passes over entries is not found",
        "a node misses certificates, and nobody is told",
        _REPLICA,
        "    if status.leader_id is None or ledger.applied_log_index <= known:\n",
        "    if True:\n",
        (f"{_T_HOSTILE}::test_ledger_that_says_more_than_the_log_has_is_found",),
    ),
    Bug(
        "the scrub does not ask how far the ledger says it is",
        "as above",
        _UPKEEP,
        " or await self._replica.ledger_excess()\n",
        "\n",
        ("tests/unit/node/test_upkeep.py::test_scrub_reports_what_is_damaged",),
    ),
    Bug(
        "one map may fill a frame",
        "one frame of a member takes half a GiB",
        _CODEC,
        "object_hook=_OneMap(), max_map_len=_MAX_FIELDS, **bounds",
        "object_hook=_OneMap(), **bounds",
        ("tests/unit/raft/test_codec.py::test_one_map_as_wide_as_the_frame_is_refused_before_it_is_made",),
    ),
    Bug(
        "lists in ledger rows",
        "one part of ledger rows takes seventy times its size",
        _MACHINE,
        "max_array_len=0, max_map_len=0, max_ext_len=0)\n",
        "max_ext_len=0)\n",
        (_T_PART,),
    ),
    Bug(
        "any number of ledger rows in a part",
        "as above, of rows of nothing",
        _MACHINE,
        "        if count > _MAX_PART_ROWS:\n",
        "        if False:\n",
        (_T_PART,),
    ),
    Bug(
        "a state is decoded before it is looked at",
        "a snapshot of a member takes sixty times its size, or ends in the depth of its lists",
        _MACHINE,
        "        check_value(data, max_items=_MAX_STATE_VALUES, max_depth=_MAX_STATE_DEPTH)\n",
        "        pass\n",
        (_T_STATE,),
    ),
    Bug(
        "a snapshot's head is decoded before it is looked at",
        "as above",
        _SNAPSHOT,
        "        check_value(data[start : start + head_length],",
        "        (lambda *_, **__: None)(data[start : start + head_length],",
        (f"{_T_SNAPSHOT}::test_head_that_is_refused_takes_up_little_more_than_itself",),
    ),
    Bug(
        "a snapshot's head of any size",
        "what one server sends is gone through for as long as it likes",
        _SNAPSHOT,
        "    if head_length > MAX_HEAD_BYTES:\n",
        "    if False:\n",
        (f"{_T_SNAPSHOT}::test_head_longer_than_any_is_refused_by_its_length",),
    ),
    Bug(
        "a snapshot of any size is gathered",
        "a server that says it leads fills the memory of the others, part by part",
        _CATCHUP,
        ' or message["total"] > MAX_STATE_BYTES + MAX_HEAD_BYTES:\n',
        ":\n",
        (f"{_T_HOSTILE}::test_snapshot_larger_than_any_is_given_up_at_its_first_part",),
    ),
    Bug(
        "what a server repeats is told each time",
        "a member fills the disk with log lines, one for each frame",
        _LOG,
        "        if now - self._said.get((event, cause), -_PAUSE_SECONDS) >= _PAUSE_SECONDS:\n",
        "        if True:\n",
        (f"{_T_HOSTILE}::test_what_a_member_repeats_is_told_once_a_second",),
    ),
    Bug(
        "the word of a server is told each time",
        "as above",
        _ADMISSION,
        "        self._log = Seldom(log, clock)\n",
        "        self._log = lambda event, _cause, **fields: log(event, **fields)\n",
        ("tests/unit/raft/test_admission.py::test_word_that_a_server_repeats_is_told_once_a_second",),
    ),
)
