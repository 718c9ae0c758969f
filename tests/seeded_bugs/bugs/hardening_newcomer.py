"""Slips of somebody who sets a cluster up for the first time, and what they are told."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CONTEXTS: Final = "cluster/tls/contexts.py"
_TRANSPORT: Final = "cluster/raft/transport.py"
_T_KEYS: Final = "tests/unit/tls/test_keys.py"
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
)
