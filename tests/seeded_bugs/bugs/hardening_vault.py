"""A Vault, or what calls itself one, that holds calls up, cuts paths off, counts oddly or tells what it was sent."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_EXCHANGE: Final = "providers/vault/exchange.py"
_AUTH: Final = "providers/vault/auth.py"
_UPKEEP: Final = "providers/vault/upkeep.py"
_WATCH: Final = "cluster/ca/provider_watch.py"
_PIPELINE: Final = "cluster/signing/pipeline.py"
_SECRETS: Final = "providers/config/secrets.py"
_T_AUTH: Final = "tests/parts/providers/vault/test_auth.py"
_CONFIG: Final = "providers/vault/config.py"
_PROVIDER: Final = "providers/vault/provider.py"
_SENT: Final = "providers/vault/sent.py"
_TRANSPORT: Final = "providers/vault/transport.py"
_T_CONFIG: Final = "tests/parts/providers/vault/test_config.py"
_POOL: Final = "cluster/signing/pool.py"
_T_POOL: Final = "tests/parts/signing/test_pool.py"
_T_VAULT: Final = "tests/parts/providers/vault/test_vault.py"
_T_REFUSED: Final = (
    "tests/parts/ca/test_vault_hostile.py::test_text_that_would_make_another_request_is_refused_before_any_is_made"
)
_T_TRANSPORT: Final = "tests/parts/providers/vault/test_transport.py"

BUGS: Final = (
    # -- an exchange ends
    Bug(
        "nothing cuts an exchange that is overdue",
        "a Vault that answers without end holds a call, and the worker that waits for it, for as long as it likes",
        _EXCHANGE,
        "                    _cut(exchange)\n                    self._open.discard(exchange)\n",
        "                    self._open.discard(exchange)\n",
        (f"{_T_TRANSPORT}::test_exchange_ends_in_time_whatever_part_of_an_answer_has_no_end[goes_on]",),
    ),
    Bug(
        "what arrives in an exchange is not counted",
        "a Vault that answers `100 Continue` as fast as it can keeps a processor busy until the deadline",
        _EXCHANGE,
        "        self._exchange.count(arrived or 0)\n",
        "",
        (f"{_T_TRANSPORT}::test_no_more_is_read_than_an_exchange_may_have[goes_on_fast]",),
    ),
    Bug(
        "each address of a name has the time for connecting anew",
        "a name with a thousand addresses where nobody answers holds a call up for most of an hour",
        _EXCHANGE,
        "            if (left := until - time.monotonic()) <= 0:\n",
        "            if (left := exchange.connect_seconds) <= 0:\n",
        (f"{_T_TRANSPORT}::test_many_addresses_share_the_time_for_connecting",),
    ),
    Bug(
        "an operation takes as long as its calls together",
        "a Vault whose every answer is late, and in time, has the worker killed that signs for another CA, too",
        _PROVIDER,
        "        with self._client.operation():\n",
        "        with contextlib.nullcontext():\n",
        (f"{_T_VAULT}::test_every_operation_ends_however_slow_each_answer_is",),
    ),
    Bug(
        "the threads of a batch know no end",
        "a batch takes as long as its slowest leaves one after the other, and its worker is killed",
        "providers/vault/leaves.py",
        "            with client.operation(until):\n",
        "            if True:\n",
        (f"{_T_VAULT}::test_batch_ends_however_slow_each_answer_is",),
    ),
    # -- a request is the one that was meant
    Bug(
        "a mount path is anything",
        "`kv/foo#` as IntermediatePKIPath has a secret of somebody else overwritten with this CA's token",
        _PROVIDER,
        "        config.require_paths(state.places if state is not None else ())\n",
        "",
        (_T_REFUSED,),
    ),
    Bug(
        "a namespace before a mount is no place",
        "a stored token goes to a namespace that it was not given for, as the beginning of RootPKIPath",
        _CONFIG,
        '        **{name: _above(fields.text(name)) for name in ("RootPKIPath", "IntermediatePKIPath")},\n',
        "",
        (f"{_T_CONFIG}::test_what_may_be_a_namespace_in_a_mount_path_is_part_of_the_destination",),
    ),
    Bug(
        "a token is anything",
        "a token with a blank in it reaches a library that quotes it",
        _CONFIG,
        '        require_token("Token", token)\n',
        "",
        (f"{_T_CONFIG}::test_what_is_no_token_is_refused_and_not_shown",),
    ),
    # -- what was sent does not come back
    Bug(
        "an error of a library is passed on",
        "the answer to a change shows the stored token, quoted by the library that refused to send it",
        _TRANSPORT,
        "        if isinstance(error, ValueError):\n",
        "        if False:\n",
        (f"{_T_TRANSPORT}::test_what_a_library_says_of_a_token_that_cannot_be_sent_does_not_show_it",),
    ),
    Bug(
        "reasons are shown as Vault gives them",
        "a Vault that repeats what it was sent puts the login into logs and answers",
        _SENT,
        '            found["errors"] = self._hidden(found["errors"], self.hidden)\n',
        "            pass\n",
        (f"{_T_TRANSPORT}::test_secret_that_was_sent_is_not_shown_whoever_repeats_it[echo]",),
    ),
    # -- numbers, and what goes by them
    Bug(
        "a lifetime is any number",
        "`ttl: 1e300` ends every warning of a token, and the thread that renews it",
        _AUTH,
        "(is_number and 0 <= value <= _MAX_LIFETIME_SECONDS)",
        "(is_number and 0 <= value)",
        (f"{_T_AUTH}::test_lifetime_that_is_none_is_refused_in_few_words",),
    ),
    Bug(
        "the upkeep ends at what nobody foresaw",
        "a token is renewed no more, and nothing says so until it ends",
        _UPKEEP,
        "            except Exception as error:\n",
        "            except LookupError as error:\n",
        (f"{_T_AUTH}::test_upkeep_outlives_whatever_is_raised",),
    ),
    Bug(
        "why nothing is warned of is not said",
        "an operator takes silence for a CA without trouble",
        _WATCH,
        '                self._log("ca.warnings_unknown", reason=reason)\n',
        "                pass\n",
        ("tests/parts/ca/test_vault_ca.py::test_why_nothing_can_be_warned_of_is_said_once",),
    ),
    Bug(
        "a certificate given twice is named by a serial that is not on record",
        "whoever looks for it in the record finds nothing",
        _PIPELINE,
        "serial_bytes(leaf.serial).hex()))\n        raise AnswerLost(_DUPLICATE",
        "request.serial.hex()))\n        raise AnswerLost(_DUPLICATE",
        ("tests/parts/signing/test_pipeline.py::test_serial_that_a_backend_gives_twice_is_named",),
    ),
    # -- what looks like a secret
    Bug(
        "a token with a namespace looks like none",
        "a token of OpenBao under an unknown key is stored and shown",
        _SECRETS,
        "(?:\\.[A-Za-z0-9]{1,64})?",
        "",
        ("tests/unit/providers/test_secrets.py::test_contents_of_a_secret_are_one_under_any_name",),
    ),
    Bug(
        "a key in DER looks like none",
        "a private key without its PEM is stored under an unknown key, and shown",
        _SECRETS,
        "MI[GH][A-Za-z0-9+/]AgE[AB]",
        "MI[GH][A-Za-z0-9+/]AgE[C]",
        ("tests/unit/providers/test_secrets.py::test_contents_of_a_secret_are_one_under_any_name",),
    ),
    # -- what others do in a worker goes on
    Bug(
        "any provider that hangs costs its worker",
        "who tries a Vault once ends the process that signs for the CA in use",
        _POOL,
        '        return await worker.call(operation, key, *arguments, is_vital=self._in_use in ("", key))\n',
        "        return await worker.call(operation, key, *arguments)\n",
        (f"{_T_POOL}::test_only_the_provider_that_signs_costs_a_worker_when_it_hangs",),
    ),
    Bug(
        "a fresh worker waits for every provider",
        "a Vault that does not answer keeps the CA in use from the worker, and changes waiting",
        _POOL,
        "            await asyncio.wait(under_way, timeout=_COMPLETE_SECONDS)\n",
        "            await asyncio.wait(under_way)\n",
        (f"{_T_POOL}::test_provider_that_does_not_answer_keeps_nothing_else_from_a_worker_that_replaces_one",),
    ),
    Bug(
        "who signed before is never left",
        "a Vault that was rotated away from is asked by every fresh worker until the leader changes",
        _POOL,
        "            self._former.add(self._in_use)\n",
        "            pass\n",
        (f"{_T_POOL}::test_provider_that_signed_before_is_not_given_to_a_worker_that_replaces_one",),
    ),
    Bug(
        "a backend is asked for leaves where every call begins",
        "a Vault that does not answer keeps whatever else is asked of the worker waiting",
        "cluster/signing/worker.py",
        " and self._host.signs_here(key):\n",
        ":\n",
        ("tests/parts/signing/test_lanes.py::test_who_asks_a_backend_does_not_sign_where_every_call_begins",),
    ),
    Bug(
        "the first address of a name has all the time for connecting",
        "one Vault of three that is switched off, or a firewall that drops IPv6, and no certificate is signed",
        "providers/vault/exchange.py",
        "            made.settimeout(left / (len(found) - number))\n",
        "            made.settimeout(left)\n",
        (f"{_T_TRANSPORT}::test_address_that_answers_nothing_keeps_no_other_from_being_tried",),
    ),
    Bug(
        "a thread that could not be started counts as one that runs",
        "after one moment without threads no exchange with Vault has a deadline any more",
        "providers/vault/exchange.py",
        "                    thread.start()\n",
        "                    self._thread = thread\n                    thread.start()\n",
        (f"{_T_TRANSPORT}::test_exchange_without_a_thread_for_its_deadline_fails_and_the_next_one_has_one",),
    ),
    Bug(
        "a provider that did not answer counts as forgotten",
        "a process keeps the login of a backend that hangs, for as long as the node lives",
        "cluster/signing/pool.py",
        "            if is_everywhere and key not in self._setups:\n",
        "            if key not in self._setups:\n",
        ("tests/parts/signing/test_pool.py::test_provider_that_could_not_be_forgotten_ends_with_the_leadership",),
    ),
)
