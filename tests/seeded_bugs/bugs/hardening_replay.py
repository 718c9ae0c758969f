"""What was true when somebody asked, and is not any more: requests kept back, servers and certificates exchanged. And
browsers that do not say whose page asks.
"""

from typing import Final

from tests.seeded_bugs.bug import Bug

_HOSTS: Final = "cluster/http/hosts.py"
_CONTEXTS: Final = "cluster/tls/contexts.py"
_RESEAL: Final = "cluster/node/reseal.py"
_RESTORE: Final = "cluster/backup/restore.py"

_T_JUDGEMENT: Final = "tests/parts/backup/test_judgement.py"
_T_PAGES: Final = "tests/parts/http/test_pages.py"
_T_NODE: Final = "tests/integration/test_keys.py"
_T_KEYS: Final = "tests/unit/tls/test_keys.py"
_T_SEALS: Final = "tests/parts/node/test_seals.py"
_T_KEPT: Final = f"{_T_JUDGEMENT}::test_request_that_somebody_has_kept_does_nothing_after_another_change_of_the_ca"
_T_STAYS_AWAY: Final = f"{_T_JUDGEMENT}::test_root_that_is_taken_away_while_a_snapshot_is_restored_stays_away"

BUGS: Final = (
    Bug(
        "a request to restore is good for ever",
        "whoever was taken for the leader once brings the old roots back with it, after any rotation",
        _RESTORE,
        "    if request.ca_index != state.ca_index:\n",
        "    if False:\n",
        (_T_KEPT, _T_STAYS_AWAY),
    ),
    Bug(
        "a request to restore is held against the CA before its turn only",
        "a root that is taken away while the request waits comes back by force that did not mean it",
        _RESTORE,
        "        _require_its_ca(request, state)\n        change = trust_change(",
        "        change = trust_change(",
        (f"{_T_JUDGEMENT}::test_leader_judges_when_its_turn_has_come",),
    ),
    Bug(
        "a request to restore may name a state of the CA that is to come",
        "a data key that was stolen proves what is served after its change",
        _RESTORE,
        "        _require_its_ca(request, state)\n        try:\n",
        "        try:\n",
        (f"{_T_JUDGEMENT}::test_request_is_proved_by_the_data_key_in_force_when_its_turn_comes",),
    ),
    Bug(
        "a restore is asked for over and over",
        "who changes the CA all the time keeps a restore, and its file, for ever",
        _RESTORE,
        "        for _ in range(_ATTEMPTS):\n",
        "        for _ in range(3 * _ATTEMPTS):\n",
        (f"{_T_JUDGEMENT}::test_restore_beside_changes_without_end_comes_to_an_end",),
    ),
    # -- servers
    Bug(
        "a server counts as asked by its name",
        "the machine that has taken its place meanwhile cannot open what was committed, and ends",
        _RESEAL,
        "if member not in asked and learner(member) not in asked]:\n",
        "if member.id not in {known.id for known in asked}]:\n",
        (f"{_T_SEALS}::test_server_that_is_exchanged_after_it_was_asked_is_not_left_without_the_key",),
    ),
    # -- certificates
    Bug(
        "a server is whom its last good certificate names",
        "one that starts with an expired certificate takes any other server's next, and announces its key",
        _CONTEXTS,
        "        if self._name is None or found.name == self._name:\n",
        "        if found.name == self.peer_name("
        "{'subjectAltName': [('DNS', name) for name in (subject_names(self._cert))]}):\n",
        (f"{_T_KEYS}::test_whatever_a_node_starts_with_the_next_certificate_is_its_own",),
    ),
    Bug(
        "a node does not tell its TLS what its name is",
        "any server's certificate is taken into use, and its key announced",
        "cluster/node/start.py",
        "        config.tls.domain,\n        config.node_name,\n    )\n",
        "        config.tls.domain,\n    )\n",
        (f"{_T_NODE}::test_server_that_starts_with_an_expired_certificate_takes_no_other_servers_next",),
    ),
    # -- pages
    Bug(
        "every listener in clear counts as one on loopback",
        "any page that is opened in its network has leaves signed for any service",
        _HOSTS,
        "        self._is_loopback = is_loopback(section.address)\n",
        "        self._is_loopback = True\n",
        (f"{_T_PAGES}::test_no_page_of_another_site_has_anything_changed",),
    ),
    Bug(
        "a listener on loopback is loopback under any name",
        "the same, where a proxy in clear stands before it",
        _HOSTS,
        '(self._is_loopback and all(map(_is_local, headers.getall("Host", ())))):\n',
        "self._is_loopback:\n",
        (f"{_T_PAGES}::test_loopback_behind_a_proxy_in_clear_is_not_loopback_to_a_browser",),
    ),
)
