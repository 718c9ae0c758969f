"""The state machine at work, and the ledger of issued certificates."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_MACHINE: Final = "cluster/raft/machine.py"
_LEDGER: Final = "fsm/ledger.py"

_CRASH: Final = "tests/crash/test_crash_points.py"
_T_MACHINE: Final = "tests/unit/raft/test_machine.py"
_T_LEDGER: Final = "tests/unit/fsm/test_ledger.py"
_T_FUZZ: Final = "tests/fuzz/test_fuzz.py"

BUGS: Final = (
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
        "isinstance(result, Applied) and not self._is_recorded(log_index):",
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
        _LEDGER,
        "        if type(value) is int and not least <= value <= MAX_INT64:\n",
        "        if False:\n",
        (_T_MACHINE, f"{_T_FUZZ}::test_kept_inputs_are_understood_or_refused"),
    ),
)
