"""Logins by certificate: what a proof must be, whose certificate counts, and that it logs in once."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_TLS: Final = "cluster/access/methods/tls.py"
_USED: Final = "cluster/access/methods/used_proofs.py"
_PROVE: Final = "cluster/access/methods/prove.py"
_MAKER: Final = "cluster/access/methods/tls_proof.py"
_KEYS: Final = "cluster/access/methods/keys.py"
_JSON: Final = "cluster/access/methods/strict_json.py"
_WORK: Final = "cluster/node/acl_work.py"
_BUILD: Final = "cluster/node/build.py"
_CLI: Final = "cluster/cli/acl/login.py"
_FETCH: Final = "cluster/access/methods/fetch.py"
_RESOLVING: Final = "cluster/access/methods/resolving.py"

_T: Final = "tests/unit/access/test_tls_login.py"
_T_FETCH: Final = "tests/parts/access/test_fetch.py"
_T_OWN: Final = "tests/parts/node/test_own_ports.py"
_T_RESOLVING: Final = "tests/parts/access/test_resolving.py"
_T_LOGIN: Final = "tests/unit/access/test_login.py"
_T_JWT: Final = "tests/unit/access/test_jwt.py"
_T_NODE: Final = "tests/unit/node/test_acl_login.py"
_T_CLI: Final = "tests/parts/cli/acl/test_login.py"

_T_DOOR: Final = f"{_T_LOGIN}::test_certificate_logs_in_by_a_proof_for_its_method_once_and_with_the_roots_of_the_moment"
_T_SIZE: Final = f"{_T}::test_size_is_looked_at_first"
_T_X5C: Final = f"{_T}::test_x5c_is_1_to_8_certificates_in_base64"
_T_HEADER: Final = f"{_T}::test_header_has_three_names_and_no_others"
_T_ORDER: Final = f"{_T}::test_signature_is_looked_at_before_the_chain_and_the_chain_before_the_claims"
_T_CLAIMS: Final = f"{_T}::test_claims_that_are_not_for_this_login_are_refused"
_T_ROOT: Final = f"{_T}::test_root_counts_as_long_as_it_is_listed"
_T_DOMAIN: Final = f"{_T}::test_certificate_of_another_trust_domain_is_refused"
_T_ONCE: Final = f"{_T}::test_proof_logs_in_once"
_T_BEGIN: Final = f"{_T}::test_certificate_that_begins_before_the_moment_of_its_name_logs_in_no_more"
_T_TABLE: Final = f"{_T}::test_table_has_bounds_and_is_freed_as_proofs_end"

BUGS: Final = (
    # -- shape
    Bug(
        "a proof of any size",
        "whoever reaches a node has the leader parse half a megabyte of certificates for each request",
        _TLS,
        "MAX_PROOF: Final = 48 << 10\n",
        "MAX_PROOF: Final = 48 << 20\n",
        (_T_SIZE,),
    ),
    Bug(
        "claims of a proof of any size",
        "they are parsed at whatever length somebody with a certificate gives them",
        _TLS,
        "_MAX_PAYLOAD: Final = 4096\n",
        "_MAX_PAYLOAD: Final = 4096 << 10\n",
        (_T_SIZE,),
    ),
    Bug(
        "a certificate in a proof has any size",
        "one of 48 KiB is decoded, with all its names, before anybody has signed anything",
        _TLS,
        "    if not isinstance(text, str) or len(text) > _MAX_BASE64:\n",
        "    if not isinstance(text, str):\n",
        (_T_SIZE,),
    ),
    Bug(
        "a proof has a chain of any length",
        "the search for a way to a root takes as long as whoever asks wants",
        _TLS,
        "    if not isinstance(given, list) or not 1 <= len(given) <= MAX_CHAIN:\n",
        "    if not isinstance(given, list) or not given:\n",
        (_T_X5C,),
    ),
    Bug(
        "a certificate in a proof has several texts",
        "what one reader takes for the same certificate is another one to the next",
        _TLS,
        """        if base64.b64encode(der) != text.encode("ascii"):\n""",
        """        if False and base64.b64encode(der) != text.encode("ascii"):\n""",
        (f"{_T}::test_base64_of_a_certificate_has_one_text",),
    ),
    Bug(
        "the parts of a token have several texts",
        "a signature has sixteen texts, and what is looked for by one of them is not found by another",
        _KEYS,
        """    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode("ascii"):\n""",
        "    if False:\n",
        (f"{_T}::test_no_changed_character_is_taken", f"{_T_JWT}::test_each_part_has_one_text"),
    ),
    Bug(
        "a name given twice in a token has its last value",
        "one reader checks a value, and another one uses the other",
        _JSON,
        "    if len(found) != len(pairs):\n",
        "    if False:\n",
        (f"{_T}::test_name_that_is_given_twice_is_refused",),
    ),
    Bug(
        "a proof's header has whatever names it likes",
        "one that says how else it must be read (crit, b64, a key of its own) is read as if it did not",
        _TLS,
        "    if header.keys() != HEADER:\n",
        "    if not header.keys() >= HEADER:\n",
        (_T_HEADER,),
    ),
    Bug(
        "anything that a certificate's key has signed is a proof",
        "a workload that signs tokens for others with its key can be made to log somebody else in",
        _TLS,
        """    if header["typ"] != TYPE:\n""",
        "    if False:\n",
        (_T_HEADER,),
    ),
    # -- whose signature, whose certificate
    Bug(
        "a proof's signature is not looked at",
        "everybody who has seen a service's certificate, which no peer hides, is the service",
        _TLS,
        "    if not key.verifies(jws.algorithm, jws.signed, jws.signature):\n",
        "    if False:\n",
        (f"{_T}::test_certificate_is_no_proof_without_its_key",),
    ),
    Bug(
        "an algorithm is the token's to choose",
        "the hash of a signature is one that its key is never used with",
        _KEYS,
        "        if algorithm not in self.algorithms:\n            return False\n",
        "",
        (f"{_T_JWT}::test_a_key_of_one_kind_is_not_used_with_the_algorithm_of_another",),
    ),
    Bug(
        "the chain of a stranger's proof is looked at",
        "strangers have the leader search for ways to a root without a key of their own",
        _TLS,
        "    _check_signature(jws, leaf)\n    _check_chain(chain, trust, now)\n",
        "    _check_chain(chain, trust, now)\n    _check_signature(jws, leaf)\n",
        (_T_ORDER,),
    ),
    Bug(
        "certificates log in whoever has issued them",
        "anybody makes a CA, and is every service",
        _TLS,
        """        verify_leaf(pem, {"roots that are listed": trust.root_pems}, now=int(now))\n""",
        "        pass\n",
        (_T_ROOT, _T_DOMAIN),
    ),
    Bug(
        "a login's roots are those of the first login",
        "certificates below a root that an operator has removed log in until the leader is started anew",
        _PROVE,
        "        self._trust = trust\n",
        "        first = trust()\n        self._trust = lambda: first\n",
        (_T_DOOR,),
    ),
    Bug(
        "a login outlives the removal of its root",
        "it gets its token although the root went while the token was being written",
        _WORK,
        "        if method.kind is MethodType.TLS and state.roots != judged.roots:\n",
        "        if False:\n",
        (f"{_T_NODE}::test_certificate_is_judged_by_the_roots_of_the_state_that_its_token_is_made_from",),
    ),
    Bug(
        "logins trust the active root alone",
        "during a rotation every workload that has no new certificate yet is locked out",
        _BUILD,
        "    return Trust(state.trust_domain, tuple(root.root_pem for root in state.roots))\n",
        "    return Trust(state.trust_domain, tuple(root.root_pem for root in state.roots if root.is_active))\n",
        (f"{_T_NODE}::test_whom_the_cluster_trusts_is_every_root_that_is_listed",),
    ),
    Bug(
        "workloads of another trust domain log in",
        "below a root that two clusters share the web of one is the web of the other",
        _TLS,
        "    if not same_trust_domain(identity.trust_domain, trust_domain):\n",
        "    if False:\n",
        (_T_DOMAIN, f"{_T_LOGIN}::test_another_certificate_is_refused"),
    ),
    Bug(
        "certificates of every kind log in",
        "a node that is called like a service is the service",
        _TLS,
        "    if identity.kind not in config.kinds:\n",
        "    if False:\n",
        (f"{_T}::test_only_kinds_of_the_method_log_in",),
    ),
    Bug(
        "workloads of another namespace log in",
        "a service of the same name that is another one has its rights",
        _TLS,
        "    if (identity.namespace, identity.partition) != (DEFAULT, DEFAULT):\n",
        "    if False:\n",
        (f"{_T}::test_identity_that_is_no_workloads_here_is_refused",),
    ),
    Bug(
        "certificates that are not valid yet log in",
        "one that was made for later is worth a token now",
        _TLS,
        "    if not leaf.not_valid_before_utc.timestamp() <= now <= leaf.not_valid_after_utc.timestamp():\n",
        "    if not now <= leaf.not_valid_after_utc.timestamp():\n",
        (f"{_T}::test_certificate_counts_while_it_is_valid",),
    ),
    # -- what it claims
    Bug(
        "a proof has claims of any name",
        "one with conditions that nobody here understands is taken without them",
        _TLS,
        "    if claims.keys() != CLAIMS:\n",
        "    if not claims.keys() >= CLAIMS:\n",
        (_T_CLAIMS,),
    ),
    Bug(
        "a proof is for every cluster",
        "a cluster to which a workload shows itself logs in as the workload at another one below the same root",
        _TLS,
        """    if claims["aud"] != audience(trust_domain):\n""",
        "    if False:\n",
        (_T_CLAIMS,),
    ),
    Bug(
        "a proof is for every method",
        "a proof for a method that gives little is worth what the one with the most gives",
        _TLS,
        """    if claims["mth"] != method:\n""",
        "    if False:\n",
        (
            _T_CLAIMS,
            _T_DOOR,
        ),
    ),
    Bug(
        "a proof was made at any time",
        "one that was made in advance, or by somebody who had the key for a minute last year, logs in",
        _TLS,
        "    if abs(now - issued) > MAX_SKEW_SECONDS:\n",
        "    if False:\n",
        (_T_CLAIMS,),
    ),
    Bug(
        "a proof ends when it likes",
        "it is remembered for years, and a few of them fill the table",
        _TLS,
        "    if not issued < ends <= issued + MAX_SECONDS:\n",
        "    if not issued < ends:\n",
        (_T_CLAIMS,),
    ),
    Bug(
        "a proof that has ended logs in",
        "it is forgotten when it ends, and good once more from then on",
        _TLS,
        "    if now >= ends:\n",
        "    if False:\n",
        (_T_CLAIMS, _T_ONCE),
    ),
    Bug(
        "the time of a proof may be true, or a fraction",
        "readers that round it differently disagree about whether it has ended",
        _TLS,
        "    if type(value) is not int or not 0 <= value <= _LAST_SECOND:\n",
        "    if not isinstance(value, int | float) or not 0 <= value <= _LAST_SECOND:\n",
        (_T_CLAIMS,),
    ),
    Bug(
        "a jti of any length",
        "workloads with a short one collide, and nobody sees why a login is refused",
        _TLS,
        """_JTI: Final = re.compile(r"[A-Za-z0-9_-]{22,128}")\n""",
        """_JTI: Final = re.compile(r"[A-Za-z0-9_-]{1,4096}")\n""",
        (_T_CLAIMS,),
    ),
    # -- not before
    Bug(
        "a certificate renews its rights after its token was revoked",
        "whoever has copied it logs in with it, gets a new one, and so on without end",
        _TLS,
        "    _check_begin(chain[0], identity.name, config)\n",
        "",
        (_T_BEGIN,),
    ),
    Bug(
        "a moment for every name is for none",
        "after a host was broken into, certificates of all its services log in",
        _TLS,
        "        if key in (name, EVERY_NAME) and",
        "        if key == name and",
        (_T_BEGIN,),
    ),
    Bug(
        "a moment for one name replaces those of others",
        "what was closed by the last revocation is open again with the next",
        "cluster/cli/acl/auth_methods.py",
        """{"NotBefore": {**before, **dict(args.tls_not_before)}}""",
        """{"NotBefore": dict(args.tls_not_before)}""",
        ("tests/parts/cli/acl/test_commands.py::test_moment_of_one_name_leaves_those_of_others",),
    ),
    # -- once
    Bug(
        "a proof logs in again and again",
        "whoever has seen one on the way has tokens of the workload for a minute",
        _USED,
        "        if proof in self._used:\n",
        "        if False:\n",
        (_T_ONCE,),
    ),
    Bug(
        "used proofs are known by their jti alone",
        "somebody who has read a jti uses it first, with a key of his own, and the workload stays out",
        _USED,
        "hashlib.sha256(key + jti.encode()).digest()",
        "hashlib.sha256(jti.encode()).digest()",
        (f"{_T}::test_what_one_key_has_used_keeps_no_other_one_out",),
    ),
    Bug(
        "used proofs are remembered without a bound",
        "a workload that logs in all the time takes the leader's memory",
        _USED,
        "        if len(self._used) >= self._most:\n",
        "        if False:\n",
        (_T_TABLE,),
    ),
    Bug(
        "one key may use all places for used proofs",
        "one workload keeps all others from logging in",
        _USED,
        "        if self._of_key[key] >= self._most_of_a_key:\n",
        "        if False:\n",
        (_T_TABLE,),
    ),
    Bug(
        "used proofs are never forgotten",
        "after some thousands of logins nobody logs in any more",
        _USED,
        "        self._forget(now)\n",
        "",
        (_T_TABLE,),
    ),
    Bug(
        "a clock that is set back makes used proofs good again",
        "a correction of the leader's clock opens what had been used",
        _USED,
        "        if ends <= self._forgotten_end:\n",
        "        if False:\n",
        (f"{_T}::test_clock_that_is_set_back_makes_no_proof_good_again",),
    ),
    # -- whom others ask about a login
    Bug(
        "one server may have all places for requests",
        "a key set that hangs keeps everybody from logging in, through whichever method",
        _FETCH,
        "        self.free = asyncio.Semaphore(MAX_OF_A_HOST)\n",
        "        self.free = asyncio.Semaphore(MAX_FETCHES)\n",
        (f"{_T_FETCH}::test_a_server_that_hangs_delays_nobody_else",),
    ),
    Bug(
        "the wait for a place is part of the deadline",
        "after somebody else's server hung, a good one has no time left to answer",
        _FETCH,
        "            async with self._place_of(url), asyncio.timeout(self._deadline_seconds):\n",
        "            async with asyncio.timeout(self._deadline_seconds), self._place_of(url):\n",
        (f"{_T_FETCH}::test_places_in_all_are_bounded_and_a_wait_for_one_is_no_part_of_the_deadline",),
    ),
    Bug(
        "a place is waited for as long as it takes",
        "logins pile up behind a server that hangs",
        _FETCH,
        "                async with asyncio.timeout(self._wait_seconds):\n",
        "                async with asyncio.timeout(600):\n",
        (f"{_T_FETCH}::test_a_server_that_hangs_delays_nobody_else",),
    ),
    Bug(
        "hosts that were asked are remembered for good",
        "whoever writes methods fills the leader's memory",
        _FETCH,
        "            if not places.users:\n",
        "            if False:\n",
        (f"{_T_FETCH}::test_who_is_given_up_leaves_no_place_taken",),
    ),
    Bug(
        "names of methods are looked up by the event loop",
        "two names whose servers hang, and no server reaches another by its name",
        _FETCH,
        "        self._resolve = resolve or Names()\n",
        """
        async def by_the_loop(host: str, port: int) -> Sequence[str]:
            found = await asyncio.get_running_loop().getaddrinfo(host, port)
            return [str(address[0]) for *_, address in found]

        self._resolve = resolve or by_the_loop
""",
        (f"{_T_FETCH}::test_no_name_of_a_method_is_looked_up_by_the_event_loop",),
    ),
    Bug(
        "a look-up ends with whoever waits for it",
        "each login at a name that hangs leaves another thread behind",
        _RESOLVING,
        "        return await asyncio.shield(self._under_way.get(host) or await self._begun(host))\n",
        "        return await (self._under_way.get(host) or await self._begun(host))\n",
        (f"{_T_RESOLVING}::test_a_host_whose_look_up_hangs_gets_no_second_one",),
    ),
    Bug(
        "a look-up is not shared",
        "one name that hangs takes the places of all",
        _RESOLVING,
        "        if (found := self._under_way.get(host)) is not None:  # somebody else has begun it meanwhile\n",
        "        if (found := None) is not None:\n",
        (f"{_T_RESOLVING}::test_who_waits_for_a_place_gets_the_look_up_that_somebody_else_has_begun_meanwhile",),
    ),
    Bug(
        "a server whose name cannot be looked up has no ports",
        "while the name server hangs, a method asks the cluster itself",
        "cluster/node/own_ports.py",
        "            if isinstance(error, socket.gaierror) and error.errno in _NOWHERE:\n",
        "            if True:\n",
        (
            f"{_T_OWN}::test_nothing_is_no_port_of_a_server_whose_name_cannot_be_looked_up[hangs]",
            f"{_T_OWN}::test_nothing_is_no_port_of_a_server_whose_name_cannot_be_looked_up[try again]",
        ),
    ),
    # -- how it is made
    Bug(
        "each proof of the command has the same jti",
        "a workload logs in once in two minutes",
        _MAKER,
        """        "jti": secrets.token_urlsafe(_RANDOM_BYTES),\n""",
        """        "jti": "A" * 43,\n""",
        (f"{_T_CLI}::test_login_by_a_certificate_sends_a_proof_that_is_new_each_time",),
    ),
    Bug(
        "a proof for another certificate than the key's is sent",
        "the file that is out of date is not named, and the login is refused without a word",
        _MAKER,
        "    if key.public_key() != leaf.public_key():\n",
        "    if False:\n",
        (f"{_T}::test_command_makes_none_that_would_be_refused",),
    ),
    Bug(
        "the certificate of the connection proves who asks",
        "whoever talks to the API through a proxy cannot log in with a certificate of the mesh",
        _CLI,
        "        if args.proof_cert:\n",
        "        if args.proof_cert and not api.tls.cert_file:\n",
        (f"{_T_CLI}::test_proof_is_of_another_certificate_than_the_connection",),
    ),
    Bug(
        "a handshake that was refused may have done something",
        "an operator looks for what cannot be there",
        "cluster/client/api.py",
        '            hint = "" if _is_refused_by_tls(error) else hint\n',
        "",
        (f"{_T_CLI}::test_login_whose_handshake_is_refused_has_not_been_done",),
    ),
    Bug(
        "an error repeats the proof",
        "it is in terminals and logs while it can still log in",
        _CLI,
        """    api = replace(api, hidden=(bearer,))\n""",
        "",
        (f"{_T_CLI}::test_proof_is_repeated_by_no_error",),
    ),
)
