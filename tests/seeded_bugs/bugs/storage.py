"""What a node keeps on its disk: the journal, snapshots, and what is told before it is durable."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CORE: Final = "cluster/raft/core.py"
_NODE: Final = "cluster/raft/node.py"
_JOURNAL: Final = "cluster/raft/journal.py"
_DISK: Final = "cluster/raft/disk.py"
_SNAPSHOT: Final = "cluster/raft/snapshot.py"

_CRASH: Final = "tests/crash/test_crash_points.py"
_T_JOURNAL: Final = "tests/unit/raft/test_journal.py"
_T_SNAPSHOT: Final = "tests/unit/raft/test_snapshot.py"
_T_GUARD: Final = "tests/unit/raft/test_guard.py"
_T_NODE: Final = "tests/unit/raft/test_node.py"

BUGS: Final = (
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
        "        self._disk.sync_directory(os.path.dirname(self._path))\n        data = ",
        "        data = ",
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
        '        raise JournalFailed(f"{what}: {plain(error)}") from error',
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
    Bug(
        "a snapshot without its log gets a new one",
        "a node whose log is gone has a full vote; what only it and one that is down had acknowledged is lost",
        _JOURNAL,
        "            if was_there:\n",
        "            if False:\n",
        (f"{_T_NODE}::test_snapshot_without_its_log_is_refused_and_still_is_at_the_next_start",),
    ),
)
