"""Snapshots from anywhere: what their reader takes up, and whom they make the mesh trust."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ARCHIVE: Final = "cluster/backup/archive.py"
_BOUNDS: Final = "cluster/base/bounds.py"
_FILE: Final = "cluster/backup/file.py"
_RESTORE: Final = "cluster/backup/restore.py"
_TRUST: Final = "cluster/backup/trust.py"

_JOURNAL: Final = "cluster/raft/journal.py"
_NODE: Final = "cluster/raft/node.py"
_SNAPSHOT: Final = "cluster/raft/snapshot.py"
_DISK_KEY: Final = "cluster/seal/disk_key.py"

_T_ARCHIVE: Final = "tests/parts/backup/test_archive.py"
_T_TRUST: Final = "tests/parts/backup/test_trust.py"
_T_RESTORE: Final = "tests/parts/backup/test_restore.py"
_T_AFTER: Final = f"{_T_ARCHIVE}::test_what_follows_the_end_is_refused"
_T_MACS: Final = "tests/unit/raft/test_macs.py"
_T_DISK_KEY: Final = "tests/unit/seal/test_disk_key.py"
_T_PREVIOUS: Final = "tests/parts/raft/test_previous_data.py"
_T_CHANGED: Final = f"{_T_MACS}::test_changed_journal_is_refused_with_its_name"
_T_MEMORY: Final = f"{_T_ARCHIVE}::test_nothing_takes_up_what_it_announces"

BUGS: Final = (
    Bug(
        "any header in an archive",
        "a header of pax or GNU is obeyed: it is read whole, or names another member",
        _ARCHIVE,
        "    if not expected or not size or not _is_header(block, expected):\n",
        "    if not expected or not size:\n",
        (f"{_T_ARCHIVE}::test_each_bit_of_a_header_counts",),
    ),
    Bug(
        "members of any size",
        "a small file fills the memory of the node that restores it",
        _ARCHIVE,
        "    if (found := int(size[1], 8)) > rule.max_bytes:\n",
        "    if (found := int(size[1], 8)) < 0:\n",
        (f"{_T_RESTORE}::test_parts_that_are_too_large_and_what_follows_the_end_are_refused",),
    ),
    Bug(
        "anything may follow the end of the archive",
        "gigabytes are inflated to find that they do not belong there",
        _ARCHIVE,
        "    if any(inflated.exactly(zeros)) or inflated.read(1):\n",
        "    if any(inflated.exactly(zeros)):\n",
        (_T_AFTER, f"{_T_ARCHIVE}::test_what_follows_the_end_is_refused_before_it_is_inflated"),
    ),
    Bug(
        "anything may follow the end of the compression",
        "two files that were joined by mistake count as the first one",
        _ARCHIVE,
        "        if len(end) > _GZIP_END.size:\n",
        "        if False:\n",
        (_T_AFTER,),
    ),
    Bug(
        "values as large as they say",
        "4 KB of a state make a decoder reserve gigabytes",
        _FILE,
        "        check_value(data, max_items=_MAX_STATE_VALUES, max_depth=_MAX_DEPTH)\n        return load_state",
        "        return load_state",
        (_T_MEMORY,),
    ),
    Bug(
        "lists as long as they say",
        "4 KB of a record of certificates make a decoder reserve gigabytes",
        _FILE,
        "        max_array_len=0,\n",
        "",
        (_T_MEMORY,),
    ),
    Bug(
        "a list longer than what follows",
        "4 KB of a state make a decoder reserve gigabytes",
        _BOUNDS,
        "        if count > len(data) - position:\n",
        "        if False:\n",
        (f"{_T_ARCHIVE}::test_value_that_is_not_modest_is_refused",),
    ),
    Bug(
        "the MAC of a snapshot is not compared",
        "who can write backups adds a root, and all nodes trust it after the next restore",
        _RESTORE,
        "    if mac and not is_authentic:\n",
        "    if False:\n",
        (f"{_T_TRUST}::test_root_added_with_sums_made_anew_is_refused_even_by_force",),
    ),
    Bug(
        "snapshots without a MAC are taken",
        "who can write backups takes the MAC away and adds a root",
        _TRUST,
        "        if not self.is_authentic:\n",
        "        if False:\n",
        (f"{_T_TRUST}::test_file_whose_mac_was_taken_away_is_refused_and_says_what_it_would_add",),
    ),
    Bug(
        "trust comes back unnoticed",
        "an old backup brings back a root that was taken away because its key was stolen",
        _TRUST,
        "        if self.is_same_trust_domain and self.roots:\n",
        "        if False:\n",
        (f"{_T_TRUST}::test_root_that_was_taken_away_comes_back_only_by_force",),
    ),
    # -- a node's own files
    Bug(
        "the MAC of the journal is not compared",
        "who can write to the data directory changes an entry, and the node applies it",
        _JOURNAL,
        "        if not follows or not is_same(mac, self._macs.group(previous, segment.seq, (records,))):\n",
        "        if not follows:\n",
        (_T_CHANGED,),
    ),
    Bug(
        "the order of groups in the journal is nobody's business",
        "a group is left out: a vote or an acknowledged entry is forgotten",
        _JOURNAL,
        "        follows = self._last_mac is None or is_same(previous, self._last_mac)\n",
        "        follows = True\n",
        (f"{_T_MACS}::test_end_of_an_older_segment_cannot_be_left_out",),
    ),
    Bug(
        "groups without a MAC are taken",
        "who can write to the data directory takes the MACs away and changes an entry",
        _JOURNAL,
        "            if self._macs.is_required:\n",
        "            if False:\n",
        (_T_CHANGED,),
    ),
    Bug(
        "records after the last group are kept",
        "who can write to the data directory appends an entry, and the node gives it its own MAC",
        _JOURNAL,
        "        elif is_newest:\n            offset = synced_end\n",
        "        else:\n            self._apply_all(waiting, segment)\n",
        (f"{_T_MACS}::test_whole_records_after_the_last_group_are_nobodys_and_are_cut_off",),
    ),
    Bug(
        "the MAC of Raft's snapshot is not compared",
        "who can write to the data directory adds a root to the snapshot, and the node trusts it",
        _SNAPSHOT,
        "        if not any(is_same(mac, known) for known in self._known_macs()):\n",
        "        if not self._known_macs():\n",
        (f"{_T_MACS}::test_changed_snapshot_is_refused_with_its_name",),
    ),
    Bug(
        "a snapshot without a MAC is taken",
        "who can write to the data directory removes the file of MACs and adds a root to the snapshot",
        _SNAPSHOT,
        "            if macs.is_required:\n",
        "            if False:\n",
        (f"{_T_MACS}::test_snapshot_without_a_mac_or_with_that_of_another_node_is_refused",),
    ),
    Bug(
        "only the new snapshot has a MAC",
        "a crash between the two files leaves a node that does not start",
        _SNAPSHOT,
        '        known = b"".join((_MACS_MAGIC, self._mac or b"", mac))\n',
        '        known = b"".join((_MACS_MAGIC, mac))\n',
        (f"{_T_MACS}::test_crash_at_every_operation_leaves_the_old_or_the_new_one_with_its_mac",),
    ),
    Bug(
        "files of the release before are not written anew",
        "the node does not start a second time, because what it took the first time has no MAC",
        _NODE,
        "        if self.journal.lacks_macs:\n",
        "        if False:\n",
        (f"{_T_MACS}::test_node_of_the_release_before_is_taken_once_and_marked",),
    ),
    Bug(
        "MACs are required before they are there",
        "a crash in the first start after an upgrade leaves a node that does not start",
        _NODE,
        "        if self.journal.lacks_macs:\n            self.journal.rewrite()\n",
        "        macs.established()\n        if self.journal.lacks_macs:\n            self.journal.rewrite()\n",
        (f"{_T_MACS}::test_crash_while_macs_are_added_leaves_a_node_that_starts_again",),
    ),
    Bug(
        "files may lack MACs for ever",
        "files put back as they were before MACs, with a root added, are taken again",
        _DISK_KEY,
        "        if not accepts_without or not found.is_required:\n            return found\n",
        "        if not accepts_without:\n            return DiskKey(found.key, is_required=False)\n",
        (f"{_T_PREVIOUS}::test_files_put_back_as_they_were_before_macs_are_refused",),
    ),
    Bug(
        "MACs are never always required",
        "who can write to the data directory removes the key of MACs too, and all is taken for the release before's",
        _DISK_KEY,
        "            if has_files and always_requires and not accepts_without:\n",
        "            if False:\n",
        (f"{_T_DISK_KEY}::test_where_macs_are_always_required_removing_the_key_is_no_way_around_them",),
    ),
    Bug(
        "a key of MACs for every node",
        "files of one node are taken by another, which forgets its votes",
        _DISK_KEY,
        "        self._context = _CONTEXT + node_name.encode()\n",
        "        self._context = _CONTEXT\n",
        (f"{_T_DISK_KEY}::test_key_that_was_changed_or_is_of_another_node_is_refused",),
    ),
    Bug(
        "the key of MACs does not follow the seal",
        "after a change of the seal key a node cannot start any more",
        _DISK_KEY,
        "        self._write(self._held or self._unwrapped(facts), *self._kek_of(wanted))\n",
        "",
        (f"{_T_DISK_KEY}::test_key_follows_the_clusters_seal",),
    ),
)
