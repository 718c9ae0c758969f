"""Snapshots from anywhere: what their reader takes up, and whom they make the mesh trust."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ARCHIVE: Final = "cluster/backup/archive.py"
_BOUNDS: Final = "cluster/backup/bounds.py"
_FILE: Final = "cluster/backup/file.py"
_RESTORE: Final = "cluster/backup/restore.py"
_TRUST: Final = "cluster/backup/trust.py"

_T_ARCHIVE: Final = "tests/parts/backup/test_archive.py"
_T_TRUST: Final = "tests/parts/backup/test_trust.py"
_T_RESTORE: Final = "tests/parts/backup/test_restore.py"
_T_OTHERS: Final = f"{_T_ARCHIVE}::test_other_headers_are_refused"
_T_AFTER: Final = f"{_T_ARCHIVE}::test_what_follows_the_end_is_refused"
_T_MEMORY: Final = f"{_T_ARCHIVE}::test_nothing_takes_up_what_it_announces"

BUGS: Final = (
    Bug(
        "any header in an archive",
        "a header of pax or GNU is obeyed: it is read whole, or names another member",
        _ARCHIVE,
        "    if not expected or not size or not _is_header(block, expected):\n",
        "    if not expected or not size:\n",
        (_T_OTHERS,),
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
        "        check_value(data, max_items=_MAX_STATE_VALUES, max_depth=_MAX_DEPTH)\n",
        "",
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
        "    if saved.has_mac and not is_authentic:\n",
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
)
