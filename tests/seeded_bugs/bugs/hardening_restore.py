"""Restores and the seal: who may have one made, what stays as it is, and what of a node's files is its own."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RESEAL: Final = "cluster/node/reseal.py"
_RESTORE: Final = "cluster/backup/restore.py"
_SEALER: Final = "cluster/seal/sealer.py"

_T_SEAL: Final = "tests/unit/seal/test_seal.py"
_T_SEALS: Final = "tests/parts/node/test_seals.py"
_T_RESEAL: Final = "tests/parts/backup/test_reseal.py"

BUGS: Final = (
    Bug(
        "a data key that changes part by part",
        "a snapshot is saved with the MAC of one data key and the secrets of another, and is refused when it is needed",
        _SEALER,
        "        self._held = _DataKey.of(seal, data_key)\n",
        "        held = self._held\n"
        "        if held is not None:\n"
        "            self._held = _DataKey(seal, AESGCM(data_key), held.mac_key, held.draw_key)\n"
        "        self._held = _DataKey.of(seal, data_key)\n",
        (f"{_T_SEAL}::test_data_key_changes_in_one_step",),
    ),
    Bug(
        "a change of the seal key waits for servers in its turn",
        "one dead server holds up every change of the CA, a distrust among them, for as long as somebody asks",
        _RESEAL,
        "        await self._require_key_everywhere(asked, seal)\n"
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=False):\n',
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=False):\n'
        "            await self._require_key_everywhere(asked, seal)\n",
        (f"{_T_SEALS}::test_other_changes_do_not_wait_for_a_server_that_does_not_answer",),
    ),
    Bug(
        "a change of the seal key queues as the CA's own work does",
        "whoever asks over and over fills a queue without a bound",
        _RESEAL,
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=False):\n',
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=True):\n',
        (f"{_T_SEALS}::test_change_waits_its_turn_as_long_as_an_operators_and_seals_what_is_there_then",),
    ),
    Bug(
        "a server that joins while others are asked for the next key",
        "it cannot open what was committed, and ends",
        _RESEAL,
        "            self._require_asked(asked)\n",
        "",
        (f"{_T_SEALS}::test_server_that_joins_while_the_others_are_asked_is_not_left_without_the_key",),
    ),
    Bug(
        "a snapshot brings its data key with it",
        "a data key that was changed because it was stolen opens the CA's keys again, those to come among them",
        _RESTORE,
        "        return replace(saved, seal=state.seal, providers=providers)\n",
        "        return saved\n",
        (f"{_T_RESEAL}::test_data_key_of_before_does_not_come_back_with_a_snapshot",),
    ),
    Bug(
        "what a snapshot holds stays sealed with its own data key",
        "nobody can open the CA's keys any more",
        _RESTORE,
        "        return replace(saved, seal=state.seal, providers=providers)\n",
        "        return replace(saved, seal=state.seal)\n",
        (f"{_T_RESEAL}::test_change_of_the_data_key_after_a_restore_is_one",),
    ),
)
