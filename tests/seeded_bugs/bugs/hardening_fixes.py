"""What an operator is told, and how long somebody waits for it."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_TRUST: Final = "cluster/backup/trust.py"
_FORWARD: Final = "cluster/rpc/forward.py"
_LEAF_CACHE: Final = "cluster/agent/leaves.py"

_T_TRUST: Final = "tests/parts/backup/test_trust.py"
_T_LEAF_CACHE: Final = "tests/unit/agent/test_leaves.py"
_T_LEADER_WAIT: Final = "tests/unit/node/test_leader_wait.py"
_T_ONE_WAIT: Final = f"{_T_LEADER_WAIT}::test_leaf_without_a_leader_is_refused_after_one_wait"

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
    Bug(
        "a count of leaves in buckets of seconds",
        "how well leaves are signed together cannot be seen: all but the smallest batches are in one bucket",
        "cluster/base/telemetry.py",
        '"Leaves signed together", buckets=_BATCH_BUCKETS)\n',
        '"Leaves signed together")\n',
        (
            "tests/unit/base/test_telemetry.py::test_sizes_of_batches_are_told_apart_up_to_the_largest",
            "tests/unit/base/test_telemetry.py::test_only_times_have_buckets_of_fractions",
        ),
    ),
    Bug(
        "an address of another machine is said to be in use",
        "an operator looks for a process that listens where nothing can",
        "cluster/doctor/host.py",
        "        case errno.EADDRNOTAVAIL:\n",
        "        case errno.EADDRINUSE:\n",
        ("tests/parts/doctor/test_node.py::test_address_of_another_machine_is_not_said_to_be_in_use",),
    ),
    # -- one wait for a leader
    Bug(
        "whoever has waited for a leader waits as long again",
        "a service without a leaf hears of a lost leader when its own time-out is long over",
        _FORWARD,
        "(self._wait_seconds if leader_wait_seconds is None else leader_wait_seconds)\n",
        "self._wait_seconds\n",
        (_T_ONE_WAIT,),
    ),
    Bug(
        "each step of a leaf waits for a leader as if it were the first",
        "as above",
        _LEAF_CACHE,
        "self._issue(caller, service, requested_by, self._left(leader_by))",
        "self._issue(caller, service, requested_by, self._leader_wait_seconds)",
        (
            _T_ONE_WAIT,
            f"{_T_LEAF_CACHE}::test_request_waits_for_a_leader_once_and_not_at_each_step",
            f"{_T_LEAF_CACHE}::test_time_that_a_leader_was_waited_for_is_not_there_twice",
        ),
    ),
    Bug(
        "a watch that begins without a leader waits for one twice",
        "a blocking query takes longer than its client has said",
        _LEAF_CACHE,
        "await self._roots.current(self._left(leader_by))",
        "await self._roots.current(self._leader_wait_seconds)",
        (f"{_T_LEAF_CACHE}::test_watch_waits_for_a_leader_once_and_anew_when_it_is_woken",),
    ),
)
