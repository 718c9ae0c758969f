"""What may be recorded of a certificate, and that all of it can be copied, saved and restored."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_LEDGER: Final = "fsm/ledger.py"
_MACHINE: Final = "cluster/raft/machine.py"

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
)
