"""The keys that open what is sealed are in a process of their own, and what they open is covered on its way."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CLIENT: Final = "cluster/seal/keeper_client.py"
_COVER: Final = "cluster/seal/cover.py"
_KEEPER: Final = "cluster/seal/keeper.py"
_PROCESS: Final = "cluster/seal/keeper_process.py"
_RECONFIGURE: Final = "cluster/ca/reconfigure.py"
_RESEAL: Final = "cluster/node/reseal.py"
_SEALS: Final = "cluster/node/seals.py"
_SERVER: Final = "cluster/seal/keeper_server.py"
_START: Final = "cluster/node/start.py"
_WORKER: Final = "cluster/signing/worker.py"

_T_COVER: Final = "tests/unit/seal/test_cover.py"
_T_KEEPER: Final = "tests/parts/seal/test_keeper.py"
_T_LIVES: Final = f"{_T_KEEPER}::test_cover_is_good_for_one_life_of_a_node"
_T_PRIVATE: Final = "tests/integration/test_private_memory.py"
_T_MEMORY_OF_KEEPER: Final = f"{_T_PRIVATE}::test_passphrase_is_in_the_memory_of_the_keeper_alone"
_T_FILE: Final = f"{_T_PRIVATE}::test_key_in_a_nodes_file_is_not_kept_by_the_process_with_the_ports"
_T_RECORD: Final = f"{_T_KEEPER}::test_record_is_open_to_the_keeper_alone"
_T_QUESTIONS: Final = "tests/parts/node/test_seals.py::test_questions_for_the_key_take_turns_and_do_not_pile_up"
_T_RIGHT_AFTER: Final = "tests/parts/node/test_seals.py::test_next_key_that_changes_right_after_its_use_ends_no_node"

BUGS: Final = (
    Bug(
        "a cover that covers nothing",
        "the process with the ports has the CA's key, and one fault of a parser shows it",
        _COVER,
        "        return AESSIV(self._key).encrypt(plain, None) if plain else NOTHING\n",
        "        return plain\n",
        (_T_COVER, _T_RECORD),
    ),
    Bug(
        "covered is what decrypts to anything",
        "what another process has put in the place of a key is signed with",
        _COVER,
        '            raise CoverError("a value is not covered as this node\'s processes cover theirs") from None\n',
        "            return covered\n",
        (_T_COVER,),
    ),
    Bug(
        "one cover for all nodes and times",
        "what was carried once can be uncovered for ever",
        _KEEPER,
        "    return secrets.token_bytes(COVER_KEY_BYTES)\n",
        "    return bytes(COVER_KEY_BYTES)\n",
        (_T_LIVES,),
    ),
    Bug(
        "secrets of a record come out bare",
        "the operator's private key and token are in the process with the ports for as long as it leads",
        _KEEPER,
        "            self._cover.cover_values(record.secrets), self._cover.cover(record.state), record.config_json\n",
        "            record.secrets, self._cover.cover(record.state), record.config_json  # type: ignore[arg-type]\n",
        (_T_RECORD,),
    ),
    Bug(
        "the state of a record comes out bare",
        "the CA's key is in the process with the ports for as long as it leads",
        _KEEPER,
        "            self._cover.cover_values(record.secrets), self._cover.cover(record.state), record.config_json\n",
        "            self._cover.cover_values(record.secrets), record.state, record.config_json\n",
        (_T_RECORD,),
    ),
    Bug(
        "a worker hands out the key that it has made",
        "the CA's key passes through the process with the ports when the CA is made, and may stay in its memory",
        _WORKER,
        "        return self._cover.cover(self._provider(key).prepare_root(intent))\n",
        "        return self._provider(key).prepare_root(intent)\n",
        ("tests/parts/ca/test_leader.py::test_new_cluster_gets_seal_configuration_and_one_verified_root",),
    ),
    Bug(
        "the passphrase is taken when modules have copied the environment",
        "the process with the ports has it for as long as it lives",
        "cluster/cli/agent.py",
        "        passphrase = take_from_environment(PASSPHRASE_VARIABLE)\n",
        "        passphrase = None\n",
        (_T_MEMORY_OF_KEEPER,),
    ),
    Bug(
        "the passphrase stays in memory that is free",
        "a fault of a parser shows it",
        "cluster/base/process.py",
        "    finally:\n        _wipe(value)\n",
        "    finally:\n        pass\n",
        ("tests/parts/base/test_process.py::test_variable_that_is_taken_is_not_in_memory_either",),
    ),
    Bug(
        "a key in a node's file is kept",
        "the process with the ports of every node has the CA's key, also where it never leads",
        _START,
        "    config.connect.ca_config.clear()  # a private key may be in it, and this process lives long\n",
        "",
        (_T_FILE,),
    ),
    Bug(
        "signals to all of a node's processes end the keeper",
        "a terminal that is closed ends a node that would have gone on, and a stop looks like a failure",
        "cluster/base/process.py",
        "    before = signal.pthread_sigmask(signal.SIG_BLOCK, NODE_SIGNALS)\n",
        "    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())\n",
        (f"{_T_KEEPER}::test_signals_for_all_of_a_nodes_processes_are_not_for_it",),
    ),
    Bug(
        "facts of a node as they are in its file",
        "a damaged node.json is a traceback instead of a sentence",
        _CLIENT,
        '        self._call("check_node", json.dumps(facts))  # whatever a file held\n',
        '        self._call("check_node", json.dumps(dict(facts or {})))\n',
        (f"{_T_KEEPER}::test_damaged_facts_of_a_node_have_words",),
    ),
    Bug(
        "only what UTF-8 can say crosses to the keeper",
        "a node whose paths are older than that does not start any more",
        _SERVER,
        '    body = msgpack.packb(value, unicode_errors="surrogatepass")\n',
        "    body = msgpack.packb(value)\n",
        (f"{_T_KEEPER}::test_path_may_be_anything_that_a_file_system_takes",),
    ),
    Bug(
        "a keeper that hangs lives on",
        "the node is elected again and again, and stands still at each call",
        _CLIENT,
        "                self._process.kill()\n            raise\n",
        "                pass\n            raise\n",
        (f"{_T_KEEPER}::test_it_is_not_waited_for_for_ever",),
    ),
    Bug(
        "a data key of another seal is kept open",
        "what a restore has opened stays in memory for the keeper's whole life",
        _KEEPER,
        "        forget.start()\n",
        "",
        (f"{_T_KEEPER}::test_data_key_of_another_seal_is_forgotten_in_a_while",),
    ),
    Bug(
        "a keeper that others may look into",
        "another process of the same user reads the data key",
        _PROCESS,
        "    refused = [*process.protect(), *process.end_with_parent(signal.SIGKILL)]\n",
        "    refused = process.end_with_parent(signal.SIGKILL)\n",
        (f"{_T_KEEPER}::test_it_is_protected_before_it_is_told_anything",),
    ),
    Bug(
        "a node goes on without its keeper",
        "it is elected, and then can neither sign nor rotate",
        _START,
        "    await stack.enter_async_context(_task(keeper.watch(), fatal))\n",
        "",
        ("tests/integration/test_secrets.py::test_node_whose_keeper_ends_says_so_and_ends_too",),
    ),
    Bug(
        "a keeper that does not answer is waited for",
        "the event loop stands still for as long as the keeper does",
        _CLIENT,
        "        line.settimeout(seconds)\n",
        "",
        (f"{_T_KEEPER}::test_it_is_not_waited_for_for_ever",),
    ),
    Bug(
        "a data key out of use is kept open",
        "what a change of the seal key was to put an end to stays in memory",
        _KEEPER,
        "        self._others.clear()  # a data key that is out of use is not kept\n",
        "",
        (f"{_T_KEEPER}::test_data_key_out_of_use_is_forgotten",),
    ),
    Bug(
        "a kept key of another kind stays",
        "a change of the key's type is refused for the key that was not given",
        _RECONFIGURE,
        "            if not fits:\n                return without_private_key(settings)\n",
        "",
        ("tests/parts/ca/test_reconfigure.py::test_stored_key_of_another_kind_counts_as_cleared",),
    ),
    Bug(
        "every line to the keeper is kept",
        "one busy moment leaves descriptors and threads behind for the rest of a node's life",
        _CLIENT,
        "        if self._is_stopped or len(self._free) >= _MOST_FREE:\n",
        "        if self._is_stopped:\n",
        (f"{_T_KEEPER}::test_lines_of_a_busy_moment_are_not_kept",),
    ),
    Bug(
        "a keeper without threads ends",
        "a machine that is out of threads for a moment ends the node, and it cannot start again there",
        _SERVER,
        "                    except RuntimeError:  # no more threads: whoever waits at the other end is told\n",
        "                    except MemoryError:\n",
        (f"{_T_KEEPER}::test_keeper_without_threads_refuses_one_call_and_goes_on",),
    ),
    Bug(
        "a grant that nobody reads ends the keeper",
        "a worker that ends while it is started takes the node with it",
        _SERVER,
        "                    with contextlib.suppress(OSError):  # the process that it was for has ended\n",
        "                    with contextlib.nullcontext():\n",
        (f"{_T_KEEPER}::test_process_that_ended_before_its_grant_takes_nobody_with_it",),
    ),
    Bug(
        "questions for the seal key pile up",
        "a member that asks without end has every thread of a node stretch passphrases, and nothing is signed there",
        _RESEAL,
        "        if self._present >= _MOST_CHECKS:\n",
        "        if self._present > 1000:\n",
        (_T_QUESTIONS,),
    ),
    Bug(
        "questions for the seal key follow one another without a pause",
        "a member that asks without end takes a core of every node",
        _RESEAL,
        "                self._rests_until = ended + _REST * (ended - begun)\n",
        "                self._rests_until = ended\n",
        (_T_QUESTIONS,),
    ),
    Bug(
        "the key in force is read from its file again",
        "a next key that is replaced right after its use ends every node at once, and nothing opens any more",
        "cluster/seal/sealer.py",
        "            return held.kek\n",
        "            pass\n",
        (_T_RIGHT_AFTER,),
    ),
    Bug(
        "whatever is the next key is put in the place of the first",
        "a key of no cluster takes the place of the seal key, and the status says that nothing is left to do",
        _SEALS,
        "        if place is KeyAt.NEXT:\n",
        "        if place is not KeyAt.FIRST:\n",
        (_T_RIGHT_AFTER,),
    ),
    Bug(
        "the leader stretches a passphrase on its event loop",
        "after a change of the seal the leader answers nobody for a while, and a busy one gives its leadership away",
        "cluster/ca/authority.py",
        "                await asyncio.to_thread(self._opener.unlock, state)\n",
        "                self._opener.unlock(state)\n",
        ("tests/parts/node/test_seals.py::test_leader_takes_another_seal_into_use_beside_its_event_loop",),
    ),
    Bug(
        "whoever stops waiting for an answer has the next thread at once",
        "a member that asks with a deadline of a millisecond has every thread of a node stretch passphrases",
        _RESEAL,
        "            return await asyncio.shield(answering)\n",
        "            return await answering\n",
        ("tests/parts/node/test_seals.py::test_whoever_stops_waiting_for_an_answer_asks_no_sooner_for_it",),
    ),
    Bug(
        "a node that leads no more takes an old seal into use",
        "after a change of the seal it holds the data key of before, and forgets the one in force after a while",
        "cluster/ca/authority.py",
        "            self._require_leadership()\n            if not self._opener.is_unlocked(state):\n",
        "            if not self._opener.is_unlocked(state):\n",
        ("tests/parts/node/test_seals.py::test_node_that_leads_no_more_takes_no_old_seal_into_use",),
    ),
)
