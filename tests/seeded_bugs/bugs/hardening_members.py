"""Who is a server: names, keys, and what a server may say."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ADMISSION: Final = "cluster/raft/admission.py"
_NODE: Final = "cluster/raft/node.py"
_MEMBERSHIP: Final = "cluster/node/membership.py"
_PINNING: Final = "cluster/node/pinning.py"
_TRANSPORT: Final = "cluster/raft/transport.py"
_RPC_SERVER: Final = "cluster/rpc/server.py"
_LEADER_WORK: Final = "cluster/node/leader_work.py"

_T_ADMISSION: Final = "tests/unit/raft/test_admission.py"
_T_PINS: Final = "tests/unit/raft/test_pins.py"
_T_TRANSPORT: Final = "tests/unit/raft/test_transport.py"
_T_HOSTILE: Final = "tests/sim/test_hostile.py"
_T_MEMBERS: Final = "tests/unit/node/test_membership.py"
_T_PINNING: Final = "tests/unit/node/test_pinning.py"
_T_LEADER_WORK: Final = "tests/parts/node/test_leader_work.py"
_T_RPC: Final = "tests/parts/rpc/test_server.py"

BUGS: Final = (
    Bug(
        "a server is known by its name alone",
        "whoever has a certificate of the agent CA with a server's name is that server",
        _ADMISSION,
        "            return Standing.MEMBER if is_key_of(key, member.keys) else Standing.REFUSED\n",
        "            return Standing.MEMBER\n",
        (_T_ADMISSION, _T_HOSTILE),
    ),
    Bug(
        "a removed server is a stranger like any other",
        "one that a server vouches for by mistake comes back, and nobody is told why it is refused",
        _ADMISSION,
        "        if name in self.removed:\n",
        "        if False:\n",
        (_T_ADMISSION, _T_PINS),
    ),
    Bug(
        "strangers are heard between leaders",
        "a server that never was one leads, and commits a root of its own",
        _ADMISSION,
        "        if not self.is_pinned or is_vouched:\n",
        "        if True:\n",
        (_T_ADMISSION, _T_HOSTILE),
    ),
    Bug(
        "a learner is heard before its key is known",
        "whoever is first to use its name gets the log and the snapshot",
        _ADMISSION,
        "            return Standing.MEMBER if member.is_voter or not self.is_pinned else Standing.UNPINNED\n",
        "            return Standing.MEMBER\n",
        (_T_ADMISSION, _T_PINS),
    ),
    Bug(
        "keys count under a CA that was taken out",
        "a cluster whose agent CA was replaced never elects a leader again",
        _ADMISSION,
        "        return anchor_part(key) in self.anchors and self.now() < expiry_part(key)\n",
        "        return self.now() < expiry_part(key)\n",
        (_T_ADMISSION, _T_PINS),
    ),
    Bug(
        "keys count when their certificate has expired",
        "servers whose certificates expired while they were stopped never meet again",
        _ADMISSION,
        "        return anchor_part(key) in self.anchors and self.now() < expiry_part(key)\n",
        "        return anchor_part(key) in self.anchors\n",
        (_T_ADMISSION,),
    ),
    Bug(
        "who was not asked about is vouched for",
        "a hostile member fills a node with names, or brings a removed server back",
        _ADMISSION,
        "            name in self._asked\n            and name != peer\n"
        "            and name not in self._core.removed\n",
        "            True\n",
        (_T_ADMISSION,),
    ),
    Bug(
        "nobody is asked about a stranger",
        "a node that was away while a server was added never follows it",
        _ADMISSION,
        '                self._send(peer, {"type": "who_is", "name": stranger})\n',
        "                pass\n",
        (_T_ADMISSION, _T_HOSTILE),
    ),
    Bug(
        "an uncommitted removal shuts out",
        "a node with the only copy of it never hears the leader that would take it back",
        _NODE,
        "                members, removed = still_counted(members, removed, change)\n",
        "                pass\n",
        (_T_PINS,),
    ),
    Bug(
        "no snapshot when somebody was shut out",
        "a removed server leads a node that was restarted, before a leader does",
        _NODE,
        "            if change is not None and shuts_out(change):\n",
        "            if False:\n",
        (_T_PINS, _T_HOSTILE),
    ),
    Bug(
        "keys are pinned beside the release before",
        "its nodes cannot read the log, and end",
        _NODE,
        "        if not core.is_ready_leader or self._is_pinning or not (self.may_pin or self.admission.is_pinned):\n",
        "        if not core.is_ready_leader or self._is_pinning:\n",
        (_T_PINS, _T_HOSTILE),
    ),
    Bug(
        "a learner votes before its key is known",
        "the agent CA alone makes a voter",
        _NODE,
        "                and (member.keys or not self.admission.is_pinned)\n",
        "",
        (_T_PINS,),
    ),
    Bug(
        "messages of strangers are taken from the wire",
        "a server that never was one makes terms grow",
        _TRANSPORT,
        "                if self._is_greeted and self.standing is Standing.STRANGER:\n",
        "                if False:\n",
        (_T_TRANSPORT,),
    ),
    Bug(
        "connections outlive the removal of their server",
        "it goes on being heard until the connection breaks",
        _TRANSPORT,
        "                self._judge(link)\n        for outbound",
        "                pass\n        for outbound",
        (_T_TRANSPORT,),
    ),
    Bug(
        "the RPC port does not look at keys",
        "a certificate with a server's name gets everything that servers get",
        _RPC_SERVER,
        "        return self._replica.admission.refusal(peer, key)\n",
        "        return None if peer in self._replica.members else str(key)\n",
        (_T_RPC,),
    ),
    Bug(
        "a server announces a key for another",
        "a hostile member takes another server's place",
        "cluster/rpc/messages.py",
        '        """Nobody speaks for another server."""\n        return structs.replace(self, name=peer)\n',
        '        """Nobody speaks for another server."""\n        return self\n',
        (_T_PINNING,),
    ),
    Bug(
        "a new key is used before the others know it",
        "a server whose certificate was renewed is cut off",
        _PINNING,
        "            self._due.set()\n            return False\n",
        "            pass\n",
        (_T_PINNING,),
    ),
    Bug(
        "keys are pinned as soon as the last server is exchanged",
        "there is no way back to the release before, which an operator was promised",
        _PINNING,
        "        if not self._is_new and now - self._understood_since < ROLLBACK_SECONDS:\n            return\n",
        "",
        (f"{_T_PINNING}::test_after_an_upgrade_the_way_back_is_open_for_a_while",),
    ),
    Bug(
        "access control begins as soon as servers have keys",
        "a server of a release that pins keys and has no tokens ends at the first entry about them",
        _PINNING,
        "        self._replica.is_acl_known = False\n",
        "        self._replica.is_acl_known = self._replica.admission.is_pinned\n",
        (f"{_T_PINNING}::test_access_control_waits_for_servers_that_have_keys_and_do_not_know_it",),
    ),
    Bug(
        "a cluster is new for its first leader alone",
        "where that is lost at once, nobody gets a token for ten minutes",
        _PINNING,
        "(self._replica.is_founding or self._replica.state.active_root is None)",
        "self._replica.is_founding",
        (f"{_T_PINNING}::test_new_cluster_whose_first_leader_is_lost_does_not_wait_either",),
    ),
    Bug(
        "any number of servers, all at once",
        "names that nobody answers to fill the configuration, and every node dials them",
        _MEMBERSHIP,
        "        self._require_room(new.id)\n",
        "",
        (_T_MEMBERS,),
    ),
    Bug(
        "an absent peer is dialled ten times a second for ever",
        "names that nobody answers to cost every node its time",
        _TRANSPORT,
        "                failures += 1  # until it is seen to have lasted\n",
        "",
        (_T_TRANSPORT,),
    ),
    Bug(
        "a server chooses the serial",
        "a hostile member has certificates signed whose serials are short, or those of others",
        _LEADER_WORK,
        "                return serial_from(self._sealer.draw(request_id + csr))\n",
        "                return request_id\n",
        (_T_LEADER_WORK,),
    ),
    Bug(
        "two CSRs share a serial",
        "a hostile member has a second certificate signed under a serial that is on record, with other names",
        _LEADER_WORK,
        "                return serial_from(self._sealer.draw(request_id + csr))\n",
        "                return serial_from(self._sealer.draw(request_id))\n",
        (f"{_T_LEADER_WORK}::test_no_two_csrs_share_a_serial",),
    ),
    Bug(
        "what a repr keeps back is written to the log",
        "an object that holds a secret, given to the log by mistake, is written out whole",
        "cluster/base/ascii_json.py",
        "        if _is_plain(value):\n",
        "        if True:\n",
        ("tests/unit/base/test_ascii_json.py",),
    ),
    Bug(
        "a repetition is signed below any issuer",
        "a certificate that is on no record: the serial is, under another issuer",
        "cluster/signing/pipeline.py",
        "    return row.issuer_key_id == issuer_key_id and replace(",
        "    return replace(",
        ("tests/parts/signing/test_pipeline.py::test_repetition_below_another_issuer_is_not_answered",),
    ),
    Bug(
        "beside the release before any serial will do",
        "a serial of one byte is signed",
        _LEADER_WORK,
        "        if not (is_serial(request_id) or is_request_id(request_id)):\n",
        "        if False:\n",
        (_T_LEADER_WORK,),
    ),
    Bug(
        "who asked is taken for granted",
        "a hostile member records a request as made by anybody, in any length",
        "cluster/rpc/messages.py",
        "        return structs.replace(self, requested_by=recorded(self.requested_by, peer))\n",
        "        return self\n",
        (_T_LEADER_WORK,),
    ),
    Bug(
        "a request is looked for by its serial alone",
        "where a backend picks serials, nobody says under which one a repeated request is on record",
        "fsm/ledger.py",
        "        return _ledger_row(row) if row else self.find(request_id)\n",
        "        return self.find(request_id)\n",
        ("tests/unit/fsm/test_ledger.py::test_request_is_found_by_its_id_or_by_the_serial_that_is_its_id",),
    ),
)
