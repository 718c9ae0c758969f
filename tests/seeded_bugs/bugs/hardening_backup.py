"""Restores: what of a snapshot would change without a word, later or though the restore was refused."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CONTENT: Final = "cluster/backup/content.py"
_RESTORE: Final = "cluster/backup/restore.py"
_RESUMED: Final = "cluster/backup/resumed.py"

_T_RESUMED: Final = "tests/parts/backup/test_resumed.py"
_T_WAITS_ANEW: Final = f"{_T_RESUMED}::test_staged_rotation_waits_anew_for_the_clients_of_this_cluster"

BUGS: Final = (
    # -- roots that come later
    Bug(
        "a rotation is restored before it has a root",
        "its provider makes the root of before again: one that was distrusted is trusted and signs, and nobody is told",
        _RESTORE,
        "            kept = without_rootless(saved, self._parts.unix_now)\n",
        "            kept = saved\n",
        (
            f"{_T_RESUMED}::test_root_that_is_not_made_yet_does_not_come_back_unnamed",
            f"{_T_RESUMED}::test_rotation_without_a_root_is_given_up_as_if_it_had_been_aborted",
        ),
    ),
    Bug(
        "a rotation is given up without a word",
        "an operator waits for a root that does not come",
        _RESTORE,
        "        return (*change.notes(), *given_up(saved.state))\n",
        "        return change.notes()\n",
        (f"{_T_RESUMED}::test_root_that_is_not_made_yet_does_not_come_back_unnamed",),
    ),
    Bug(
        "a snapshot without a root is restored",
        "all roots go, and one comes from a sealed key that nobody was told of",
        _CONTENT,
        '    _require(saved.active_root is not None, "it was saved before there was a root")\n',
        "",
        (f"{_T_RESUMED}::test_snapshot_without_a_root_is_refused",),
    ),
    Bug(
        "a CA without a root is saved",
        "an operator has a backup that no cluster restores",
        _RESTORE,
        "        if state.seal is None or state.config is None or root is None:\n",
        "        if state.seal is None or state.config is None:\n",
        (f"{_T_RESUMED}::test_nothing_is_saved_before_there_is_a_root",),
    ),
    # -- staged rotations
    Bug(
        "a restored rotation counts by the index of the cluster that was saved",
        "all of the snapshot's own certificates count as renewed: the root signs at once, which no client has",
        _RESUMED,
        "        rotation = replace(rotation, phase=RotationPhase.WAIT, published_index=next_index)\n",
        "        rotation = replace(rotation, phase=RotationPhase.WAIT)\n",
        (_T_WAITS_ANEW,),
    ),
    Bug(
        "the time that a restored rotation has waited counts",
        "as above: after a day in a backup it is over",
        _RESUMED,
        "    rotation = replace(rotation, phase_since=now)\n",
        "",
        (_T_WAITS_ANEW,),
    ),
    Bug(
        "a staged rotation that had waited is restored as one that has",
        "as above, though the clients that it had waited for were those of another time",
        _RESUMED,
        "    if rotation.is_staged and rotation.phase in (RotationPhase.WAIT, RotationPhase.ACTIVATE):\n",
        "    if rotation.is_staged and rotation.phase is RotationPhase.WAIT:\n",
        (_T_WAITS_ANEW,),
    ),
)
