"""What may be recorded of a certificate, and that all of it can be copied, saved and restored."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_LEDGER: Final = "fsm/ledger.py"
_MACHINE: Final = "cluster/raft/machine.py"

_FIELDS: Final = "fsm/fields.py"
_BACKUP: Final = "cluster/backup/file.py"
_NODE: Final = "cluster/node/backups.py"
_SNAPSHOT: Final = "cluster/http/routes/snapshot.py"
_ROLES: Final = "providers/vault/roles.py"
_CERTS: Final = "cluster/http/routes/certs.py"

_T_BOUNDS: Final = "tests/unit/fsm/test_bounds.py"
_T_RESTORE: Final = "tests/parts/backup/test_restore.py"
_T_ROWS: Final = "tests/property/fsm/test_rows.py"
_T_VAULT: Final = "tests/parts/providers/vault/test_vault.py"
_T_HTTP: Final = "tests/parts/http/test_resources.py"
_T_LEDGER: Final = "tests/unit/fsm/test_ledger.py"
_T_MACHINE: Final = "tests/unit/raft/test_machine.py"

BUGS: Final = (
    Bug(
        "a copy takes less than there may be on record",
        "one odd certificate, and no server that lags or joins ever gets the record",
        _LEDGER,
        "        least = 0 if name in _COUNTS else MIN_INT64\n",
        "        least = 0\n",
        (f"{_T_MACHINE}::test_certificate_that_is_on_record_is_copied_whatever_it_holds",),
    ),
    Bug(
        "a row of any size is taken from a copy",
        "a server that has taken it can bring no other one up to date",
        _MACHINE,
        "    if (size := values.tell() - began) > _MAX_ROW_BYTES:\n",
        "    if (size := values.tell() - began) < 0:\n",
        (f"{_T_MACHINE}::test_row_larger_than_any_entry_is_refused",),
    ),
    Bug(
        "parts of a copy are bounded by their rows alone",
        "large certificates make a frame that no node takes: one that lags drops the leader again and again",
        _LEDGER,
        "            if len(rows) >= at_least or size >= part_bytes:\n",
        "            if len(rows) >= at_least:\n",
        (f"{_T_LEDGER}::test_part_is_bounded_by_its_bytes_too",),
    ),
    Bug(
        "a part ends with a log entry however large",
        "as above, of one entry with a long issuer",
        _LEDGER,
        " or is_too_large:\n",
        ":\n",
        (
            f"{_T_LEDGER}::test_entry_whose_rows_are_far_larger_than_itself_is_divided",
            f"{_T_MACHINE}::test_parts_fit_into_frames_whatever_the_certificates_hold",
        ),
    ),
    Bug(
        "a part that its bytes have ended is the last",
        "a node that lags takes the beginning of the record for all of it",
        _MACHINE,
        " and len(part) < PART_BYTES\n",
        "\n",
        (f"{_T_MACHINE}::test_parts_fit_into_frames_whatever_the_certificates_hold",),
    ),
    Bug(
        "a page of any size",
        "one request for certificates takes half a GiB of a node",
        _LEDGER,
        "            if size >= PART_BYTES:\n                break\n",
        "",
        (f"{_T_LEDGER}::test_page_of_large_certificates_is_short_and_the_next_one_follows",),
    ),
    Bug(
        "a short page looks like the last one",
        "whoever lists the certificates misses most of them",
        _CERTS,
        " or fills_page(rows) else None",
        " else None",
        (f"{_T_HTTP}::test_page_that_its_certificates_fill_before_the_limit_says_that_there_are_more",),
    ),
    Bug(
        "a certificate of before 1970 is recorded",
        "it is on record for ever, and the release before makes no copy of it",
        _FIELDS,
        "LeafTime = Annotated[int, Within(0, LAST_SECOND)]\n",
        "LeafTime = Time\n",
        (f"{_T_BOUNDS}::test_record_that_no_ledger_or_reader_can_take_is_refused",),
    ),
    Bug(
        "a serial of any form is recorded",
        "a certificate that is on record is not found by its serial",
        _FIELDS,
        "Serial = Annotated[bytes, Length(1, 20), Minimal()]\n",
        "Serial = Annotated[bytes, Length(1, 20)]\n",
        (f"{_T_BOUNDS}::test_record_that_no_ledger_or_reader_can_take_is_refused",),
    ),
    Bug(
        "names are counted in characters",
        "names take four times what they are said to",
        _FIELDS,
        "Uri = Annotated[str, Text(0, 4096, most_bytes=4096)]\n",
        "Uri = Annotated[str, Text(0, 4096)]\n",
        (f"{_T_BOUNDS}::test_record_that_no_ledger_or_reader_can_take_is_refused",),
    ),
    Bug(
        "a snapshot is packed as well as can be",
        "what was saved is refused by the very same release: it takes it for a bomb",
        _BACKUP,
        "            if size <= _room(path):\n",
        "            if True:\n",
        (f"{_T_RESTORE}::test_what_is_saved_is_read_again_however_well_it_packs",),
    ),
    Bug(
        "a state that no reader takes is saved",
        "a backup that opens nothing, which shows when it is needed",
        _BACKUP,
        "        put(_dumped(replace(state, nodes_index=0, nodes=Nodes())))\n",
        "        put(dump_state(replace(state, nodes_index=0, nodes=Nodes())))\n",
        (f"{_T_RESTORE}::test_state_that_no_reader_takes_is_not_saved",),
    ),
    Bug(
        "certificates that no restore takes are saved without a word",
        "as above",
        _BACKUP,
        "            problems.look_at(rows)\n",
        "",
        (f"{_T_ROWS}::test_what_is_on_record_can_be_copied_and_saved_and_what_no_restore_takes_is_named",),
    ),
    Bug(
        "a file larger than a restore takes is saved without a word",
        "as above",
        _BACKUP,
        "    if size > MAX_FILE_BYTES:\n",
        "    if False:\n",
        (f"{_T_RESTORE}::test_file_larger_than_a_restore_takes_is_saved_with_a_warning",),
    ),
    Bug(
        "a snapshot that no restore takes is not logged",
        "as above, for whoever reads the log",
        _NODE,
        "        if meta.not_restorable:\n",
        "        if False:\n",
        ("tests/unit/node/test_backups.py::test_snapshot_that_no_restore_takes_is_logged_with_the_reason",),
    ),
    Bug(
        "a snapshot that no restore takes is sent without the reason",
        "as above, for whoever saves it",
        _SNAPSHOT,
        "        if meta.not_restorable:\n",
        "        if False:\n",
        ("tests/parts/http/test_snapshot.py::test_snapshot_that_no_restore_takes_is_sent_with_the_reason",),
    ),
    Bug(
        "a leaf from Vault begins at any time",
        "it is handed out, and cannot be recorded or is on record for ever with a time that nobody chose",
        _ROLES,
        "    if now - not_before > _MAX_EARLY_SECONDS:\n",
        "    if False:\n",
        (f"{_T_VAULT}::test_leaf_of_a_time_that_nobody_asked_for_is_not_returned",),
    ),
    Bug(
        "a leaf from Vault has any serial",
        "one that cannot be written ends the signing of all that were asked for beside it",
        _ROLES,
        "    if not 0 < cert.serial_number < _SERIALS_END:\n",
        "    if False:\n",
        (f"{_T_VAULT}::test_leaf_with_a_serial_that_no_record_holds_is_not_returned",),
    ),
)
