"""Logins and keys that a configuration could send elsewhere, have read, or show; and a Vault that says anything."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_AUTH: Final = "providers/vault/auth.py"
_CLIENT: Final = "providers/vault/client.py"
_CONFIG: Final = "providers/vault/config.py"
_FILES: Final = "providers/vault/files.py"
_ISSUING: Final = "providers/vault/issuing.py"
_MOUNT: Final = "providers/vault/mount.py"
_TRANSPORT: Final = "providers/vault/transport.py"
_VAULT: Final = "providers/vault/provider.py"
_SECRETS: Final = "providers/config/secrets.py"
_TEXTS: Final = "providers/texts.py"
_SETTINGS: Final = "cluster/ca/settings.py"
_OPENED: Final = "cluster/ca/opened.py"
_RECONFIGURE: Final = "cluster/ca/reconfigure.py"
_ROTATION: Final = "cluster/ca/rotation.py"
_NODE_CONFIG: Final = "cluster/base/config.py"
_LOG: Final = "cluster/base/log.py"
_TELEMETRY: Final = "cluster/base/telemetry.py"
_WIRE: Final = "cluster/base/wire.py"
_FORWARD: Final = "cluster/rpc/forward.py"
_ROUTE: Final = "cluster/http/routes/configuration.py"

_T_HOSTILE: Final = "tests/parts/ca/test_vault_hostile.py"
_T_FILES: Final = "tests/parts/providers/vault/test_files.py"
_T_TRANSPORT: Final = "tests/parts/providers/vault/test_transport.py"
_T_SECRETS: Final = "tests/unit/providers/test_secrets.py"
_T_MOVED: Final = f"{_T_HOSTILE}::test_stored_login_is_not_sent_elsewhere"
_T_TAMPERED: Final = f"{_T_HOSTILE}::test_configuration_that_was_changed_beside_its_sealed_login_gets_none_of_it"
_T_OUT: Final = f"{_T_FILES}::test_what_leads_out_of_the_directory_is_refused"
_T_PLAIN: Final = f"{_T_FILES}::test_only_a_plain_file_of_a_login_s_size_is_read_and_nothing_is_waited_for"
_T_ODD: Final = f"{_T_TRANSPORT}::test_answer_that_no_vault_gives_is_a_failure_in_few_words_and_in_time"
_T_NEVER: Final = f"{_T_HOSTILE}::test_mount_that_will_never_do_is_told_at_once_and_no_other_is_made"
_T_FOR_GOOD: Final = (
    f"{_T_HOSTILE}::test_refusal_for_good_ends_the_change_at_once_and_leaves_no_mount[400-root/sign-intermediate]"
)

BUGS: Final = (
    # -- secrets go only to where they were given for
    Bug(
        "a stored login goes wherever a change points",
        "whoever may change the configuration has Vault's token sent to an address of their own",
        _SETTINGS,
        "    _require_same_destination(settings, stored, kept)\n",
        "",
        (_T_MOVED,),
    ),
    Bug(
        "TLS trust is no place",
        "the token goes to whoever is between a node and Vault, once the check of its certificate is switched off",
        _CONFIG,
        '        "TLSSkipVerify": fields.flag("TLSSkipVerify", default=False),\n    }\n',
        "    }\n",
        (_T_MOVED,),
    ),
    Bug(
        "a configuration is not bound to its secrets",
        "who can write a snapshot, or a node's files, has the sealed token sent to an address of their own",
        _OPENED,
        "    if config.config_json == record.config_json or",
        "    if True or",
        (_T_TAMPERED,),
    ),
    Bug(
        "redirects are left to the library",
        "a Vault, or a proxy in front of it, sends the token on to anywhere",
        _TRANSPORT,
        "session=session, allow_redirects=False)",
        "session=session, allow_redirects=True)",
        (f"{_T_TRANSPORT}::test_redirect_to_another_origin_is_not_followed",),
    ),
    Bug(
        "proxies of the environment are used",
        "a token for Vault goes through whatever HTTP_PROXY names, in clear where Vault is spoken to so",
        _TRANSPORT,
        "    session.trust_env = False\n",
        "",
        (f"{_T_TRANSPORT}::test_proxy_of_the_environment_is_not_used",),
    ),
    # -- files
    Bug(
        "a login may be in any file",
        "the passphrase of the seal is read as a JWT, and sent to an address of the reader's own",
        _FILES,
        "        if os.path.commonpath([root, wanted]) != root:\n",
        "        if False:\n",
        (_T_OUT,),
    ),
    Bug(
        "links lead out of the directory",
        "whoever can make a link below it has any file of the node read",
        _FILES,
        "            wanted = os.path.realpath(os.path.join(root, path))\n",
        "            wanted = os.path.abspath(os.path.join(root, path))\n",
        (f"{_T_FILES}::test_paths_below_the_directory_are_read_also_through_links_that_stay_there",),
    ),
    Bug(
        "a link is followed after it was looked at",
        "whoever puts a link in between looking and opening has any file of the node read",
        _FILES,
        "_PLAIN | os.O_NOFOLLOW, dir_fd=at)",
        "_PLAIN, dir_fd=at)",
        (f"{_T_FILES}::test_link_that_comes_in_between_looking_and_opening_is_not_followed",),
    ),
    Bug(
        "anything is a file",
        "a pipe, a socket or a device is read as a login",
        _FILES,
        "    found = os.fstat(descriptor)\n    if not stat.S_ISREG(found.st_mode):\n",
        "    found = os.fstat(descriptor)\n    if False:\n",
        (_T_PLAIN,),
    ),
    Bug(
        "our own TLS key may be anywhere",
        "a configuration has the node's own key used towards any address, those of its peers included",
        _TRANSPORT,
        "        with tls.files.opened(tls.cert_file) as cert, tls.files.opened(tls.key_file) as key:\n",
        "        with opened_ca(tls.cert_file) as cert, opened_ca(tls.key_file) as key:\n",
        (f"{_T_FILES}::test_own_certificate_and_key_lie_where_logins_do",),
    ),
    Bug(
        "own keys may lie among credentials",
        "the seal's key may be read by a configuration",
        _NODE_CONFIG,
        "        self._keep_keys_out_of_credentials()\n",
        "",
        ("tests/unit/base/test_config.py::test_own_keys_must_not_lie_where_the_ca_may_have_files_read",),
    ),
    # -- what looks like a secret
    Bug(
        "a secret under another name is stored",
        "a mistyped key has a token or a private key replicated and shown in clear",
        _SETTINGS,
        "    _require_no_secret(provider, config)\n",
        "",
        (f"{_T_HOSTILE}::test_secret_under_a_name_that_is_not_kept_secret_is_refused_and_named",),
    ),
    Bug(
        "only names tell a secret",
        "a RootCert with the key in it is stored, replicated and shown",
        _SECRETS,
        "    return looks_secret(key) or (isinstance(value, str) and looks_secret(value))\n",
        "    return False\n",
        (f"{_T_SECRETS}::test_contents_of_a_secret_are_one_under_any_name",),
    ),
    Bug(
        "names count in one spelling",
        "`private_key` and `Vault-Token` are no secrets",
        _SECRETS,
        'if not is_public and _NAMES.search(re.sub(r"[^a-z0-9]", "", key.casefold())):\n',
        "if not is_public and _NAMES.search(key):\n",
        (f"{_T_SECRETS}::test_name_of_a_secret_is_one_in_any_spelling_and_depth",),
    ),
    Bug(
        "what was stored in clear is shown",
        "a secret that a release before has stored under an unknown name is shown to whoever asks",
        _ROUTE,
        "sorted_maps(without_secrets(_config_map(config.config_json)))",
        "sorted_maps(_config_map(config.config_json))",
        ("tests/parts/http/test_resources.py::test_secret_that_a_release_before_has_stored_in_clear_is_not_shown",),
    ),
    Bug(
        "known keys count in one spelling",
        "`private_key` is refused, or its value ignored, where Consul's own files spell it so",
        _SETTINGS,
        "        named[key if is_read else str(name)] = value\n",
        "        named[key] = value\n",
        ("tests/unit/ca/test_settings.py::test_known_key_counts_in_any_spelling_and_an_unknown_one_stays",),
    ),
    # -- what a Vault says
    Bug(
        "one line of any length",
        "a Vault fills log, answers and commands with what it likes",
        _TEXTS,
        '    return shown if len(whole) <= 2 * limit and len(shown) <= limit else f"{shown[:limit]}... ({len(whole)} '
        'characters)"\n',
        "    return whole\n",
        ("tests/unit/providers/test_texts.py", f"{_T_TRANSPORT}::test_reasons_of_a_vault_are_cut"),
    ),
    Bug(
        "error texts of any length between processes",
        "an add-on's error makes a command too large to commit",
        _WIRE,
        '    return bounded(str(error).encode("utf-8", "replace").decode())\n',
        '    return str(error).encode("utf-8", "replace").decode()\n',
        ("tests/unit/base/test_wire.py::test_text_of_any_length_arrives_short_and_obeys_no_terminal",),
    ),
    Bug(
        "lines of the log of any length",
        "a disk is filled by one text, again and again",
        _TELEMETRY,
        "            _bounded,\n",
        "",
        ("tests/unit/base/test_telemetry.py::test_line_of_the_log_is_bounded",),
    ),
    Bug(
        "the same trouble is told at each try",
        "a log is filled by one Vault that is away",
        _LOG,
        "        if self._said.get(name) == text:\n",
        "        if False:\n",
        (f"{_T_HOSTILE}::test_trouble_that_stays_is_told_once",),
    ),
    Bug(
        "encodings that were not asked for",
        "a megabyte of an answer is a gigabyte in memory",
        _TRANSPORT,
        '    if response.headers.get("Content-Encoding", "identity") != "identity":\n',
        "    if False:\n",
        (_T_ODD,),
    ),
    Bug(
        "ids of any form",
        "a Vault names paths of its own choice, and fills the state with what it likes",
        _MOUNT,
        "    if text and not _ID.fullmatch(text):\n",
        "    if False:\n",
        (f"{_T_HOSTILE}::test_id_that_is_none_is_neither_asked_for_nor_kept",),
    ),
    # -- what Vault refuses for good, and what counts
    Bug(
        "every refusal may pass",
        "a kv mount is tried again for a minute, and the operator told that a leader was lost",
        _CLIENT,
        "                kind = VaultRefused if _is_for_good(answer) else VaultFailed\n",
        "                kind = VaultFailed\n",
        (_T_FOR_GOOD,),
    ),
    Bug(
        "no refusal may pass",
        "a Vault that is busy for a second ends a rotation",
        _CLIENT,
        "                kind = VaultRefused if _is_for_good(answer) else VaultFailed\n",
        "                kind = VaultRefused\n",
        (f"{_T_HOSTILE}::test_reason_that_can_pass_is_waited_for",),
    ),
    Bug(
        "the mount for intermediates is not looked at",
        "a root mount is made before it is found out that the other one cannot be used",
        _ISSUING,
        "        self.find_root()\n        self._intermediate.ca_pem()\n",
        "        self.find_root()\n",
        (_T_NEVER,),
    ),
    Bug(
        "any path length will do",
        "a root that cannot sign an intermediate is found out in the middle of a rotation",
        _ISSUING,
        "        self._require_room(ordered)\n",
        "",
        (_T_NEVER,),
    ),
    Bug(
        "the root mount of a vain attempt stays",
        "each change that fails leaves a mount with a CA in it",
        _ROTATION,
        "        await self._clean_up(state, sealed, is_unused=not is_known)\n",
        "        await self._clean_up(state, sealed, is_unused=False)\n",
        (_T_FOR_GOOD,),
    ),
    Bug(
        "a root mount of somebody else is removed",
        "a change that fails removes the CA that an operator has put there",
        _VAULT,
        "            if root.is_made_for(ROOT_DESCRIPTION) and self._issuing().has_only(root, state.intent):\n",
        "            if True:\n",
        (f"{_T_HOSTILE}::test_mount_of_somebody_else_stays_when_a_change_fails",),
    ),
    Bug(
        "a change counts unproved",
        "an address where nobody listens is taken, and signing ends",
        _RECONFIGURE,
        "                is_key_lost = await self._prove(candidate, state, root)\n",
        "                is_key_lost = False\n",
        (f"{_T_HOSTILE}::test_address_where_nobody_listens_is_refused",),
    ),
    Bug(
        "a leader that is there is called lost",
        "an operator looks for a failed node while Vault refuses",
        _FORWARD,
        "            raise unknown or self._unknown(term)\n",
        "            raise self._unknown(-1)\n",
        ("tests/parts/rpc/test_forward.py::test_unknown_outcome_is_told_in_the_words_of_who_does_not_know_it",),
    ),
)
