"""The keys that open what is sealed are in a process of their own, and what they open is covered on its way."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CLIENT: Final = "cluster/seal/keeper_client.py"
_COVER: Final = "cluster/seal/cover.py"
_KEEPER: Final = "cluster/seal/keeper.py"
_PROCESS: Final = "cluster/seal/keeper_process.py"
_RECONFIGURE: Final = "cluster/ca/reconfigure.py"
_SERVER: Final = "cluster/seal/keeper_server.py"
_START: Final = "cluster/node/start.py"
_WORKER: Final = "cluster/signing/worker.py"

_T_COVER: Final = "tests/unit/seal/test_cover.py"
_T_KEEPER: Final = "tests/parts/seal/test_keeper.py"
_T_LIVES: Final = f"{_T_KEEPER}::test_cover_is_good_for_one_life_of_a_node"
_T_MEMORY: Final = (
    "tests/integration/test_private_memory.py::test_keys_are_in_the_processes_that_need_them_and_in_no_other"
)
_T_PASSPHRASE: Final = f"{_T_KEEPER}::test_passphrase_leaves_the_environment"
_T_RECORD: Final = f"{_T_KEEPER}::test_record_is_open_to_the_keeper_alone"

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
        "the main process keeps the passphrase in its environment",
        "every process that it starts has it, and whoever reads their environment",
        _CLIENT,
        "        take_from_environment(PASSPHRASE_VARIABLE)\n",
        "",
        (_T_PASSPHRASE,),
    ),
    Bug(
        "the keeper keeps the passphrase in its environment",
        "a place more where it can be read",
        _SERVER,
        "        take_from_environment(PASSPHRASE_VARIABLE)  # it has been read\n",
        "",
        (_T_PASSPHRASE,),
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
        "            line.settimeout(_CALL_SECONDS)\n",
        "",
        (f"{_T_KEEPER}::test_it_is_not_waited_for_for_ever",),
    ),
    Bug(
        "a data key out of use is kept open",
        "what a change of the seal key was to put an end to stays in memory",
        _KEEPER,
        "        self._open.clear()  # a data key that is out of use is not kept\n",
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
)
