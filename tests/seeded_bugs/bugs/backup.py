"""Snapshots for keeping: which files are taken for one, and what is looked at before anything is restored."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_BACKUP: Final = "cluster/backup/file.py"
_SNAPSHOTS: Final = "cluster/backup/restore.py"

_T_SNAPSHOTS: Final = "tests/parts/backup/test_restore.py"
_T_MISSING: Final = f"{_T_SNAPSHOTS}::test_file_with_a_part_missing_is_refused"
_T_MORE: Final = f"{_T_SNAPSHOTS}::test_file_with_a_part_twice_or_one_more_is_refused"
_T_LARGE: Final = f"{_T_SNAPSHOTS}::test_parts_that_are_too_large_and_what_follows_the_end_are_refused"
_T_OTHER_KEY: Final = f"{_T_SNAPSHOTS}::test_another_seal_key_is_refused_and_nothing_changes"

BUGS: Final = (
    Bug(
        "no checksums of snapshots for keeping",
        "a damaged file is restored: a root with another certificate, or records of what was never issued",
        _BACKUP,
        "        if written.get(name) != digest:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOTS}::test_damage_inside_the_compression_is_refused",),
    ),
    Bug(
        "a part without a checksum",
        "whoever changes a part of the file leaves its line out of the sums",
        _BACKUP,
        "        if written.get(name) != digest:\n",
        "        if written.get(name, digest) != digest:\n",
        (f"{_T_SNAPSHOTS}::test_sums_that_leave_a_part_out_are_refused",),
    ),
    Bug(
        "a file without checksums",
        "a damaged file is restored, because nothing says that it is one",
        _BACKUP,
        "    if meta is None or state is None or not written:\n",
        "    if meta is None or state is None:\n",
        (_T_MISSING,),
    ),
    Bug(
        "a file without a CA",
        "an operator believes that a file is a backup until it is needed",
        _BACKUP,
        "    if meta is None or state is None or not written:\n",
        "    if meta is None or not written:\n",
        (_T_MISSING,),
    ),
    Bug(
        "parts of any name",
        "an archive of something else is taken for a snapshot",
        _BACKUP,
        " or member.name not in (_META, _STATE, _SUMS) or member.name in seen:\n",
        " or member.name in seen:\n",
        (_T_MORE,),
    ),
    Bug(
        "a part twice",
        "one is checked, and the other restored",
        _BACKUP,
        " or member.name not in (_META, _STATE, _SUMS) or member.name in seen:\n",
        " or member.name not in (_META, _STATE, _SUMS):\n",
        (_T_MORE,),
    ),
    Bug(
        "parts of any size",
        "a small file fills the memory of the node that restores it",
        _BACKUP,
        "            if member.size > (_MAX_DATA_BYTES if member.name == _STATE else _MAX_META_BYTES):\n",
        "            if False:\n",
        (_T_LARGE,),
    ),
    Bug(
        "anything may follow the end",
        "two files that were joined by mistake count as the first one",
        _BACKUP,
        "        if rest > _MAX_META_BYTES:\n",
        "        if False:\n",
        (_T_LARGE,),
    ),
    Bug(
        "parts in their usual order only",
        "a file that somebody has looked into, and packed again, cannot be restored",
        _BACKUP,
        "            seen.add(member.name)\n",
        '            seen.add(member.name)\n            assert (member.name == _META) == (len(seen) == 1), "order"\n',
        (f"{_T_SNAPSHOTS}::test_what_a_file_holds_comes_back_in_any_order_of_its_parts",),
    ),
    Bug(
        "files of any format",
        "what a newer version has written is guessed at",
        _BACKUP,
        "    if found != FORMAT:\n",
        "    if found is None:\n",
        (f"{_T_SNAPSHOTS}::test_file_of_another_format_is_refused_and_not_guessed_at",),
    ),
    Bug(
        "any number of certificates",
        "a file whose record was cut off restores a CA that does not know what it has issued",
        _BACKUP,
        "    if count != meta.certificates:\n",
        "    if False:\n",
        (f"{_T_SNAPSHOTS}::test_another_number_of_certificates_than_the_description_says_is_refused",),
    ),
    Bug(
        "fields of any type",
        "a record that cannot be applied stops every node of the cluster",
        _BACKUP,
        '        raise ValueError("fields of a wrong type")\n',
        "        pass\n",
        (f"{_T_SNAPSHOTS}::test_certificate_with_a_field_of_another_type_is_refused",),
    ),
    Bug(
        "a decoder's own error passes through",
        "a damaged file is answered and logged as a fault of the node",
        _BACKUP,
        "    except Exception as error:\n        raise SnapshotInvalid(",
        "    except ZeroDivisionError as error:\n        raise SnapshotInvalid(",
        (f"{_T_SNAPSHOTS}::test_what_is_no_snapshot_is_refused",),
    ),
    # -- restoring
    Bug(
        "the seal is looked at by the leader alone",
        "thousands of records of another CA are there before the snapshot is refused",
        _SNAPSHOTS,
        "        await asyncio.to_thread(check_seal, self._sealer, state)\n",
        "",
        (_T_OTHER_KEY,),
    ),
    Bug(
        "the seal is looked at by the node that was asked alone",
        "a leader with another key commits a CA whose keys it cannot open: nothing is signed any more",
        _SNAPSHOTS,
        "        await asyncio.to_thread(check_seal, self._parts.sealer, saved)\n",
        "",
        (f"{_T_SNAPSHOTS}::test_leader_looks_at_the_seal_itself",),
    ),
    Bug(
        "what is sealed is not opened before it is restored",
        "a CA is restored whose private key is damaged: nothing is signed any more",
        _SNAPSHOTS,
        "        for sealed in saved.providers:\n            opener.record(sealed)\n",
        "",
        (f"{_T_SNAPSHOTS}::test_secret_that_does_not_open_is_refused_though_the_seal_does",),
    ),
    Bug(
        "a CA that is not there yet is saved",
        "an operator has a backup of nothing",
        _SNAPSHOTS,
        "        if state.seal is None or state.config is None:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOTS}::test_before_there_is_a_ca_there_is_nothing_to_save",),
    ),
)
