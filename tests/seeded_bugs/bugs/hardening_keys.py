"""What a process with keys shows to others, and how long it lives."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_PROCESS: Final = "cluster/base/process.py"
_POOL: Final = "cluster/signing/pool.py"

_T_PROCESS: Final = "tests/parts/base/test_process.py"
_T_POOL: Final = "tests/parts/signing/test_pool.py"

BUGS: Final = (
    Bug(
        "a process dies of what is refused to it",
        "a sandbox that is stricter than ours stops the CA over the priority of a process",
        _PROCESS,
        "    except (OSError, ValueError) as error:  # ValueError: setrlimit's, in some Pythons\n",
        "    except ZeroDivisionError as error:\n",
        (f"{_T_PROCESS}::test_what_the_system_refuses_is_told_and_costs_nothing_else",),
    ),
    Bug(
        "another process of the same user may look at the memory",
        "whoever gets to run as the node's user has the CA's keys, and the passphrase",
        _PROCESS,
        "_prctl(_PR_SET_DUMPABLE, 0)",
        "_prctl(_PR_SET_DUMPABLE, 1)",
        (f"{_T_PROCESS}::test_files_are_private_and_nothing_of_the_memory_is_left_to_others",),
    ),
    Bug(
        "files as the caller's umask leaves them",
        "everybody on the host reads the record of certificates",
        _PROCESS,
        "    os.umask(_UMASK)\n",
        "",
        (f"{_T_PROCESS}::test_files_are_private_and_nothing_of_the_memory_is_left_to_others",),
    ),
    Bug(
        "the passphrase stays where the process was given it",
        "it is in /proc/PID/environ for as long as the node runs, and in every process that it starts",
        _PROCESS,
        "            ctypes.memset(address + len(prefix), 0, len(text) - len(prefix))\n",
        "            pass\n",
        (f"{_T_PROCESS}::test_variable_that_is_taken_is_nowhere_any_more",),
    ),
    Bug(
        "processes with keys outlive the leadership",
        "every node that has ever led holds the CA's keys, also what Python has left of them in free memory",
        _POOL,
        "            worker.retire()\n",
        "            pass\n",
        (f"{_T_POOL}::test_processes_end_with_the_leadership_and_fresh_ones_are_ready_for_the_next",),
    ),
    Bug(
        "keys are configured on a node that leads no more",
        "as above, for what was on its way when the leadership ended",
        _POOL,
        "            if self._require_admission() != term:\n",
        "            if False:\n",
        (f"{_T_POOL}::test_configuration_that_ends_with_the_leadership_is_in_no_process",),
    ),
    Bug(
        "processes that die at once are started again ten times a second",
        "a sandbox that ends them makes the node busy with nothing else",
        _POOL,
        "    return min(2 * pause, _LONGEST_RESTART_PAUSE_SECONDS)\n",
        "    return _RESTART_PAUSE_SECONDS\n",
        (f"{_T_POOL}::test_pause_is_bounded_and_over_once_a_worker_has_lived",),
    ),
)
