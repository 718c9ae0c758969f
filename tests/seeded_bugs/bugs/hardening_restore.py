"""Restores and the seal: who may have one made, what stays as it is, and what of a node's files is its own."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RESEAL: Final = "cluster/node/reseal.py"
_RESTORE: Final = "cluster/backup/restore.py"
_SKIPS: Final = "cluster/raft/skips.py"
_SEALER: Final = "cluster/seal/sealer.py"

_T_SEAL: Final = "tests/unit/seal/test_seal.py"
_T_SEALS: Final = "tests/parts/node/test_seals.py"
_T_RESEAL: Final = "tests/parts/backup/test_reseal.py"
_T_JUDGEMENT: Final = "tests/parts/backup/test_judgement.py"
_T_STAYS_AWAY: Final = f"{_T_JUDGEMENT}::test_root_that_is_taken_away_while_a_snapshot_is_restored_stays_away"
_T_SKIPS: Final = "tests/unit/raft/test_skips.py"
_T_SKIP_ENTRY: Final = "tests/parts/cli/test_skip_entry.py"

BUGS: Final = (
    Bug(
        "a data key that changes part by part",
        "a snapshot is saved with the MAC of one data key and the secrets of another, and is refused when it is needed",
        _SEALER,
        "        self._held = _DataKey.of(seal, data_key, kek)\n",
        "        held = self._held\n"
        "        if held is not None:\n"
        "            self._held = _DataKey(seal, kek, AESGCM(data_key), held.mac_key, held.draw_key, bytes(32))\n"
        "        self._held = _DataKey.of(seal, data_key, kek)\n",
        (f"{_T_SEAL}::test_data_key_changes_in_one_step",),
    ),
    Bug(
        "a change of the seal key waits for servers in its turn",
        "one dead server holds up every change of the CA, a distrust among them, for as long as somebody asks",
        _RESEAL,
        "        await self._require_key_everywhere(asked, seal)\n"
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, judge=judge) as by:\n',
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, judge=judge) as by:\n'
        "            await self._require_key_everywhere(asked, seal)\n",
        (f"{_T_SEALS}::test_other_changes_do_not_wait_for_a_server_that_does_not_answer",),
    ),
    Bug(
        "a change of the seal key queues as the CA's own work does",
        "whoever asks over and over fills a queue without a bound",
        _RESEAL,
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, judge=judge) as by:\n',
        '        async with self._parts.changes.turn("RECONFIGURING", is_duty=True, judge=judge) as by:\n',
        (f"{_T_SEALS}::test_change_waits_its_turn_as_long_as_an_operators_and_seals_what_is_there_then",),
    ),
    Bug(
        "a server that joins while others are asked for the next key",
        "it cannot open what was committed, and ends",
        _RESEAL,
        "            self._require_asked(asked)\n",
        "",
        (f"{_T_SEALS}::test_server_that_joins_while_the_others_are_asked_is_not_left_without_the_key",),
    ),
    Bug(
        "a snapshot brings its data key with it",
        "a data key that was changed because it was stolen opens the CA's keys again, those to come among them",
        _RESTORE,
        "        return replace(saved, seal=state.seal, providers=providers, acl=acl)\n",
        "        return saved\n",
        (f"{_T_RESEAL}::test_data_key_of_before_does_not_come_back_with_a_snapshot",),
    ),
    Bug(
        "what a snapshot holds stays sealed with its own data key",
        "nobody can open the CA's keys any more",
        _RESTORE,
        "        return replace(saved, seal=state.seal, providers=providers, acl=acl)\n",
        "        return replace(saved, seal=state.seal, acl=acl)\n",
        (f"{_T_RESEAL}::test_change_of_the_data_key_after_a_restore_is_one",),
    ),
    Bug(
        "whoever has a server's certificate may have a CA restored",
        "a TLS key and a snapshot with a root of one's own are enough: the mesh trusts it",
        _RESTORE,
        "        if not hmac.compare_digest(request.proof, expected):\n",
        "        if False:\n",
        (f"{_T_JUDGEMENT}::test_request_is_taken_only_whole_and_with_the_proof_of_a_data_key",),
    ),
    Bug(
        "the proof leaves something out",
        "a request that was meant is changed on its way into one by force",
        "cluster/rpc/messages.py",
        "        fields = [self.state, self.sums, self.mac, self.is_forced, self.ca_index]\n",
        "        fields = [self.state, self.sums, self.mac, self.ca_index]\n",
        (f"{_T_JUDGEMENT}::test_request_is_taken_only_whole_and_with_the_proof_of_a_data_key",),
    ),
    Bug(
        "the form of the release before is served",
        "a restore without a proof or a judgement, for whoever has a server's certificate",
        "cluster/node/leader_work.py",
        "            served(RESTORE_CA, self._snapshots.unproven),\n",
        "            served(RESTORE_CA, self._snapshots.rows),\n",
        (f"{_T_JUDGEMENT}::test_form_of_the_release_before_is_refused_whatever_it_holds",),
    ),
    Bug(
        "the leader takes the word of the node that was asked",
        "trust that was taken away comes back, and nobody is told",
        _RESTORE,
        "        change.require(is_forced=request.is_forced)\n",
        "",
        (
            f"{_T_JUDGEMENT}::test_leader_takes_no_trust_back_unless_it_is_meant",
            f"{_T_JUDGEMENT}::test_leader_takes_no_snapshot_without_a_mac_unless_it_is_meant",
        ),
    ),
    Bug(
        "force is good for whatever the records have taken to send",
        "as above, for as long as a large record is restored",
        _RESTORE,
        "        if self._judged is not None and self._is_forced and change.roots != self.change.roots:\n",
        "        if False:\n",
        (_T_STAYS_AWAY,),
    ),
    Bug(
        "the leader does not compare the MAC",
        "a snapshot counts as authentic that only says so",
        _RESTORE,
        "        is_authentic = _is_authentic(sealer, request.sums, request.mac)\n",
        "        is_authentic = bool(request.mac)\n",
        (f"{_T_JUDGEMENT}::test_leader_compares_the_mac_itself",),
    ),
    # -- marks of entries that are passed over
    Bug(
        "the MAC of marks is not compared",
        "who can write to the data directory has the node pass over a distrust that the others apply",
        _SKIPS,
        "    if not is_same(mac, _mac(skips, macs)):\n",
        "    if False:\n",
        (f"{_T_SKIPS}::test_marks_of_somebody_else_are_refused_and_the_node_does_not_start",),
    ),
    Bug(
        "marks without a MAC are taken",
        "as above, by somebody who leaves the MAC away",
        _SKIPS,
        "    if not mac and not macs.is_required:\n",
        "    if not mac:\n",
        (f"{_T_SKIPS}::test_marks_of_somebody_else_are_refused_and_the_node_does_not_start",),
    ),
    Bug(
        "a node starts without a look at whose marks they are",
        "as above",
        "cluster/raft/node.py",
        "        self._skipped = load_skips(env.disk, env.directory, env.macs)\n",
        "        self._skipped = load_skips(env.disk, env.directory)\n",
        (f"{_T_SKIPS}::test_marks_of_somebody_else_are_refused_and_the_node_does_not_start",),
    ),
    Bug(
        "marks of the release before get no MAC",
        "the node does not start a second time",
        "cluster/raft/node.py",
        "        if self._skipped:\n",
        "        if False:\n",
        (f"{_T_SKIPS}::test_marks_of_the_release_before_are_taken_once_and_have_a_mac_from_then_on",),
    ),
    Bug(
        "the command that marks takes marks of somebody else along",
        "an operator gives a mark that was smuggled in the node's MAC",
        "cluster/cli/skip_entry.py",
        "    marked = load_skips(disk, str(data_dir), macs)\n",
        "    marked = load_skips(disk, str(data_dir))\n",
        (f"{_T_SKIP_ENTRY}::test_marks_of_somebody_else_are_not_added_to",),
    ),
)
