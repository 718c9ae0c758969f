"""What a process with keys shows to others, and how long it lives."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_PROCESS: Final = "cluster/base/process.py"
_SECRET_FILES: Final = "cluster/seal/secret_files.py"
_POOL: Final = "cluster/signing/pool.py"
_RULES: Final = "fsm/ca_rules.py"
_RESEAL: Final = "cluster/node/reseal.py"
_SEALER: Final = "cluster/seal/sealer.py"
_SEALS: Final = "cluster/node/seals.py"
_RAFT: Final = "cluster/raft/node.py"

_T_PROCESS: Final = "tests/parts/base/test_process.py"
_T_SEAL: Final = "tests/unit/seal/test_seal.py"
_T_POOL: Final = "tests/parts/signing/test_pool.py"
_T_APPLY: Final = "tests/unit/fsm/test_apply.py"
_T_SEALS: Final = "tests/parts/node/test_seals.py"
_T_RAFT: Final = "tests/unit/raft/test_node.py"

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
        "            ctypes.memset(address + len(prefix), 0, library.strlen(address) - len(prefix))\n",
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
    # -- the seal key
    Bug(
        "a seal key that others can read",
        "any user of the host opens the CA's keys in every copy of the data",
        _SECRET_FILES,
        "    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed:\n",
        "    if False:\n",
        (f"{_T_SEAL}::test_file_that_others_can_get_at_is_refused_with_its_mode",),
    ),
    Bug(
        "a seal key of another user",
        "its owner reads it, whatever its mode, and can put another in its place",
        _SECRET_FILES,
        "    if status.st_uid not in (0, user) and user != 0:",
        "    if False:",
        (f"{_T_SEAL}::test_owner_is_the_nodes_user_or_root",),
    ),
    Bug(
        "any file with a group's right passes for a credential",
        "the group of a file anywhere opens the CA's keys",
        _SECRET_FILES,
        "if is_credential(path) and status.st_uid == 0 else 0",
        "if status.st_uid == 0 else 0",
        (f"{_T_SEAL}::test_credential_of_the_service_manager_may_show_a_groups_right",),
    ),
    Bug(
        "a pipe in the place of the seal key is waited for",
        "a node does not start and does not say why",
        _SECRET_FILES,
        "os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK",
        "os.O_RDWR | os.O_CLOEXEC",
        (f"{_T_SEAL}::test_what_is_no_file_is_refused_at_once",),
    ),
    # -- the change of the seal key
    Bug(
        "another data key without all that is sealed",
        "what was left out can never be opened again: a root that is still needed has no key any more",
        _RULES,
        "    if [identity(record) for record in cmd.providers] != [identity(record) for record in state.providers]:\n",
        "    if False:\n",
        (f"{_T_APPLY}::test_seal_is_not_changed_without_all_that_it_opens",),
    ),
    Bug(
        "the seal key changes although a server lacks the next one",
        "that server ends as soon as it hears of it, and does not start any more",
        _RESEAL,
        "        if found:\n",
        "        if False:\n",
        (f"{_T_SEALS}::test_server_that_could_not_open_it_holds_it_up_and_is_named",),
    ),
    Bug(
        "a change that is sent again is made again",
        "the next key is gone by then: whoever lost the answer is told that it failed",
        _RESEAL,
        "        return seal if seal_id(seal) == base else None\n",
        "        return seal\n",
        (f"{_T_SEALS}::test_change_that_is_sent_again_is_made_once",),
    ),
    Bug(
        "the log of before stays on the disk",
        "the key that was changed, because it is known perhaps, opens the CA's keys in it",
        _SEALS,
        "            await self._drop_history()\n",
        "",
        (f"{_T_SEALS}::test_node_drops_what_the_key_of_before_opens_and_then_the_key",),
    ),
    Bug(
        "what was dropped from the log stays in its segment",
        "as above",
        _RAFT,
        "            self.journal.rewrite()  # else what was dropped stays in the segment that is written now\n",
        "",
        (f"{_T_RAFT}::test_purge_leaves_nothing_of_before_on_the_disk",),
    ),
    Bug(
        "a node that catches up with a change of key ends",
        "it has the new key alone, and its log begins with a seal of the old one",
        _SEALS,
        "                if not await self._is_followed(seal):\n                    raise\n                continue\n",
        "                raise\n",
        (f"{_T_SEALS}::test_node_that_catches_up_with_a_change_waits_for_it",),
    ),
    Bug(
        "a key that the configuration names is moved by the node",
        "the operator's file is overwritten with another key",
        "cluster/seal/sources.py",
        "given.key_file is None and given.next_key_file is None",
        "following.exists()",
        (f"{_T_SEALS}::test_files_that_the_configuration_names_are_the_operators",),
    ),
    Bug(
        "a lost key cannot be replaced",
        "the CA can be opened by nobody once its nodes have stopped, although they still have what it takes",
        _SEALER,
        "        other._held = self._held\n",
        "",
        (f"{_T_SEALS}::test_key_that_is_lost_is_replaced_while_nodes_run",),
    ),
    Bug(
        "a traceback for every signing process that outlives its node",
        "the log of a node that stops in order is full of errors",
        "cluster/signing/worker.py",
        "        contextlib.suppress(ConnectionError),\n        connection.makefile",
        "        connection.makefile",
        ("tests/unit/signing/test_worker.py::test_parent_that_is_gone_before_an_answer_ends_it_quietly",),
    ),
)
