"""Slips of somebody who sets a cluster up for the first time, and what they are told."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CONTEXTS: Final = "cluster/tls/contexts.py"
_TRANSPORT: Final = "cluster/raft/transport.py"
_SETTINGS: Final = "cluster/ca/settings.py"
_START: Final = "cluster/node/start.py"
_T_SETTINGS: Final = "tests/unit/ca/test_settings.py"
_T_START: Final = "tests/parts/node/test_start_words.py"
_T_DOCTOR: Final = "tests/parts/doctor/test_node.py"
_T_KEYS: Final = "tests/unit/tls/test_keys.py"
_T_LIVE: Final = "tests/unit/doctor/test_live.py"
_T_CLI_DOCTOR: Final = "tests/parts/cli/test_doctor.py"
_T_RULES: Final = "tests/unit/access/test_rules.py"
_T_TRANSPORT: Final = "tests/unit/raft/test_transport.py"

BUGS: Final = (
    Bug(
        "a node starts with another server's certificate",
        "it runs, is refused on both sides, and its own log does not say why",
        _CONTEXTS,
        "        if not found.fault and found.name is not None and (whose := self._not_its_own(found)):\n",
        '        if (whose := ""):\n',
        (f"{_T_KEYS}::test_node_does_not_start_with_a_valid_certificate_of_another_server",),
    ),
    Bug(
        "nodes start with valid certificates only",
        "one that was down when its certificate expired cannot be brought back by putting a new one in place",
        _CONTEXTS,
        "        if not found.fault and found.name is not None and (whose := self._not_its_own(found)):\n",
        "        if whose := found.fault or self._not_its_own(found):\n",
        (f"{_T_KEYS}::test_node_that_starts_with_a_certificate_that_nobody_accepts_takes_a_good_one",),
    ),
    Bug(
        "whose certificate was refused is not logged",
        "the machine with the wrong files has to be looked for",
        _TRANSPORT,
        "                names=_names_in(certificate),\n",
        '                names="",\n',
        (f"{_T_TRANSPORT}::test_who_is_refused_for_the_certificate_can_be_found",),
    ),
    Bug(
        "a new node starts with what no CA can be made of",
        "the cluster comes up, stores it, and never has a root",
        _START,
        "        if is_new:\n            raise StartError(mistake)\n",
        "",
        (f"{_T_START}::test_new_node_does_not_start_with_what_no_ca_can_be_made_of",),
    ),
    Bug(
        "a node with data does not start with what has no effect",
        "an upgrade stops nodes of a cluster that has had its CA for years",
        _START,
        "        if is_new:\n            raise StartError(mistake)\n",
        "        raise StartError(mistake)\n",
        (f"{_T_START}::test_node_with_data_starts_with_it_as_before_and_says_so",),
    ),
    Bug(
        "a mistake in the file is told before secrets are looked for",
        "a token that stands in a wrong place is in the log",
        _SETTINGS,
        "        policies_of(_first_settings(section, lambda secrets: dict.fromkeys(secrets, NOTHING)))\n",
        "",
        (f"{_T_SETTINGS}::test_mistake_is_told_on_one_line_without_secrets",),
    ),
    Bug(
        "the operator's key passes through the process with the ports",
        "what is read of that process's memory has the CA",
        _SETTINGS,
        "        if not looks_at_key:\n",
        "        if False:\n",
        (f"{_T_SETTINGS}::test_operators_key_is_looked_at_only_where_that_is_asked_for",),
    ),
    Bug(
        "misspelt keys of the file are not told",
        "the CA has the default instead, and nobody knows",
        _SETTINGS,
        "if folded(_api_key(key)) not in known)",
        "if False)",
        (f"{_T_SETTINGS}::test_keys_that_nobody_reads_are_named_as_they_stand_in_the_file",),
    ),
    # -- what the doctor says
    Bug(
        "a next key in force is not told",
        "somebody removes what looks like a leftover, and the node does not start any more",
        "cluster/doctor/data_dir.py",
        "        yield from _check_moved(config, seal)\n",
        "        pass\n",
        (f"{_T_DOCTOR}::test_key_in_force_that_is_still_the_next_one_is_a_warning",),
    ),
    Bug(
        "a file that may not be read is to be moved away",
        "whoever runs the doctor as another user breaks a node that is well",
        "cluster/doctor/data_dir.py",
        '            if isinstance(error, PermissionError)\n            else f"if the rest',
        '            if False\n            else f"if the rest',
        (f"{_T_DOCTOR}::test_node_file_that_may_not_be_read_is_not_to_be_moved_away",),
    ),
    Bug(
        "a node that forbids is taken for a dead one",
        "whoever has no token looks for a machine that is down, and takes it out of the cluster",
        "cluster/doctor/look.py",
        "            if error.status not in _FORBIDDEN:\n                raise\n",
        "            raise\n",
        (f"{_T_CLI_DOCTOR}::test_node_that_does_not_let_us_look_is_up_and_is_looked_at_as_far_as_it_lets_us",),
    ),
    Bug(
        "a doctor that may not look finds nothing wrong",
        "a script goes on with an upgrade of a cluster that nobody has looked at",
        "cluster/doctor/live.py",
        "        if view.forbidden:\n",
        "        if False:\n",
        (f"{_T_CLI_DOCTOR}::test_only_the_right_that_is_missing_is_named",),
    ),
    Bug(
        "certificates that nodes renew are warned of all their life",
        "nobody looks at the warning any more, also when a renewal has failed",
        "cluster/node/upkeep.py",
        "(_RENEWAL_IS_LATE * lifetime if self._renews else _SOON_SECONDS)",
        "_SOON_SECONDS",
        ("tests/unit/node/test_upkeep.py::test_it_is_counted_when_somebody_has_to_see_to_a_certificate",),
    ),
    Bug(
        "the doctor knows better than the node when it renews",
        "as above",
        "cluster/doctor/live.py",
        'soon.get(labels.get("certificate"), left < _NODE_CERT_SECONDS)',
        "left < _NODE_CERT_SECONDS",
        (f"{_T_LIVE}::test_certificate_that_a_node_renews_by_itself",),
    ),
    # -- what commands and rules say
    Bug(
        "a login wants the token that it is to get",
        "nobody logs in where the variable names the file for it",
        "cluster/cli/acl/login.py",
        "carries_secret=True, needs_token=False)",
        "carries_secret=True)",
        ("tests/parts/cli/acl/test_login.py::test_login_makes_the_file_that_the_other_commands_read",),
    ),
    Bug(
        "the join token stands in the command that is printed",
        "everybody on the new machine can read it in the list of processes, and be first",
        "cluster/cli/joining.py",
        '"-token-file", "-"]',
        '"-token", answer.get("Token")]',
        ("tests/parts/cli/test_join.py::test_whole_command_is_printed",),
    ),
    Bug(
        "rules that can have no effect are taken",
        "somebody believes that a name is given, or a lifetime bounded, and neither is",
        "cluster/access/rules.py",
        "    if level is not Level.WRITE and (void := sorted(set(arguments) & _ISSUANCE)):\n",
        "    if void := []:\n",
        (f"{_T_RULES}::test_mistake_is_refused_and_named",),
    ),
    Bug(
        "a rule may bound lifetimes to nothing",
        "certificates are over before they are used",
        "cluster/access/rules.py",
        "    if seconds < MIN_TTL_SECONDS:\n",
        "    if seconds <= 0:\n",
        (f"{_T_RULES}::test_mistake_is_refused_and_named",),
    ),
    Bug(
        "what a token was used for is told to everybody who may have a certificate",
        "whoever knows an AccessorID, which is no secret, learns what its owner does",
        "cluster/http/routes/certs.py",
        "        caller.require(OPERATOR_READ)  # what",
        "        pass  # what",
        ("tests/parts/http/test_consul_clients.py::test_what_a_token_was_used_for_is_for_operators",),
    ),
    Bug(
        "certificates of other tokens are found, too",
        "what a revoked token got cannot be told from the rest",
        "fsm/ledger.py",
        '            ("instr(requested_by, ?) = 1", query.requested_by),\n',
        "",
        ("tests/unit/fsm/test_ledger.py::test_search_finds_what_passes_every_filter",),
    ),
)
