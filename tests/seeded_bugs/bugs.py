"""Protections that can be taken away one at a time by a change of text, and the tests that must notice.

The old text must be in its file exactly once, so a change of the code that moves a protection shows here.
"""

from dataclasses import dataclass
from typing import Final

_GUARD: Final = "cluster/raft/guard.py"
_CORE: Final = "cluster/raft/core.py"
_NODE: Final = "cluster/raft/node.py"
_JOURNAL: Final = "cluster/raft/journal.py"
_DISK: Final = "cluster/raft/disk.py"
_SNAPSHOT: Final = "cluster/raft/snapshot.py"
_READS: Final = "cluster/raft/reads.py"
_MACHINE: Final = "cluster/raft/machine.py"
_TRANSPORT: Final = "cluster/raft/transport.py"
_LEDGER: Final = "fsm/ledger.py"
_APPLY: Final = "fsm/apply.py"
_CA_RULES: Final = "fsm/ca_rules.py"

_CRASH: Final = "tests/crash/test_crash_points.py"
_T_JOURNAL: Final = "tests/unit/raft/test_journal.py"
_T_SNAPSHOT: Final = "tests/unit/raft/test_snapshot.py"
_T_GUARD: Final = "tests/unit/raft/test_guard.py"
_T_NODE: Final = "tests/unit/raft/test_node.py"
_T_READS: Final = "tests/unit/raft/test_reads.py"
_T_MACHINE: Final = "tests/unit/raft/test_machine.py"
_T_TRANSPORT: Final = "tests/unit/raft/test_transport.py"
_T_LEDGER: Final = "tests/unit/fsm/test_ledger.py"
_T_APPLY: Final = "tests/unit/fsm/test_apply.py"
_T_RULES: Final = "tests/unit/fsm/test_rules.py"
_T_CHANGES: Final = "tests/unit/raft/test_changes.py"
_T_SIGNING: Final = "tests/unit/cluster_core/test_signing.py"
_T_FORWARD: Final = "tests/unit/cluster_core/test_forward.py"
_T_ROTATION: Final = "tests/unit/fsm/test_rotation.py"


@dataclass(frozen=True, slots=True)
class Bug:
    """`name` says what is missing; `consequence` what it would do to a cluster."""

    name: str
    consequence: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BUGS: Final = (
    # -- stable storage
    Bug(
        "no fsync of a journal group",
        "a vote or an acknowledged entry is gone after a power cut",
        _JOURNAL,
        "        file.write(data)\n        file.sync()\n",
        "        file.write(data)\n",
        (_T_JOURNAL, _CRASH),
    ),
    Bug(
        "answers leave before the fsync",
        "a vote that was told is forgotten: two leaders in a term",
        _NODE,
        'if all(message["type"] in _BEFORE_SYNC for message in messages):',
        "if True:",
        (_T_GUARD, _CRASH),
    ),
    Bug(
        "a new leader does not sync its first entry",
        "it counts its own copy of an entry that it may lose",
        _CORE,
        "        self._journal.sync()\n\n    def _SyncObj__doApplyCommand",
        "\n    def _SyncObj__doApplyCommand",
        (_T_NODE,),
    ),
    Bug(
        "term and vote are not written",
        "a restarted node votes a second time in a term",
        _JOURNAL,
        "            self._term, self._vote = term, vote\n            self._add(_Kind.STATE, self._state_payload())\n",
        "            self._term, self._vote = term, vote\n",
        (_T_JOURNAL, _CRASH),
    ),
    Bug(
        "no directory fsync for a new segment",
        "a power cut takes a whole segment of acknowledged entries",
        _JOURNAL,
        "        self._write_head(file)\n        self._disk.sync_directory(self._directory)\n        # From",
        "        self._write_head(file)\n        # From",
        (_CRASH,),
    ),
    Bug(
        "no directory fsync behind a rename",
        "the snapshot that the log was compacted to is gone after a power cut",
        _DISK,
        "    disk.rename(temporary, path)\n    disk.sync_directory(os.path.dirname(path))\n",
        "    disk.rename(temporary, path)\n",
        (_T_SNAPSHOT, _CRASH),
    ),
    Bug(
        "no fsync before a rename",
        "an empty or torn file takes the place of a whole one",
        _DISK,
        "        file.sync()\n    finally:\n        file.close()\n    disk.rename",
        "    finally:\n        file.close()\n    disk.rename",
        (_T_SNAPSHOT, _CRASH),
    ),
    Bug(
        "no fsync of the data directory's own name",
        "the first power cut takes the whole directory",
        _NODE,
        "            env.disk.sync_directory(os.path.dirname(env.directory))\n",
        "            pass\n",
        (_CRASH,),
    ),
    Bug(
        "segments are removed without a sync between them",
        "removals reach the disk in another order and leave a gap: the node does not start",
        _JOURNAL,
        "        self._disk.unlink(self._segments.pop(0).path)\n"
        "        # One by one: a power cut must not leave a gap, and file systems may reorder removals.\n"
        "        self._disk.sync_directory(self._directory)\n",
        "        self._disk.unlink(self._segments.pop(0).path)\n",
        (_T_JOURNAL,),
    ),
    Bug(
        "what recovery read is not synced",
        "entries seen and acknowledged after a kill are gone after the power cut that follows",
        _JOURNAL,
        "        file.sync()\n        self._disk.sync_directory(self._directory)\n        if newest",
        "        if newest",
        (_T_JOURNAL, _CRASH),
    ),
    Bug(
        "a snapshot that was seen is not made durable",
        "killed between rename and sync, it is gone after the power cut that follows",
        _SNAPSHOT,
        "        self._disk.sync_directory(os.path.dirname(self._path))\n        try:",
        "        try:",
        (_T_SNAPSHOT,),
    ),
    Bug(
        "a lost segment is not noticed",
        "the log ends early: votes and acknowledged entries are forgotten",
        _JOURNAL,
        "        if newest is not None and (not seqs or not newest <= seqs[-1] <= newest + 1):\n",
        "        if False:\n",
        (_T_JOURNAL,),
    ),
    Bug(
        "a rewritten log begins with a reset",
        "a power cut while damage is healed loses acknowledged entries",
        _JOURNAL,
        '        self._add(_Kind.COPY_START, b"")\n'
        "        for entry in self._entries:\n"
        "            self._add(_Kind.COPY,",
        "        for entry in self._entries:\n"
        "            is_first = entry is self._entries[0]\n"
        "            self._add(_Kind.RESET if is_first else _Kind.ENTRY,",
        (_T_JOURNAL, _CRASH),
    ),
    Bug(
        "a failed fsync is passed over",
        "the node goes on without knowing what is on its disk (fsync reports an error once)",
        _JOURNAL,
        '        raise JournalFailed(f"{what}: {error}") from error',
        "        del error",
        (f"{_T_JOURNAL}::test_failing_sync_stops_and_says_where",),
    ),
    Bug(
        "no checksum of journal records",
        "a damaged entry is applied, and nodes differ",
        _JOURNAL,
        "if len(payload) < length or zlib.crc32(payload) != payload_check:",
        "if len(payload) < length:",
        (_T_JOURNAL,),
    ),
    Bug(
        "no checksum of record headers",
        "a record in another place, or with another type, is taken for the right one",
        _JOURNAL,
        "    if zlib.crc32(_PLACE.pack(seq, offset) + head) != header_check or length > MAX_RECORD_BYTES:",
        "    if length > MAX_RECORD_BYTES:",
        (_T_JOURNAL,),
    ),
    Bug(
        "any damage at the end counts as a torn write",
        "damage shortens the log silently: acknowledged entries and votes are forgotten",
        _JOURNAL,
        "    if offset + _HEADER.size > len(data):\n        return True\n    length, _, _, header_check",
        "    return True\n    length, _, _, header_check",
        (_T_JOURNAL,),
    ),
    Bug(
        "a torn write counts as damage",
        "a node does not start after an ordinary power cut",
        _JOURNAL,
        "                if is_newest and _can_be_torn(data, offset, segment.seq, synced_end):\n",
        "                if False:\n",
        (_T_JOURNAL, _CRASH),
    ),
    Bug(
        "no checksum of snapshots",
        "a damaged state is loaded and served",
        _SNAPSHOT,
        "    if zlib.crc32(data[: -_CHECK.size]) != _CHECK.unpack(data[-_CHECK.size :])[0]:",
        "    if False:",
        (_T_SNAPSHOT,),
    ),
    # -- consensus
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
        '            self._send(peer, {"type": "term_notice", "term": core.term})\n            return None\n'
        '        if message["term"] == core.term and core.is_leader:',
        '            return None\n        if message["term"] == core.term and core.is_leader:',
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
        "                if length > MAX_FRAME_BYTES:\n",
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
    # -- state machine and ledger
    Bug(
        "the ledger is not durable before the snapshot",
        "a compacted node has a snapshot without the certificates it stands on: it does not start",
        _MACHINE,
        "                if _make_durable(self._ledger_path) <= _FEW_PAGES:\n",
        "                if True:\n",
        (_T_MACHINE, _CRASH),
    ),
    Bug(
        "the ledger is not durable before an installed snapshot",
        "as above, on a node that was brought up to date",
        _MACHINE,
        "        _make_durable(self._ledger_path)\n        self.state = self._state\n",
        "        self.state = self._state\n",
        (_T_MACHINE, _CRASH),
    ),
    Bug(
        "a ledger that is too short is not noticed",
        "a node serves a ledger with holes",
        _MACHINE,
        "        if self._ledger.last_id < self._state.leaf_index:\n",
        "        if False:\n",
        (_T_MACHINE,),
    ),
    Bug(
        "entries are applied to the ledger again",
        "certificates that were tidied away come back on one node",
        _MACHINE,
        "isinstance(result, Applied) and log_index > self._ledger.applied_log_index:",
        "isinstance(result, Applied):",
        (_T_MACHINE,),
    ),
    Bug(
        "the applied index is committed beside the rows",
        "killed in between, an entry is applied twice or never",
        _LEDGER,
        "        self._write_meta(\n            applied_log_index=self._applied_log_index,\n",
        '        self._db.execute("COMMIT")\n        self._db.execute("BEGIN")\n'
        "        self._write_meta(\n            applied_log_index=self._applied_log_index,\n",
        (_CRASH,),
    ),
    Bug(
        "a repeated request is recorded again",
        "a request sent once gets two certificates",
        _LEDGER,
        "CREATE UNIQUE INDEX cert_by_request",
        "CREATE INDEX cert_by_request",
        (_T_LEDGER, _T_MACHINE),
    ),
    Bug(
        "a serial is recorded twice",
        "two certificates with one serial number",
        _LEDGER,
        "  serial BLOB NOT NULL UNIQUE,\n",
        "  serial BLOB NOT NULL,\n",
        (_T_LEDGER, _T_MACHINE),
    ),
    Bug(
        "the scrub looks at the structure of the ledger only",
        "a changed serial or name is served, and copied to other nodes",
        _LEDGER,
        'return self._wrong_rows() if found == "ok" else str(found)',
        'return "" if found == "ok" else str(found)',
        (_T_LEDGER,),
    ),
    Bug(
        "bulk data with any number",
        "a row that SQLite cannot hold stops the node that is brought up to date",
        _MACHINE,
        "    return type(value) in kinds and (type(value) is not int or 0 <= value <= _MAX_INT)\n",
        "    return type(value) in kinds\n",
        (_T_MACHINE, "tests/fuzz/test_fuzz.py::test_kept_inputs_are_understood_or_refused"),
    ),
    Bug(
        "no expected index",
        "a deposed leader's work overwrites the roots of its successor",
        _APPLY,
        "    if expected != current:\n",
        "    if False:\n",
        (_T_APPLY,),
    ),
    Bug(
        "roots and configuration are not changed as one",
        "a root is active whose provider is not configured",
        _CA_RULES,
        "    return replace(_with_roots(state, cmd.roots, cmd.providers), config=config)\n",
        "    return _with_roots(state, cmd.roots, cmd.providers)\n",
        (_T_APPLY,),
    ),
    Bug(
        "two rotations at a time",
        "the second takes the place of the first, whose root is trusted already and never signs",
        _CA_RULES,
        '        return Rejected("rotation_under_way", "another rotation is under way")\n',
        "        pass\n",
        (_T_ROTATION,),
    ),
    Bug(
        "a rotation ends without its configuration",
        "the new root is active while the old provider signs",
        _CA_RULES,
        "    return replace(state, config=_stamped(cmd.config, state.config, index), rotation=None, "
        "last_rotation=cmd.outcome)\n",
        "    return replace(state, rotation=None, last_rotation=cmd.outcome)\n",
        (_T_ROTATION,),
    ),
    Bug(
        "two active roots",
        "nodes sign with different keys",
        _CA_RULES,
        "    if state.roots and sum(root.is_active for root in state.roots) != 1:\n",
        "    if False:\n",
        (_T_APPLY,),
    ),
    Bug(
        "chains are not checked",
        "leaves are served with intermediates that lead to no trusted root",
        _CA_RULES,
        "            if intermediate.issuer_key_id not in linked:\n",
        "            if False:\n",
        (_T_APPLY,),
    ),
    Bug(
        "the trust domain may change",
        "every certificate in the mesh stops matching",
        _CA_RULES,
        "    if before.roots and before.config.cluster_id != after.config.cluster_id:\n",
        "    if False:\n",
        (_T_APPLY,),
    ),
    Bug(
        "an issued certificate counts as a change of the CA",
        "under load every change of the CA is refused, and all workers take the CA into use again and again",
        "fsm/leaf_rules.py",
        "_record_leaves, Area.LEAVES",
        "_record_leaves, Area.CA",
        (_T_APPLY, _T_RULES),
    ),
    Bug(
        "a change is told once only",
        "a blocking query sleeps through every certificate but the first",
        "cluster/raft/changes.py",
        "        self._due.remove(area)\n",
        "",
        (_T_CHANGES,),
    ),
    # -- the way of a request
    Bug(
        "a certificate leaves though its record was refused",
        "a certificate that no node knows of",
        "cluster/signing/pipeline.py",
        '        if isinstance(result, Rejected):\n            raise InternalError(f"certificates could not',
        '        if False:\n            raise InternalError(f"certificates could not',
        (_T_SIGNING,),
    ),
    Bug(
        "a repeated request gets what was signed last",
        "its certificate is another than the one on record",
        "cluster/signing/pipeline.py",
        "            if position not in result.duplicates:\n",
        "            if True:\n",
        (_T_SIGNING,),
    ),
    Bug(
        "a request whose outcome is unknown is sent again",
        "a change of the configuration is made twice, or over somebody else's",
        "cluster/rpc/forward.py",
        "                is_lost = True\n                if not call.is_repeatable:\n                    raise\n",
        "                is_lost = True\n",
        (_T_FORWARD,),
    ),
)
