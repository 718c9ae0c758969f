"""What stands around access control: files with tokens, TLS of the API, what is checked before a release."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_FILES: Final = "cluster/cli/files.py"

_APP: Final = "cluster/http/app.py"
_ACL_WORK: Final = "cluster/node/acl_work.py"
_CONFIG: Final = "cluster/base/config.py"

_T_INITIAL: Final = "tests/parts/node/test_initial_management.py"
_T_CONFIG: Final = "tests/unit/base/test_config.py"
_T_DEV: Final = "tests/parts/cli/test_dev.py"
_T_SCAN: Final = "tests/security/test_tls_scan.py"
_T_CA: Final = "tests/parts/cli/test_ca.py"
_T_FLAGS: Final = "tests/parts/cli/test_api_flags.py"

BUGS: Final = (
    Bug(
        "a token is read from a file that everybody can read",
        "whoever has an account on an operator's machine is the operator",
        _FILES,
        " and mode & (stat.S_IRWXG | stat.S_IRWXO):\n",
        " and False:\n",
        (f"{_T_FLAGS}::test_token_file_that_others_can_get_at_is_refused",),
    ),
    Bug(
        "a CA's key goes over the network in clear",
        "whoever is on the way has the root's private key, or the login to Vault",
        "cluster/cli/ca.py",
        "    api = api_from(args, carries_secret=_holds_secret(config))\n",
        "    api = api_from(args)\n",
        (f"{_T_CA}::test_keys_and_logins_of_a_provider_go_over_tls_or_to_this_machine",),
    ),
    Bug(
        "whoever is first may bootstrap a cluster whose first token is in a file",
        "in the seconds before the leader makes it, any client has the cluster for itself",
        _ACL_WORK,
        "        if self._initial_management_file is not None and not self._replica.state.acl.bootstrap_index:\n",
        "        if False:\n",
        (f"{_T_INITIAL}::test_nobody_comes_before_it",),
    ),
    Bug(
        "the first token is asked for again into the file that has it",
        "the commands of `quorumca dev`, pasted a second time, empty the file with the only token there is",
        "cluster/cli/dev/command.py",
        '            f"test -s {file} ||"\n            f" (umask',
        '            f"true &&"\n            f" (umask',
        (f"{_T_DEV}::test_commands_where_nothing_is_allowed_without_a_token",),
    ),
    Bug(
        "the API speaks TLS 1.1",
        "whoever is on the way between a client and the API makes them use what has been broken for years",
        _APP,
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n    context.set_ciphers(_TLS12_CIPHERS)\n",
        '    context.minimum_version = ssl.TLSVersion.TLSv1\n    context.set_ciphers("ALL:@SECLEVEL=0")\n',
        (f"{_T_SCAN}::test_scanner_finds_todays_tls_and_nothing_else",),
    ),
    Bug(
        "the API takes ciphers without forward secrecy or authenticated encryption",
        "recorded answers, with private keys of leaves in them, are open to whoever gets the API's key later",
        _APP,
        "    context.set_ciphers(_TLS12_CIPHERS)\n",
        '    context.set_ciphers("HIGH:!aNULL")\n',
        (f"{_T_SCAN}::test_scanner_finds_todays_tls_and_nothing_else",),
    ),
    Bug(
        "the API gives out session tickets",
        "sessions go on after trust was withdrawn, and the key of tickets opens what was recorded",
        _APP,
        "    context.num_tickets = 0\n    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION\n",
        "",
        (
            f"{_T_SCAN}::test_no_session_is_resumed_with_a_ticket",
            f"{_T_SCAN}::test_tls_1_2_of_the_api_has_no_tickets_either",
        ),
    ),
    Bug(
        "what pip-audit could not look up counts as good",
        "a release with a known vulnerability passes wherever PyPI cannot be asked",
        "tests/audit/online.py",
        """    unasked = f"{len(skipped)} not known there, such as {skipped[0]['name']}" if skipped else ""\n""",
        """    unasked = ""\n""",
        ("tests/audit/test_audit.py::test_what_pip_audit_prints",),
    ),
    Bug(
        "what no rule speaks of is allowed off loopback, too",
        "a cluster on a network is everybody's until somebody thinks of [acl]",
        _CONFIG,
        "return all(is_loopback(address) for address in (self.http.address, self.raft.address, self.rpc.address))",
        "return True",
        (f"{_T_CONFIG}::test_what_no_rule_speaks_of_is_denied_where_other_machines_can_get",),
    ),
    Bug(
        "the API is in clear on any address",
        "private keys of leaves and tokens travel where others can read them, and nobody has asked for it",
        _CONFIG,
        " and not self.allow_plaintext_off_loopback and not is_loopback(self.address):\n",
        " and False:\n",
        (f"{_T_CONFIG}::test_api_in_clear_off_loopback_is_asked_for_in_so_many_words",),
    ),
    Bug(
        "a provider of the CA may read the tokens of the node",
        "whoever may change the CA's configuration has the management token sent to an address of theirs",
        _CONFIG,
        """            "acl.initial_management_file": self.acl.initial_management_file,\n""",
        "",
        (f"{_T_CONFIG}::test_tokens_are_not_where_a_provider_may_read",),
    ),
)
