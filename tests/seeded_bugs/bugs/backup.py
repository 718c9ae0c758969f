"""Snapshots for keeping: which files are taken for one, and what is looked at before anything is restored."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_BACKUP: Final = "cluster/backup/file.py"
_SNAPSHOTS: Final = "cluster/backup/restore.py"

_T_SNAPSHOTS: Final = "tests/parts/backup/test_restore.py"
_T_OTHER_KEY: Final = f"{_T_SNAPSHOTS}::test_another_seal_key_is_refused_and_nothing_changes"

BUGS: Final = (
    Bug(
        "no checksums of snapshots for keeping",
        "a damaged file is restored: a root with another certificate, or records of what was never issued",
        _BACKUP,
        "        if own != written:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOTS}::test_damage_inside_the_compression_is_refused",),
    ),
    Bug(
        "files of any format",
        "what a newer version has written is guessed at",
        _BACKUP,
        "    if type(found) is not int or found != FORMAT:\n",
        "    if found is None:\n",
        (f"{_T_SNAPSHOTS}::test_file_of_another_format_is_refused_and_not_guessed_at",),
    ),
    Bug(
        "any number of certificates",
        "a file whose record was cut off restores a CA that does not know what it has issued",
        _BACKUP,
        "        if count != self.meta.certificates:\n",
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
        ("tests/parts/backup/test_archive.py::test_nothing_takes_up_what_it_announces",),
    ),
    # -- restoring
    Bug(
        "the seal is looked at by the leader alone",
        "thousands of records of another CA are there before the snapshot is refused",
        _SNAPSHOTS,
        "        sealer = await asyncio.to_thread(check_seal, self._sealer, saved.state)\n",
        "        sealer = self._sealer\n",
        (_T_OTHER_KEY,),
    ),
    Bug(
        "the seal is looked at by the node that was asked alone",
        "a leader with another key commits a CA whose keys it cannot open: nothing is signed any more",
        _SNAPSHOTS,
        "        sealer = await asyncio.to_thread(check_seal, self._parts.sealer, saved)\n",
        "        sealer = self._parts.sealer\n",
        (f"{_T_SNAPSHOTS}::test_leader_looks_at_the_seal_itself",),
    ),
    Bug(
        "a CA that is not there yet is saved",
        "an operator has a backup of nothing",
        _SNAPSHOTS,
        "        if state.seal is None or state.config is None or root is None:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOTS}::test_before_there_is_a_ca_there_is_nothing_to_save",),
    ),
)
