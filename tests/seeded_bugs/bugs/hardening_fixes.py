"""What an operator is told, and how long somebody waits for it."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_TRUST: Final = "cluster/backup/trust.py"

_T_TRUST: Final = "tests/parts/backup/test_trust.py"

BUGS: Final = (
    Bug(
        "a restore takes trust away without a word",
        "leaves below a root that the snapshot does not know are refused, and nobody knows why",
        _TRUST,
        "        removed=tuple(root for root in now.roots if root.root_pem not in kept),\n",
        "        removed=(),\n",
        (
            f"{_T_TRUST}::test_roots_that_a_snapshot_does_not_know_are_named",
            f"{_T_TRUST}::test_on_new_machines_nothing_is_asked_and_the_roots_are_named",
        ),
    ),
    Bug(
        "a root that is taken away hides behind another with its id",
        "as above",
        _TRUST,
        "        removed=tuple(root for root in now.roots if root.root_pem not in kept),\n",
        "        removed=tuple(r for r in now.roots if all(r.root_id != root.root_id for root in saved.roots)),\n",
        (f"{_T_TRUST}::test_another_certificate_under_the_id_of_a_root_does_not_hide_that_it_is_removed",),
    ),
)
