"""What is sent to a Vault, to which one, and what of its answers is believed."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_VAULT: Final = "providers/vault/provider.py"
_CONFIG: Final = "providers/vault/config.py"
_AUTH: Final = "providers/vault/auth.py"
_CLIENT: Final = "providers/vault/client.py"
_TRANSPORT: Final = "providers/vault/transport.py"
_BREAKER: Final = "providers/vault/breaker.py"
_PKI: Final = "providers/vault/mount.py"
_ISSUING: Final = "providers/vault/issuing.py"
_ROLES: Final = "providers/vault/roles.py"
_STATE: Final = "providers/vault/state.py"

_T_VAULT: Final = "tests/parts/providers/vault/test_vault.py"
_T_AUTH: Final = "tests/parts/providers/vault/test_auth.py"
_T_CONFIG: Final = "tests/parts/providers/vault/test_config.py"
_T_TRANSPORT: Final = "tests/parts/providers/vault/test_transport.py"
_T_BREAKER: Final = "tests/parts/providers/vault/test_breaker.py"
_T_STATE: Final = "tests/parts/providers/vault/test_state.py"
_T_ROLE: Final = f"{_T_VAULT}::test_leaves_are_signed_by_issuer_id_and_not_stored"
_T_CALLS: Final = f"{_T_VAULT}::test_mounts_root_and_intermediate_are_made_with_consuls_calls"
_T_LEAF: Final = f"{_T_VAULT}::test_leaf_that_is_not_what_was_asked_for_is_not_returned"

BUGS: Final = (
    # -- what is never sent, and never shown
    Bug(
        "any file may be a login",
        "whoever may configure the CA has the seal key, or any other file of the node, sent to a server of their own",
        _AUTH,
        "    if not _LOGIN.fullmatch(text):\n",
        "    if False:\n",
        (f"{_T_AUTH}::test_file_that_holds_no_login_is_not_sent",),
    ),
    Bug(
        "a redirect to plain HTTP is followed",
        "the token crosses the network in clear",
        _TRANSPORT,
        "        if _origin(target) != _origin(self._address) or not path",
        "        if not path",
        (f"{_T_TRANSPORT}::test_redirect_away_from_tls_is_not_followed",),
    ),
    Bug(
        "redirects without end",
        "a standby node that sends to itself keeps a worker busy",
        _TRANSPORT,
        "        for _ in range(1 + _MAX_REDIRECTS):\n",
        "        for _ in range(100 + _MAX_REDIRECTS):\n",
        (f"{_T_TRANSPORT}::test_redirects_within_the_address_are_followed_and_not_in_a_circle",),
    ),
    Bug(
        "logins are no secret",
        "GET configuration shows role and secret id to everybody",
        _VAULT,
        'frozenset({"Token", "AuthMethod", "auth_method"})',
        'frozenset({"Token"})',
        (f"{_T_VAULT}::test_provider_is_made_without_the_library",),
    ),
    Bug(
        "tokens are shown",
        "a token stands in a log or a traceback",
        _CONFIG,
        "    token: str = field(repr=False)\n",
        "    token: str\n",
        (f"{_T_CONFIG}::test_secrets_are_not_shown",),
    ),
    Bug(
        "parameters of a login are shown",
        "a secret id stands in a log or a traceback",
        _CONFIG,
        "    params: Mapping[str, object] = field(repr=False)\n",
        "    params: Mapping[str, object]\n",
        (f"{_T_CONFIG}::test_secrets_are_not_shown",),
    ),
    Bug(
        "a closed provider keeps its connection",
        "a configuration that was replaced goes on using its token",
        _VAULT,
        "        self._upkeep, self._client, self._config = None, None, None\n",
        "",
        (f"{_T_VAULT}::test_closed_provider_has_let_go_of_its_secrets",),
    ),
    Bug(
        "an operator's token is revoked",
        "after a change of the configuration the next start finds no token that works",
        _AUTH,
        "        if token is not None and self._config.auth_method:\n",
        "        if token is not None:\n",
        (f"{_T_AUTH}::test_closing_revokes_the_token_of_a_login_and_no_other",),
    ),
    Bug(
        "tokens of logins stay",
        "each start and election leaves a token that works for its whole lifetime",
        _AUTH,
        '            self._send("put", "auth/token/revoke-self", {}, token.value)\n',
        "            pass\n",
        (f"{_T_AUTH}::test_closing_revokes_the_token_of_a_login_and_no_other",),
    ),
    # -- to whom
    Bug(
        "the system's CAs are trusted beside the configured one",
        "whoever has a public certificate for Vault's name gets the token, and signs for the mesh",
        _TRANSPORT,
        "    if not (tls.ca_file or tls.ca_path):\n",
        "    if True:\n",
        (f"{_T_CONFIG}::test_only_named_cas_are_trusted",),
    ),
    Bug(
        "Vault's certificate is not checked",
        "whoever is between a node and Vault gets the token, and signs for the mesh",
        _TRANSPORT,
        "    if tls.skip_verify:\n        context.check_hostname",
        "    if True:\n        context.check_hostname",
        (f"{_T_CONFIG}::test_certificate_is_checked_unless_the_operator_says_otherwise",),
    ),
    Bug(
        "an empty CAPath trusts the system's CAs",
        "a mistyped path opens the connection to everybody with a public certificate",
        _TRANSPORT,
        "    if not files:\n",
        "    if False:\n",
        (f"{_T_CONFIG}::test_empty_ca_path_trusts_nobody",),
    ),
    Bug(
        "an answer of any size",
        "a broken proxy fills the memory of every worker",
        _TRANSPORT,
        "        if len(content) > _MAX_ANSWER_BYTES:\n",
        "        if False:\n",
        (f"{_T_TRANSPORT}::test_no_more_of_an_answer_is_read_than_an_answer_may_have",),
    ),
    # -- what is asked of it
    Bug(
        "Vault takes names from the CSR",
        "a client gets names, and an identity, that were never checked",
        _ROLES,
        '        "use_csr_sans": False,\n',
        '        "use_csr_sans": True,\n',
        (_T_ROLE,),
    ),
    Bug(
        "Vault takes the common name from the CSR",
        "a client gets a subject that was never checked",
        _ROLES,
        '        "use_csr_common_name": False,\n',
        '        "use_csr_common_name": True,\n',
        (_T_ROLE,),
    ),
    Bug(
        "the role signs any identity",
        "whoever else may use the role issues identities of other meshes",
        _ROLES,
        '        "allowed_uri_sans": [f"spiffe://{trust_domain}/*"],\n',
        '        "allowed_uri_sans": ["*"],\n',
        (_T_ROLE,),
    ),
    Bug(
        "Vault keeps every leaf",
        "millions of short-lived certificates fill Vault's storage",
        _ROLES,
        '        "no_store": True,\n',
        '        "no_store": False,\n',
        (_T_ROLE,),
    ),
    Bug(
        "leaves of Vault last as long as they like",
        "a role that others use signs for years",
        _ROLES,
        '        "max_ttl": ttl_seconds,\n',
        "",
        (_T_ROLE,),
    ),
    Bug(
        "the default issuer signs",
        "in a rotation leaves come from the CA that is not active",
        _PKI,
        '        path = f"issuer/{issuer_id}/sign/{role}" if issuer_id else f"sign/{role}"\n',
        '        path = f"sign/{role}"\n',
        (_T_ROLE,),
    ),
    Bug(
        "Vault takes an intermediate's values from the CSR",
        "a CSR decides what the CA may do",
        _PKI,
        '{"use_csr_values": False, "format": "pem", "max_path_length": 0}',
        '{"use_csr_values": True, "format": "pem", "max_path_length": 0}',
        (_T_CALLS,),
    ),
    Bug(
        "an intermediate of Vault without a limit below it",
        "whoever may use its mount can make further CAs, which nobody knows of",
        _PKI,
        '{"use_csr_values": False, "format": "pem", "max_path_length": 0}',
        '{"use_csr_values": False, "format": "pem"}',
        (_T_CALLS,),
    ),
    Bug(
        "leaves of Vault outlive their issuer",
        "Vault refuses each leaf in the last days of an intermediate",
        _ROLES,
        "min(now - backdate + ttl_seconds, issuer_not_after)",
        "now - backdate + ttl_seconds",
        (f"{_T_VAULT}::test_leaf_asked_of_vault_ends_with_its_issuer_and_none_is_asked_after_it",),
    ),
    Bug(
        "leaves are asked of an expired issuer",
        "clients get Vault's words for it, and no reason",
        _ROLES,
        "    if now > issuer_not_after:\n",
        "    if False:\n",
        (f"{_T_VAULT}::test_leaf_asked_of_vault_ends_with_its_issuer_and_none_is_asked_after_it",),
    ),
    # -- leaves that it signs
    Bug(
        "a leaf for another key",
        "a mixed-up answer gives a client somebody else's certificate",
        _ROLES,
        "    if keys.key_id(public_key(cert)) != csr.key_id:\n",
        "    if False:\n",
        (_T_LEAF,),
    ),
    Bug(
        "a leaf of another issuer",
        "a CA that was replaced in Vault signs for the mesh, and no renewal begins",
        _ROLES,
        "    if authority_key_id(cert) != subject_key_id(signing_cert):\n",
        "    if False:\n",
        (f"{_T_VAULT}::test_leaf_below_another_intermediate_is_not_returned",),
    ),
    Bug(
        "a leaf with a subject",
        "whoever changes the role gives services the names of hosts",
        _ROLES,
        "    if cert.subject.rdns:\n",
        "    if False:\n",
        (f"{_T_VAULT}::test_leaf_with_a_subject_is_not_returned",),
    ),
    Bug(
        "a leaf with more names than were asked for",
        "whoever changes the role gives services the names of others",
        _ROLES,
        "    if extra := given - asked:\n",
        "    if False and (extra := given - asked):\n",
        (f"{_T_VAULT}::test_names_that_nobody_asked_for_are_refused",),
    ),
    Bug(
        "a leaf with fewer names than were asked for",
        "a service cannot be reached by a name that it has asked for, and nobody says why",
        _ROLES,
        "    if missing := asked - given:\n",
        "    if False and (missing := asked - given):\n",
        (f"{_T_VAULT}::test_names_that_vault_drops_are_said",),
    ),
    Bug(
        "a leaf that begins in the future",
        "clients get a leaf that nobody accepts yet, because Vault's clock is wrong",
        _ROLES,
        "    if not_before > now:\n",
        "    if False:\n",
        (f"{_T_VAULT}::test_clock_of_vault_that_is_ahead_is_noticed",),
    ),
    Bug(
        "a leaf of any lifetime",
        "whoever changes the role has leaves that work for years",
        _ROLES,
        "    if not now < not_after <= asked.not_after + BACKDATE_SECONDS:\n",
        "    if False:\n",
        (f"{_T_VAULT}::test_leaf_of_another_lifetime_is_refused",),
    ),
    Bug(
        "a leaf of Vault is not verified",
        "a leaf that only looks like one of the CA's is handed out",
        _ROLES,
        "        verify.verify_leaf(chain_pem, stores, now=now, spiffe_id=csr.spiffe_id)\n",
        "        pass\n",
        (f"{_T_VAULT}::test_leaf_that_only_names_the_issuer_is_not_returned",),
    ),
    Bug(
        "a certificate with no issuer",
        "half of an answer is taken for a whole one",
        _PKI,
        ' or not str(answer.get("issuing_ca") or "").strip():\n',
        ":\n",
        (f"{_T_VAULT}::test_blank_answer_is_refused_in_consuls_words",),
    ),
    # -- CAs that it makes
    Bug(
        "an intermediate of Vault for another key",
        "the mount holds a certificate that its key does not fit: nothing is signed any more",
        _ISSUING,
        "        if x509.public_key(cert) != check_intermediate_csr(csr_pem, self._trust_domain).key:\n",
        "        if False:\n",
        (f"{_T_VAULT}::test_intermediate_for_another_key_is_refused",),
    ),
    Bug(
        "an intermediate of Vault with room for CAs",
        "whoever may use its mount can make further CAs, which nobody knows of",
        _ISSUING,
        "        if not constraints.ca or constraints.path_length != 0:\n",
        "        if not constraints.ca:\n",
        (f"{_T_VAULT}::test_intermediate_that_is_not_what_was_asked_for_is_refused",),
    ),
    Bug(
        "an intermediate of Vault is not verified",
        "a CA that no client accepts is committed",
        _ISSUING,
        "        try:\n            verify.verify_ca(root.chain(pem), trust_domain=self._trust_domain, now=now)\n"
        "        except ChainInvalid as error:\n"
        '            raise ChainInvalid(f"intermediate from Vault does not verify: {one_line(error)}") from error\n',
        "",
        (f"{_T_VAULT}::test_intermediate_that_is_not_what_was_asked_for_is_refused",),
    ),
    Bug(
        "a cross-signed certificate is taken as it comes",
        "in a rotation clients are sent a certificate of something else",
        _ISSUING,
        "        if not is_same:\n",
        "        if False:\n",
        (f"{_T_VAULT}::test_cross_signed_certificate_that_is_not_the_one_asked_for_is_refused",),
    ),
    Bug(
        "a certificate that Vault has cross-signed is not verified",
        "a rotation is carried out whose leaves clients with the old root refuse",
        _ISSUING,
        "        verify.verify_below(cert, [], root.ca, now=request.now)\n",
        "",
        (f"{_T_VAULT}::test_cross_signed_certificate_that_is_not_the_one_asked_for_is_refused",),
    ),
    Bug(
        "a mounted CA of another mesh",
        "the cluster signs below a root that belongs to another trust domain",
        _ISSUING,
        "            if foreign:\n",
        "            if False:\n",
        (f"{_T_VAULT}::test_unusable_root_is_refused_before_anything_is_committed",),
    ),
    Bug(
        "a mounted CA is looked at once it is committed",
        "a mistyped RootPKIPath ends signing, and not only the PUT that brought it",
        _VAULT,
        "            self._issuing().look()  # refuse before anything is committed\n",
        "",
        (f"{_T_VAULT}::test_unusable_root_is_refused_before_anything_is_committed",),
    ),
    Bug(
        "a root that was replaced in Vault signs",
        "leaves lead to a root that no client has heard of",
        _VAULT,
        "        if root is None or (root.anchor_pem, root.above) != (state.root_pem, state.above):\n",
        "        if root is None:\n",
        (f"{_T_VAULT}::test_root_that_was_replaced_in_vault_is_reported_and_signs_nothing",),
    ),
    # -- when it is away, and at the end
    Bug(
        "a wrong token is taken when there is a CA",
        "a mistyped token is committed, and ends signing",
        _VAULT,
        "            if not is_complete or isinstance(error, TokenRefused) or not error.retryable:\n",
        "            if not is_complete:\n",
        (f"{_T_VAULT}::test_wrong_token_is_refused_also_when_there_is_a_ca",),
    ),
    Bug(
        "no CA without Vault",
        "a leader that is elected while Vault is away has no CA to serve",
        _VAULT,
        "            if not is_complete or isinstance(error, TokenRefused) or not error.retryable:\n",
        "            if True:\n",
        (f"{_T_VAULT}::test_trouble_is_said_and_over_when_it_is_over",),
    ),
    Bug(
        "Vault is asked whatever it has answered",
        "when it comes back it is met by every request that has failed meanwhile",
        _CLIENT,
        "        is_try = self._breaker.enter()\n",
        "        is_try = False\n",
        (f"{_T_VAULT}::test_vault_that_is_away_is_left_alone",),
    ),
    Bug(
        "a denied path is a storm of logins",
        "Vault is asked for a new token with each signature",
        _AUTH,
        "            if self._login_at is not None and self._clock() < self._login_at + _LOGIN_PAUSE_SECONDS:\n",
        "            if False:\n",
        (f"{_T_AUTH}::test_path_that_the_policy_denies_is_not_a_storm_of_logins",),
    ),
    Bug(
        "what was in use before is removed at once",
        "nodes that have not heard of the renewal yet cannot sign",
        _VAULT,
        "            if self._to_remove and self._clock() >= self._removal_due:\n",
        "            if self._to_remove:\n",
        (f"{_T_VAULT}::test_superseded_intermediate_goes_a_while_after_the_new_one_came_into_use",),
    ),
    Bug(
        "a mount goes with other keys in it",
        "another CA that shares the mount is lost",
        _VAULT,
        "        if mount.is_made_for(INTERMEDIATE_DESCRIPTION) and not _is_in_use(mount, ours):\n",
        "        if mount.is_made_for(INTERMEDIATE_DESCRIPTION):\n",
        (f"{_T_VAULT}::test_two_cas_share_a_mount_for_intermediates",),
    ),
    Bug(
        "a mount of an operator goes",
        "whatever the operator has made there is lost with it",
        _VAULT,
        "        if mount.is_made_for(INTERMEDIATE_DESCRIPTION) and not _is_in_use(mount, ours):\n",
        "        if not _is_in_use(mount, ours):\n",
        (f"{_T_VAULT}::test_mount_that_an_operator_has_made_stays",),
    ),
    Bug(
        "a state of a newer version of this provider is no state",
        "whoever installs an older version again gets a new CA, and the mesh falls apart",
        _STATE,
        '        if head["format"] > FORMAT:\n',
        "        if False:\n",
        (f"{_T_STATE}::test_state_of_a_newer_version_is_an_error",),
    ),
)
