"""Rates: of refused credentials by source, of certificates by source, token and SPIFFE ID; and who waits for whom."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RATES: Final = "cluster/base/rates.py"
_NODE_ACL: Final = "cluster/node/acl.py"
_REFUSALS: Final = "cluster/http/refusals.py"
_INPUTS: Final = "cluster/access/inputs.py"
_GATE: Final = "cluster/http/gate.py"
_ACL: Final = "cluster/http/routes/acl.py"
_LINE: Final = "cluster/signing/line.py"
_LIMITS: Final = "cluster/signing/limits.py"
_AUTHORITY: Final = "cluster/ca/authority.py"
_QUOTAS: Final = "cluster/signing/quotas.py"
_LEAVES: Final = "cluster/node/leaves.py"
_LEDGER: Final = "fsm/ledger.py"
_TLS: Final = "cluster/tls/contexts.py"

_T_RATES: Final = "tests/unit/base/test_rates.py"
_T_RULES: Final = "tests/property/base/test_rates.py"
_T_HTTP: Final = "tests/parts/http/test_refusals.py"
_T_BOUNDS: Final = "tests/parts/http/test_forwarded_bounds.py"
_T_PLACES: Final = "tests/parts/node/test_login_places.py"
_T_LINE: Final = "tests/unit/signing/test_line.py"
_T_LIMITS: Final = "tests/parts/signing/test_limits.py"
_T_CA: Final = "tests/parts/ca/test_quotas.py"
_T_NODE: Final = "tests/parts/node/test_service.py"
_T_CHAINS: Final = "tests/unit/tls/test_costly_chains.py"
_T_LEDGER: Final = "tests/unit/fsm/test_ledger.py"

BUGS: Final = (
    # -- the table
    Bug(
        "buckets are never forgotten",
        "whoever has a network of IPv6 addresses fills the memory of a node",
        _RATES,
        "        if len(self._full_at) > self._keys:\n",
        "        if False:\n",
        (
            f"{_T_RULES}::test_memory_is_bounded_and_what_is_forgotten_for_it_too",
            f"{_T_RATES}::test_full_table_has_a_few_megabytes",
        ),
    ),
    Bug(
        "the bucket that is in use is forgotten",
        "one flood by many addresses, and the limit of each of them is none",
        _RATES,
        "        self._full_at.move_to_end(key)\n",
        "        self._full_at.move_to_end(key, last=False)\n",
        (f"{_T_RATES}::test_who_was_not_seen_for_longest_is_forgotten_first",),
    ),
    Bug(
        "who is refused has to wait for longer each time",
        "a client that asks too often is locked out, whatever it was told",
        _RATES,
        "        if wait > _GRAIN_SECONDS:\n",
        "        if wait > _GRAIN_SECONDS and self._full_at.update({key: full_at}) is None:\n",
        (f"{_T_RULES}::test_who_comes_when_it_was_told_to_has_one",),
    ),
    Bug(
        "an idle time is saved up without end",
        "a source that was away for a night may send a night's worth at once",
        _RATES,
        "        full_at = max(now, self._full_at.get(key, now)) + 1 / self.per_second\n",
        "        full_at = self._full_at.get(key, now) + 1 / self.per_second\n",
        (
            f"{_T_RATES}::test_an_idle_time_saves_up_no_more_than_a_burst",
            f"{_T_RULES}::test_no_key_has_more_than_its_rate_in_any_window",
        ),
    ),
    # -- refused credentials
    Bug(
        "wrong tokens are not limited",
        "each costs a round to the leader, and anybody may ask for thousands in a second",
        _GATE,
        "        async with refusals.of_token(request):\n            caller = await access.caller(secret_id)\n",
        "        caller = await access.caller(secret_id)\n",
        (f"{_T_HTTP}::test_after_so_many_wrong_tokens_a_source_is_answered_without_asking_anybody",),
    ),
    Bug(
        "tokens that are too long are not limited",
        "there is a kind of wrong token that may be sent without end",
        _GATE,
        "        async with refusals.of_token(request):\n            raise TokenUnknown",
        "        if True:\n            raise TokenUnknown",
        (f"{_T_HTTP}::test_tokens_that_are_too_long_to_be_any_count",),
    ),
    Bug(
        "right tokens wait for the wrong ones of others",
        "whoever shares an address with others takes the API away from them",
        _GATE,
        "        caller = access.caller_here(secret_id)\n",
        "        async with refusals.of_token(request):\n            caller = access.caller_here(secret_id)\n",
        (f"{_T_HTTP}::test_right_token_is_served_however_many_wrong_ones_come_from_its_address",),
    ),
    Bug(
        "logins are not limited",
        "a password, or a signature, can be tried as often as the node can judge it",
        _ACL,
        "_proof(login)",
        "login",
        (
            f"{_T_HTTP}::test_refused_logins_and_bootstraps_are_limited",
            f"{_T_HTTP}::test_logins_that_are_none_count_too",
        ),
    ),
    Bug(
        "bootstraps are not limited",
        "the leader looks for its file, and answers, as often as anybody likes",
        _ACL,
        "_proof(bootstrap)",
        "bootstrap",
        (f"{_T_HTTP}::test_refused_logins_and_bootstraps_are_limited",),
    ),
    Bug(
        "logins and tokens share a limit",
        "wrong tokens of one client keep the workloads beside it from logging in",
        _REFUSALS,
        "        async with _counted(self._proofs, request):\n",
        "        async with _counted(self._tokens, request):\n",
        (f"{_T_HTTP}::test_refused_logins_and_bootstraps_are_limited",),
    ),
    Bug(
        "refusals are counted when they are answered",
        "a thousand that come at once are all judged",
        _REFUSALS,
        "    await _held_back(limit.take, source)\n",
        "    await _held_back(limit.take, source)\n    limit.give_back(source)\n",
        (f"{_T_HTTP}::test_many_at_once_get_no_more_than_one_by_one",),
    ),
    Bug(
        "refusals cost a flood nothing",
        "whoever asks again at every answer takes as much of a node's time as it can",
        _REFUSALS,
        "        await asyncio.sleep(_HELD_SECONDS)\n",
        "        await asyncio.sleep(0)\n",
        (f"{_T_HTTP}::test_who_asks_again_at_every_answer_is_held_up_and_nobody_else",),
    ),
    Bug(
        "whoever goes away before the answer has not been refused",
        "a flood that closes its connections has no limit",
        _REFUSALS,
        "    except ClusterError as error:\n        if isinstance(error, _OWN_FAULTS):\n",
        "    except BaseException as error:\n        if isinstance(error, (*_OWN_FAULTS, asyncio.CancelledError)):\n",
        (f"{_T_HTTP}::test_who_goes_away_before_the_answer_has_used_one_up",),
    ),
    Bug(
        "the cluster's own faults count against its clients",
        "after an election honest clients are refused, because nobody could say who they are",
        _REFUSALS,
        "        if isinstance(error, _OWN_FAULTS):\n",
        "        if False:\n",
        (f"{_T_HTTP}::test_without_a_leader_nobody_uses_anything_up",),
    ),
    Bug(
        "a login that takes too long does not count",
        "whoever asks for logins at a server that hangs has no limit",
        _REFUSALS,
        "        if isinstance(error, _OWN_FAULTS):\n",
        "        if error.http_status >= 500:\n",
        (f"{_T_HTTP}::test_only_what_is_known_to_be_the_clusters_own_fault_uses_nothing_up[CommitUnknown-]",),
    ),
    Bug(
        "right logins count",
        "a host whose workloads all start at once is refused",
        _REFUSALS,
        "    else:\n        limit.give_back(source)\n",
        "    else:\n        pass\n",
        (f"{_T_HTTP}::test_logins_that_succeed_use_nothing_up",),
    ),
    Bug(
        "each IPv6 address is a source",
        "one host has more of them than there are buckets",
        _REFUSALS,
        "    source = source_of((request.remote,))\n",
        '    source = request.remote or ""\n',
        (f"{_T_HTTP}::test_a_source_is_an_address_or_a_network_of_64_bits",),
    ),
    # -- logins that are held up
    Bug(
        "logins take connections to the leader without a place",
        "a few dozen logins at a Kubernetes API that hangs stop all that a server has to ask of the leader",
        _NODE_ACL,
        "            async with self._logins.place(method):\n",
        "            if True:\n",
        (
            f"{_T_PLACES}::test_logins_that_hang_hold_up_no_other_work_and_no_other_method[b]",
            f"{_T_PLACES}::test_logins_of_all_methods_leave_connections_to_others",
        ),
    ),
    Bug(
        "a refusal is held back in its place",
        "whoever is refused a few dozen times a second keeps all others from logging in",
        _NODE_ACL,
        "                answer = await self._forwarder.call(ACL_LOGIN, request, asked_from=asked_from)\n"
        "        except PermissionDenied:\n",
        "                try:\n"
        "                    answer = await self._forwarder.call(ACL_LOGIN, request, asked_from=asked_from)\n"
        "                except PermissionDenied:\n"
        "                    await hold_refusal(began, self._clock)\n"
        "                    raise\n"
        "        except PermissionDenied:\n",
        (f"{_T_PLACES}::test_refusal_is_held_back_where_nothing_waits_for_it",),
    ),
    Bug(
        "a refused login is answered when its cause is found",
        "the time of the answer tells a wrong signature from a wrong audience",
        _NODE_ACL,
        "            await hold_refusal(began, self._clock)",
        "            pass",
        (f"{_T_PLACES}::test_refusal_is_held_back_where_nothing_waits_for_it",),
    ),
    Bug(
        "the leader judges any number of logins at once",
        "clients that go away leave it thousands that wait for a server which hangs",
        "cluster/node/acl_work.py",
        "            async with self._login_places.place(method.name):\n",
        "            if True:\n",
        (f"{_T_PLACES}::test_leader_judges_so_many_logins_of_a_method_at_once",),
    ),
    Bug(
        "any number of logins wait for a place",
        "whoever sends the most logins takes the memory of a server",
        "cluster/base/places.py",
        "        if places.is_full or self._all.is_full:\n",
        "        if False:\n",
        (f"{_T_PLACES}::test_who_waits_for_a_place_is_told_in_time_and_whoever_is_too_many_at_once",),
    ),
    # -- what is longer than it may be between servers
    Bug(
        "a bearer token has any length",
        "a login that no leader understands is an error of the cluster, with a text of its inside",
        _INPUTS,
        "        if len(self.bearer_token) > MAX_BEARER_TOKEN:\n",
        "        if False:\n",
        (
            f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[acl_login]",
            f"{_T_BOUNDS}::test_login_that_no_leader_would_understand_is_refused_where_it_is_asked_and_counts",
        ),
    ),
    Bug(
        "a Meta has any number of entries",
        "a login that no leader understands is an error of the cluster, with a text of its inside",
        _INPUTS,
        "        description_of(self.meta or {})\n",
        "        pass\n",
        (
            f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[acl_login]",
            f"{_T_BOUNDS}::test_login_that_no_leader_would_understand_is_refused_where_it_is_asked_and_counts",
        ),
    ),
    Bug(
        "an object is as long as it gets",
        "numbers that are written out make an error of the cluster of what a client has sent",
        "cluster/node/json_text.py",
        "    if len(text) > MAX_JSON:\n",
        "    if False:\n",
        (
            f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[configure]",
            f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[acl_put]",
        ),
    ),
    Bug(
        "a field has any length",
        "the same request is a mistake on the leader and an error on every other node",
        "cluster/http/query.py",
        "    if len(text) > most:\n",
        "    if False:\n",
        (
            f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[configure]",
            f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[distrust_root]",
            f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[transfer]",
            f"{_T_BOUNDS}::test_what_the_join_port_takes_the_leader_understands",
        ),
    ),
    Bug(
        "an object of texts has any number of them",
        "the same request is a mistake on the leader and an error on every other node",
        "cluster/http/body.py",
        "    if value is not None and len(value) > _MAX_ENTRIES:\n",
        "    if False:\n",
        (f"{_T_BOUNDS}::test_what_http_takes_the_leader_understands[configure]",),
    ),
    # -- certificates
    Bug(
        "certificates for a token are not limited",
        "one stolen token fills the record of all",
        _QUOTAS,
        "        with _counted(self.by_token, accessor_id):\n",
        '        with _counted(self.by_token, ""):\n',
        (f"{_T_CA}::test_token_that_has_had_its_certificates_is_refused_before_its_csr_is_looked_at",),
    ),
    Bug(
        "all who bring no token are one",
        "where access control is not in use, a limit for tokens is one for everybody together",
        _AUTHORITY,
        '        with quotas.of_token("" if caller.is_anonymous else caller.accessor_id):\n',
        "        with quotas.of_token(caller.accessor_id):\n",
        (f"{_T_CA}::test_nobody_without_a_token_is_one_token",),
    ),
    Bug(
        "certificates of a SPIFFE ID are not limited",
        "one service in a loop of restarts takes the signatures of all",
        _QUOTAS,
        "        with _counted(self.by_identity, spiffe_id):\n",
        '        with _counted(self.by_identity, ""):\n',
        (f"{_T_CA}::test_spiffe_id_that_has_had_its_certificates_is_refused_before_anything_is_signed",),
    ),
    Bug(
        "who is refused by the limit of all has used up their own",
        "a renewal that comes again as it was told to is refused for a certificate that it never had",
        _QUOTAS,
        "        limit.give_back(key)\n",
        "        pass\n",
        (f"{_T_CA}::test_who_has_to_come_again_has_not_used_anything_up",),
    ),
    Bug(
        "certificates for a source are counted by those that are signed",
        "CSRs that are rubbish are looked at without end",
        _LEAVES,
        "        self._count(requested_by)\n        return await self._sign(",
        "        return await self._sign(",
        (f"{_T_NODE}::test_certificates_of_one_source_are_counted_where_it_asks",),
    ),
    Bug(
        "leaves for local services are not counted",
        "whoever has had its certificates gets more by the other door",
        _LEAVES,
        "        self._count(requested_by)\n        leader_by",
        "        leader_by",
        (f"{_T_NODE}::test_certificates_of_one_source_are_counted_where_it_asks",),
    ),
    # -- who waits for whom
    Bug(
        "all who wait are one rank",
        "a fleet that is rolled out again lets the certificates of running services expire",
        _AUTHORITY,
        "        return rank_of(await self._newest(spiffe_id), self._clock.now())\n",
        "        return rank_of(None, self._clock.now())\n",
        (f"{_T_CA}::test_where_all_have_to_wait_renewals_come_first_and_second_certificates_last",),
    ),
    Bug(
        "an old certificate is on record, so its identity is a later rank",
        "renewals, of all requests, come last",
        _LINE,
        "if now < not_before + (not_after - not_before) * _YOUNG_PART else",
        "if now < not_after else",
        (f"{_T_LINE}::test_rank_follows_from_what_is_left_of_the_newest_certificate",),
    ),
    Bug(
        "no turn is kept for the later ranks",
        "while renewals come as fast as the CA signs, no new service gets a certificate",
        _LINE,
        "        for rank in _KEPT_TURNS.get(self._turn, _IN_ORDER):\n",
        "        for rank in _IN_ORDER:\n",
        (
            f"{_T_LINE}::test_no_rank_waits_for_ever_however_many_come_before_it",
            f"{_T_LINE}::test_each_rank_has_its_share_of_turns_where_all_wait",
        ),
    ),
    Bug(
        "no place is kept for the later ranks",
        "they are refused each time, and never have a turn",
        _LINE,
        " and len(self._waiting[rank]) >= share and",
        " and",
        (f"{_T_LINE}::test_full_line_gives_the_place_of_the_last_of_a_later_rank",),
    ),
    Bug(
        "a full line is full for renewals, too",
        "a flood of second certificates keeps the first ones of their kind from being renewed",
        _LINE,
        "            if other > rank and len(self._waiting[other]) > share:\n",
        "            if False:\n",
        (
            f"{_T_LINE}::test_full_line_gives_the_place_of_the_last_of_a_later_rank",
            f"{_T_LIMITS}::test_flood_of_second_certificates_refuses_itself_and_no_renewal",
        ),
    ),
    Bug(
        "newcomers overtake those who wait",
        "whoever asks at the right moment is signed for before all who were told to wait",
        _LIMITS,
        "        if self._timer is not None or now < self._next_free:\n",
        "        if now < self._next_free:\n",
        (f"{_T_LIMITS}::test_newcomers_overtake_nobody",),
    ),
    Bug(
        "turns that came late are lost",
        "a busy leader signs less than it may",
        _LIMITS,
        "            self._next_free += 1 / self.per_second\n",
        "            self._next_free = self._clock.monotonic() + 1 / self.per_second\n",
        (f"{_T_LIMITS}::test_turns_that_came_while_the_loop_was_held_up_are_not_lost",),
    ),
    Bug(
        "a slot that comes in the moment of giving up is lost",
        "each time it happens the CA signs one less at a time, until it signs none",
        _LIMITS,
        "        except asyncio.CancelledError:\n            if _has_come(turn):\n                self._leave_slot()\n",
        "        except asyncio.CancelledError:\n",
        (f"{_T_LIMITS}::test_slot_that_comes_in_the_moment_of_giving_up_is_not_lost",),
    ),
    Bug(
        "all certificates of an identity are looked through",
        "asking for a rank takes seconds where a service has had millions",
        _LEDGER,
        "WHERE identity = (SELECT max(id) FROM identity WHERE spiffe_id = ?) ORDER BY id DESC LIMIT 1",
        "WHERE identity IN (SELECT id FROM identity WHERE spiffe_id = ?) ORDER BY not_before DESC LIMIT 1",
        (
            f"{_T_LEDGER}::test_newest_of_many_is_one_look_up",
            f"{_T_LEDGER}::test_newest_is_the_one_that_was_issued_last",
        ),
    ),
    # -- before anybody is known
    Bug(
        "a stranger's handshake is as large as OpenSSL takes it",
        "a chain of three hundred certificates costs the thread that leads as much as sixty handshakes",
        _TLS,
        "MAX_HANDSHAKE_BYTES: Final = 16 << 10\n",
        "MAX_HANDSHAKE_BYTES: Final = 16 << 20\n",
        (
            f"{_T_CHAINS}::test_what_is_larger_is_refused_before_it_is_read",
            f"{_T_CHAINS}::test_strangers_chain_costs_a_handshake_milliseconds",
        ),
    ),
    Bug(
        "what follows a handshake is cut off",
        "a member that begins with a long request is not understood",
        _TLS,
        "        self.arriving.write(rest)  # what",
        "        # what",
        (f"{_T_CHAINS}::test_what_follows_the_handshake_at_once_may_be_long",),
    ),
)
