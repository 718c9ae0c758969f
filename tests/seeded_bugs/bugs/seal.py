"""How private keys are sealed, and who can open them."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_SEAL: Final = "cluster/seal/sealer.py"
_SOURCES: Final = "cluster/seal/sources.py"
_CA_CONFIG: Final = "cluster/ca/settings.py"

_T_SEAL: Final = "tests/unit/seal/test_seal.py"
_T_CA_CONFIG: Final = "tests/unit/ca/test_settings.py"
_T_SALT: Final = f"{_T_SEAL}::test_passphrase_is_stretched_with_a_salt_of_each_cluster"
_T_START: Final = f"{_T_SEAL}::test_node_with_another_key_does_not_start"
_T_FILE: Final = f"{_T_SEAL}::test_damaged_key_file_is_told_apart_from_a_key"

BUGS: Final = (
    Bug(
        "a secret is not bound to its purpose",
        "whoever can write the log puts one provider's key in the place of another's",
        _SEAL,
        "        return nonce + self._cipher().encrypt(nonce, secret, context.encode())\n\n"
        "    def open(self, sealed: bytes, context: str) -> bytes:\n"
        '        """Raises: SealError when the bytes were not sealed by this cluster for this purpose."""\n'
        "        try:\n"
        "            return self._cipher().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())\n",
        '        return nonce + self._cipher().encrypt(nonce, secret, b"")\n\n'
        "    def open(self, sealed: bytes, context: str) -> bytes:\n"
        "        try:\n"
        '            return self._cipher().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], b"")\n',
        (f"{_T_SEAL}::test_secret_opens_under_its_own_name_only",),
    ),
    Bug(
        "one nonce for all secrets",
        "two sealed keys open each other, and with them AES-GCM's own key for forgeries",
        _SEAL,
        "        nonce = secrets.token_bytes(_NONCE_BYTES)\n        return nonce + self._cipher()",
        "        nonce = bytes(_NONCE_BYTES)\n        return nonce + self._cipher()",
        (f"{_T_SEAL}::test_same_secret_never_seals_to_the_same_bytes",),
    ),
    Bug(
        "one nonce for all data keys",
        "the data keys of two clusters with the same seal key open each other",
        _SEAL,
        "    nonce = secrets.token_bytes(_NONCE_BYTES)\n    wrapped",
        "    nonce = bytes(_NONCE_BYTES)\n    wrapped",
        (f"{_T_SEAL}::test_each_cluster_has_a_data_key_of_its_own",),
    ),
    Bug(
        "the same data key for all",
        "whoever has seen one cluster's opens the keys of every cluster, without a seal key",
        _SEAL,
        "encrypt(nonce, secrets.token_bytes(KEY_BYTES), _WRAP_CONTEXT)",
        "encrypt(nonce, bytes(KEY_BYTES), _WRAP_CONTEXT)",
        (f"{_T_SEAL}::test_each_cluster_has_a_data_key_of_its_own",),
    ),
    Bug(
        "seal keys that are no random numbers",
        "everybody can open what is sealed",
        _SOURCES,
        "base64.b64encode(secrets.token_bytes(KEY_BYTES))",
        "base64.b64encode(bytes(KEY_BYTES))",
        (f"{_T_SEAL}::test_wrong_key_does_not_unlock_and_names_both",),
    ),
    Bug(
        "the seal key is readable by everybody on the host",
        "any process of the host opens the CA's private keys",
        _SOURCES,
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)",
        (f"{_T_SEAL}::test_key_file_is_private_and_never_replaced",),
    ),
    Bug(
        "a seal key is replaced",
        "`quorumca seal init` in the wrong directory loses the CA's private keys for ever",
        _SOURCES,
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)",
        "os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)",
        (f"{_T_SEAL}::test_key_file_is_private_and_never_replaced",),
    ),
    Bug(
        "any file is a seal key",
        "a node starts with a file of another purpose or version as its key",
        _SOURCES,
        "            if header == _FILE_HEADER and len(key) == KEY_BYTES:\n",
        "            if len(key) == KEY_BYTES:\n",
        (_T_FILE,),
    ),
    Bug(
        "seal keys of any length",
        "a key file that was cut off counts, and seals with less",
        _SOURCES,
        "            if header == _FILE_HEADER and len(key) == KEY_BYTES:\n",
        "            if header == _FILE_HEADER:\n",
        (_T_FILE,),
    ),
    Bug(
        "short passphrases",
        "whoever has a copy of the disk tries all of them in an afternoon",
        _SOURCES,
        "        if len(passphrase) < _MIN_PASSPHRASE_LENGTH:\n",
        "        if False:\n",
        (f"{_T_SEAL}::test_short_passphrase_is_refused",),
    ),
    Bug(
        "one salt for all clusters",
        "one table of passphrases opens every cluster that uses one of them",
        _SOURCES,
        "        return secrets.token_bytes(16)\n",
        "        return bytes(16)\n",
        (_T_SALT,),
    ),
    Bug(
        "passphrases without the salt",
        "as above, although each cluster has a salt; and a new version opens nothing that is sealed already",
        _SOURCES,
        "Scrypt(salt, KEY_BYTES,",
        'Scrypt(b"", KEY_BYTES,',
        (_T_SALT,),
    ),
    Bug(
        "passphrases are hardly stretched",
        "whoever has a copy of the disk tries a thousand times as many; and nothing that is sealed already opens",
        _SOURCES,
        '{"n": 1 << 15, "r": 8, "p": 3}',
        '{"n": 1 << 5, "r": 8, "p": 3}',
        (_T_SALT,),
    ),
    Bug(
        "a node starts with another seal key",
        "it votes, and may lead, and then cannot open the CA's keys",
        _SEAL,
        "        if _key_id(kek) != kek_id:\n",
        "        if False:\n",
        (_T_START,),
    ),
    Bug(
        "a node starts with another source of its seal key",
        "a wrong line in its configuration shows at the next election",
        _SEAL,
        "        if source != self._source.name:\n",
        "        if False:\n",
        (_T_START,),
    ),
    Bug(
        "a new node starts without a seal key",
        "it joins the cluster, and cannot take over",
        _SEAL,
        "        if facts is None:\n            self._source.key(self._source.new_salt())\n            return\n",
        "        if facts is None:\n            return\n",
        (f"{_T_SEAL}::test_new_node_needs_a_key_too",),
    ),
    Bug(
        "a node that took the cluster's seal for its own is not told",
        "an operator looks for a lost key where only a line of the configuration is wrong",
        _SEAL,
        "        if not others:\n",
        "        if False:\n",
        (f"{_T_SEAL}::test_other_source_does_not_unlock_and_says_what_to_set",),
    ),
    # -- secrets of the configuration
    Bug(
        "secrets stay in the configuration",
        "GET configuration shows the CA's private key to everybody",
        _CA_CONFIG,
        "    config = {key: value for key, value in named.items() if folded(key) not in secret_names}\n",
        "    config = dict(named)\n",
        (f"{_T_CA_CONFIG}::test_secrets_are_kept_apart_whatever_their_spelling",),
    ),
    Bug(
        "secrets are known in one spelling only",
        "who writes `privatekey` has it shown to everybody",
        _CA_CONFIG,
        "    config = {key: value for key, value in named.items() if folded(key) not in secret_names}\n",
        "    config = {key: value for key, value in named.items() if key not in secret_keys(provider)}\n",
        (f"{_T_CA_CONFIG}::test_secrets_are_kept_apart_whatever_their_spelling",),
    ),
    Bug(
        "secrets of an unknown provider are none",
        "a mistyped provider name shows the token that came with it",
        _CA_CONFIG,
        "    except ConfigInvalid:\n        return _ALWAYS_SECRET\n",
        "    except ConfigInvalid:\n        return frozenset()\n",
        (f"{_T_CA_CONFIG}::test_secrets_of_a_provider_that_is_not_installed_are_kept_apart_too",),
    ),
    Bug(
        "an omitted secret is cleared",
        "a change of a lifetime loses the operator's key, and makes a new root",
        _CA_CONFIG,
        "    kept = {key: value for key, value in stored.secrets.items() if folded(key)",
        "    kept = {key: value for key, value in {}.items() if folded(key)",
        (f"{_T_CA_CONFIG}::test_omitted_secret_is_kept_and_an_empty_one_clears",),
    ),
    Bug(
        "a stored login comes beside a new one",
        "a Token can never take the place of an AuthMethod: the provider refuses both",
        _CA_CONFIG,
        "    if any(replaced & login for login in _LOGINS):\n",
        "    if False:\n",
        (f"{_T_CA_CONFIG}::test_one_login_takes_the_place_of_the_other",),
    ),
    Bug(
        "secrets of the settings are shown",
        "a private key stands in a log or a traceback",
        _CA_CONFIG,
        "    secrets: Mapping[str, bytes] = field(repr=False)\n",
        "    secrets: Mapping[str, bytes]\n",
        (f"{_T_CA_CONFIG}::test_secrets_are_kept_apart_whatever_their_spelling",),
    ),
)
