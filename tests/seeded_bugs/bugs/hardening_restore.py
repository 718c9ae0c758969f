"""Restores and the seal: who may have one made, what stays as it is, and what of a node's files is its own."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_SEALER: Final = "cluster/seal/sealer.py"

_T_SEAL: Final = "tests/unit/seal/test_seal.py"

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
)
