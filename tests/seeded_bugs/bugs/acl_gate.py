"""Access control: the one gate of endpoints and operations, and what is judged more than once."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ACCESS: Final = "cluster/node/access.py"
_APP: Final = "cluster/http/app.py"
_AUTHORIZER: Final = "cluster/access/authorizer.py"
_CERTS: Final = "cluster/http/routes/certs.py"
_DIRECTORY: Final = "cluster/access/directory.py"
_GATE: Final = "cluster/http/gate.py"
_GRANTED: Final = "providers/pki/granted.py"
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
_T_NODES: Final = "tests/parts/node/test_gate.py"
_T_OPERATIONS: Final = f"{_T_NODES}::test_operation_is_done_for_nobody_who_lacks_its_right"
_T_RECORD: Final = "tests/integration/test_gate.py::test_record_shows_own_rows_and_says_nothing_of_the_others"

BUGS: Final = (
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
        "        asked = [*zip(envelope.requests, secret_ids, strict=True)]\n",
        "        asked = [(request, max(secret_ids)) for request in envelope.requests]\n",
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
        "        caller.require(SERVICE_WRITE, service)\n        while True:\n",
        "        while not caller.rules.grant:\n",
        (f"{_T_NODES}::test_leaf_in_the_cache_is_for_nobody_who_might_not_have_asked_for_it",),
    ),
    Bug(
        "a leaf from the cache is handed out without another look",
        "a right that was taken away is good for as long as a query waits",
        _LEAVES,
        "            before, caller = caller, self._access.judged_again(caller)\n            caller.require",
        "            before = caller\n            caller.require",
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
        (_T_RECORD,),
    ),
    Bug(
        "DNS names are not judged by the grant",
        "who may have a certificate for one host has one for every host",
        _GRANTED,
        "        if not _is_covered(host, grant):\n",
        "        if not isinstance(host, x509.DNSName) and not _is_covered(host, grant):\n",
        (f"{_T_BYTES}::test_every_kind_of_name_is_judged",),
    ),
)
