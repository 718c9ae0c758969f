"""Access control: the one gate of endpoints and operations, and what is judged more than once."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ACCESS: Final = "cluster/node/access.py"
_APP: Final = "cluster/http/app.py"
_AUTHORIZER: Final = "cluster/access/authorizer.py"
_CACHE: Final = "cluster/agent/leaves.py"
_CERTS: Final = "cluster/http/routes/certs.py"
_DIRECTORY: Final = "cluster/access/directory.py"
_GATE: Final = "cluster/http/gate.py"
_GRANTED: Final = "providers/pki/granted.py"
_LEDGER: Final = "fsm/ledger.py"
_LEAVES: Final = "cluster/node/leaves.py"
_MESSAGES: Final = "cluster/rpc/messages.py"
_OPERATIONS: Final = "cluster/rpc/operations.py"
_PIPELINE: Final = "cluster/signing/pipeline.py"
_R_ACL: Final = "cluster/http/routes/acl.py"
_R_AGENT: Final = "cluster/http/routes/agent.py"
_SERVER: Final = "cluster/rpc/server.py"

_T_BODIES: Final = "tests/parts/http/test_gate_bodies.py"
_T_BYTES: Final = "tests/unit/providers/test_granted_bytes.py"
_T_DIRECTORY: Final = "tests/unit/access/test_directory.py"
_T_DOORS: Final = "tests/integration/test_gate.py::test_who_passes_a_door_and_who_does_not"
_T_JUDGING: Final = "tests/parts/signing/test_judging.py"
_T_LEAVES: Final = "tests/unit/agent/test_leaves.py"
_T_NODES: Final = "tests/parts/node/test_gate.py"
_T_OPERATIONS: Final = f"{_T_NODES}::test_operation_is_done_for_nobody_who_lacks_its_right"
_T_WHO: Final = "tests/parts/node/test_who_changed.py"
_T_ROWS: Final = "tests/parts/http/test_certs_rows.py"
_T_REFUSALS: Final = "tests/parts/http/test_refusals.py"
_T_RECORD: Final = "tests/integration/test_gate.py::test_record_shows_own_rows_and_says_nothing_of_the_others"

BUGS: Final = (
    Bug(
        "a token of a node that is none",
        "the name of a file is the recovery token, and anybody guesses it",
        _R_AGENT,
        "    if secret_id and not _is_uuid(secret_id):\n",
        "    if False:\n",
        ("tests/parts/http/test_secrets_shown.py::test_token_of_a_node_is_a_uuid_and_what_is_none_is_not_repeated",),
    ),
    Bug(
        "a server that speaks for another in the log",
        "whoever has taken one node over makes another, or the leader, say who has changed a right",
        _SERVER,
        "[one._replace(asked_from=recorded(one.asked_from, peer)) for one in for_whom]",
        "[one._replace(asked_from=one.asked_from) for one in for_whom]",
        (f"{_T_WHO}::test_address_is_the_word_of_the_node_that_was_asked",),
    ),
    Bug(
        "a change of rights by nobody",
        "after an attack nobody can say whose token has made the attacker's",
        "cluster/node/acl_work.py",
        "                by = judge().by\n",
        "                judge()\n",
        (f"{_T_WHO}::test_changes_of_rights",),
    ),
    Bug(
        "a change of the CA by nobody",
        "after an attack nobody can say whose token has changed the CA",
        "cluster/ca/changes.py",
        "by = LEADER if judge is None else judge().by",
        'by, _ = "operator", judge and judge()',
        (f"{_T_WHO}::test_changes_of_the_ca",),
    ),
    Bug(
        "a request without its address",
        "the log has a token's name, and not the machine at which it was stolen",
        _GATE,
        "replace(judged(access.judged_again(caller)), asked_from=address)",
        "judged(access.judged_again(caller))",
        ("tests/parts/http/test_acl_requests.py::test_service_is_told_from_where_it_is_asked",),
    ),
    Bug(
        "an end that what is logged of a login has not",
        "whoever may sign a JWT fills the disk of the leader",
        "cluster/access/selector.py",
        """(*self.texts.items(), *listed)), limit)""",
        """(*self.texts.items(), *listed)), 10**9)""",
        ("tests/unit/node/test_acl_login.py::test_what_is_logged_of_a_login_has_an_end",),
    ),
    Bug(
        "an endpoint that came to be open",
        "anybody learns of every server what only its operators may know",
        _R_AGENT,
        "Needs(AGENT_READ, is_on_this_node=True), get_self)",
        'Open("as it was once"), get_self)',
        (f"{_T_DOORS}[GET /v1/agent/self]",),
    ),
    Bug(
        "an endpoint that any token opens",
        "a token without a right lists all tokens",
        _R_ACL,
        '    _read("tokens", list_tokens),\n',
        '    _read("tokens", list_tokens, _OWN),\n',
        (f"{_T_DOORS}[GET /v1/acl/tokens]",),
    ),
    Bug(
        "who is refused is told to go on",
        "anybody sends megabytes to hear that they may not",
        _APP,
        "            await admit(access, api.refusals, node_name, route.access, request, query)\n",
        "            await go_on(request, route.max_body_bytes)\n"
        "            await admit(access, api.refusals, node_name, route.access, request, query)\n",
        (f"{_T_BODIES}::test_who_is_refused_is_refused_by_the_head_alone",),
    ),
    Bug(
        "a right on any node is one on this node",
        "who may read one agent reads all of them",
        _GATE,
        "    name = node_name if isinstance(needed, Needs) and needed.is_on_this_node else None\n",
        "    name = None\n",
        (f"{_T_DOORS}[GET /v1/agent/self]",),
    ),
    Bug(
        "an operation that came to be open",
        "any client's request through another server rotates the CA",
        _MESSAGES,
        '"rotate", RotationRequest, Nothing, needs=OPERATOR_WRITE,',
        '"rotate", RotationRequest, Nothing, needs=Judged.BETWEEN_SERVERS,',
        (f"{_T_OPERATIONS}[rotate]",),
    ),
    Bug(
        "an operation that needs less",
        "who may read policies writes them",
        _MESSAGES,
        '"acl_put", AclPutRequest, AclKeyAnswer, needs=ACL_WRITE)',
        '"acl_put", AclPutRequest, AclKeyAnswer, needs=OPERATOR_WRITE)',
        (f"{_T_OPERATIONS}[acl_put]",),
    ),
    Bug(
        "operations are judged by whoever brings them",
        "one server that was taken over does everything",
        _OPERATIONS,
        "        if isinstance(needs, Right):\n            judge()\n",
        "",
        (f"{_T_OPERATIONS}[configure]",),
    ),
    Bug(
        "one token for all requests of a message",
        "what goes together with a stronger token's request is done with its rights",
        _SERVER,
        "        asked = [*zip(envelope.requests, for_whom, strict=True)]\n",
        "        asked = [(request, max(for_whom)) for request in envelope.requests]\n",
        (f"{_T_OPERATIONS}[sign]",),
    ),
    Bug(
        "who waits for a signature was judged before the queue",
        "a revoked token gets the certificates that it has asked for under load",
        _PIPELINE,
        "            self._queue.append(_Request(csr_pem, serial, requested_by, context, judge, done))\n",
        "            known = judge()\n"
        "            self._queue.append(_Request(csr_pem, serial, requested_by, context, lambda: known, done))\n",
        (f"{_T_JUDGING}::test_what_was_taken_away_while_it_waited_counts",),
    ),
    Bug(
        "a leaf in the cache is there for everybody",
        "a token that may do nothing gets a service's private key",
        _LEAVES,
        "        caller.require(SERVICE_WRITE, service)\n"
        "        leaf, caller = await self._leaf_for(caller, service, requested_by, index, timeout_seconds)\n",
        "        leaf = await self._leaves.get(caller, service, requested_by, index, timeout_seconds)\n",
        (f"{_T_NODES}::test_leaf_in_the_cache_is_for_nobody_who_might_not_have_asked_for_it",),
    ),
    Bug(
        "a leaf from the cache is handed out without another look",
        "a right that was taken away is good for as long as a query waits",
        _LEAVES,
        "            before, caller = caller, self._access.judged_again(caller)\n",
        "            before = caller\n",
        (f"{_T_NODES}::test_leaf_in_the_cache_ends_with_the_right_to_it",),
    ),
    Bug(
        "a revoked token is kept",
        "it is good until the node is started again",
        _DIRECTORY,
        "        {token.secret_hash: token for token in acl.tokens},\n",
        '        vars(_tables_of).setdefault("kept", {}).__ior__({t.secret_hash: t for t in acl.tokens}),\n',
        (f"{_T_OPERATIONS}[configure]", f"{_T_NODES}::test_leaf_in_the_cache_ends_with_the_right_to_it"),
    ),
    Bug(
        "an expired token is good until it is taken away",
        "a token of a minute is good for half a minute more, and without a leader for ever",
        _DIRECTORY,
        "        if token is None or token.is_expired(self._clock.now()):\n",
        "        if token is None:\n",
        (_T_DIRECTORY,),
    ),
    Bug(
        "a prefix beats the very name",
        "what is denied by its name is allowed with its neighbours",
        _AUTHORIZER,
        "        if (found := self.exact.get(name)) is not None:\n            return found\n        for",
        "        for",
        (f"{_T_OPERATIONS}[sign]", f"{_T_NODES}::test_leaf_in_the_cache_is_for_nobody_who_might_not_have_asked_for_it"),
    ),
    Bug(
        "hidden rows have a place in the pages",
        "who sees nothing counts the certificates of every service",
        _CERTS,
        "        if len(own) > limit:\n            return own[:limit], own[limit - 1].index\n",
        "        if rows:\n            return own[:limit], rows[-1].index\n",
        (f"{_T_ROWS}::test_one_request_reads_no_more_than_four_pages",),
    ),
    Bug(
        "the record is looked through for whoever owns nothing in it",
        "somebody without a token keeps the thread that reads the record busy, and tells names apart by the time",
        _CERTS,
        "    if not caller.rules.gives_any(Resource.SERVICE, Level.WRITE):\n        return ()\n",
        "    if not caller.rules.gives_any(Resource.SERVICE, Level.WRITE):\n        return None\n",
        (f"{_T_ROWS}::test_nothing_is_read_for_whoever_has_nothing_there",),
    ),
    Bug(
        "a kind that is nobody's own is looked for",
        "who may write one service has the record read for what they never get",
        _CERTS,
        "    if wanted.kind not in (None, LeafKind.SERVICE):\n        return ()\n",
        "",
        (f"{_T_ROWS}::test_nothing_is_read_for_whoever_has_nothing_there",),
    ),
    Bug(
        "a service in a SPIFFE ID is not judged",
        "whether a service has certificates shows in how long the answer takes",
        _CERTS,
        "        is_own = wanted.service in (None, service) and caller.may(SERVICE_WRITE, service)\n",
        "        is_own = wanted.spiffe_id is not None or caller.may(SERVICE_WRITE, service)\n",
        (f"{_T_ROWS}::test_nothing_is_read_for_whoever_has_nothing_there",),
    ),
    Bug(
        "own rows are picked out of all",
        "how many certificates others have shows in the time and in the pages",
        _CERTS,
        "    return tuple(sorted(names)) if len(names) <= _MAX_NAMES else None\n",
        "    return None\n",
        (f"{_T_ROWS}::test_as_many_rows_are_read_however_many_others_there_are",),
    ),
    Bug(
        "a serial is looked up for whoever owns nothing",
        "anybody has the record read, for ever",
        _CERTS,
        "    if not caller.may(OPERATOR_READ) and not caller.rules.gives_any(Resource.SERVICE, Level.WRITE):\n"
        "        raise caller.refusal(OPERATOR_READ)\n",
        "",
        (f"{_T_ROWS}::test_nothing_is_read_without_a_token",),
    ),
    Bug(
        "rows of some services are found by a join over all",
        "a token for one service has every certificate stepped through",
        _LEDGER,
        "        if query.services:\n            return self._search_services(query)\n",
        "        if query.services:\n"
        "            of_all = self.search(LedgerQuery(spiffe_id=query.spiffe_id, after=query.after, limit=1 << 40))\n"
        "            return [row for row in of_all if row.record.name in query.services][: query.limit]\n",
        ("tests/unit/fsm/test_ledger.py::test_search_by_services_steps_through_no_rows_of_others",),
    ),
    Bug(
        "a command asks for what its token need not give",
        "a service cannot have a certificate by the command line without rights on the node",
        "cluster/cli/ca_sign.py",
        '    datacenters = api.texts("/v1/catalog/datacenters")\n',
        '    datacenters = [str(api.json("GET", "/v1/agent/self")["Config"]["NodeName"])]\n',
        ("tests/parts/cli/test_rights.py::test_command_asks_for_no_more_than_it_needs",),
    ),
    Bug(
        "a server on which the first token is open is not noticed",
        "whoever asks first while it leads has the cluster",
        "cluster/doctor/live.py",
        "    _bootstrap,\n",
        "",
        ("tests/unit/doctor/test_live.py::test_first_token_is_closed_on_every_server_or_on_none",),
    ),
    Bug(
        "DNS names are not judged by the grant",
        "who may have a certificate for one host has one for every host",
        _GRANTED,
        "        if not _is_covered(host, grant):\n",
        "        if not isinstance(host, x509.DNSName) and not _is_covered(host, grant):\n",
        (f"{_T_BYTES}::test_every_kind_of_name_is_judged",),
    ),
    Bug(
        "a leaf is kept where it was asked for, however long it lasts",
        "who may have certificates for an hour gets one for three days that was made for another token",
        _CACHE,
        "            if self._may_be_kept(entry, held):\n",
        "            if True:\n",
        (f"{_T_LEAVES}::test_leaf_that_lasts_longer_than_all_in_its_place_may_have_is_not_kept_there",),
    ),
    Bug(
        "who waits for a leaf gets it, however long it lasts",
        "who asks in the same moment as somebody who may have longer ones gets one of theirs",
        _CACHE,
        "                if is_own or self._may_be_kept(entry, held):\n",
        "                if True:\n",
        (f"{_T_LEAVES}::test_longer_leaf_of_one_is_never_handed_to_another_who_waits",),
    ),
    Bug(
        "a leaf is handed out by the rules that it was asked for with",
        "who may have shorter ones only, since a moment ago, is handed one that lasts for days",
        _LEAVES,
        "            if is_within_bound and most_seconds ==",
        "            if most_seconds ==",
        (f"{_T_NODES}::test_leaf_that_the_rules_of_now_do_not_give_is_asked_for_anew_or_refused",),
    ),
    Bug(
        "who can have no certificate may send a CSR",
        "anybody has bodies of half a megabyte read, and CSRs sent to the leader",
        _GATE,
        "        elif needed.one_of and not any(map(caller.may_some, needed.one_of)):\n",
        "        elif False:\n",
        (f"{_T_BODIES}::test_who_can_have_no_certificate_is_refused_one_by_the_head_alone",),
    ),
    Bug(
        "CSRs that are refused count for nothing",
        "a token that is too weak has the leader look at CSRs as fast as they can be sent",
        "cluster/http/context.py",
        "            await api.refusals.lacks_rights(request, accessor_id)\n",
        "",
        (f"{_T_REFUSALS}::test_csrs_that_a_token_does_not_give_are_limited_and_no_other_tokens",),
    ),
    Bug(
        "CSRs count before anybody has refused them",
        "a service that asks for many certificates at once is held up for what nobody has refused it",
        "cluster/base/rates.py",
        "            self._full_at_with_one_more(key)\n",
        "            self.take(key)\n",
        ("tests/unit/base/test_rates.py::test_what_is_only_asked_for_takes_nothing",),
    ),
    Bug(
        "of two tokens in a URL the first counts",
        "whoever passes a request on asks as somebody else than the one that was let in",
        "cluster/http/query.py",
        "            if query.setdefault(name, value) != value and name == _ONCE:\n",
        "            if query.setdefault(name, value) != value and False:\n",
        ("tests/parts/http/test_queries.py::test_two_tokens_in_one_query_string_are_refused",),
    ),
)
