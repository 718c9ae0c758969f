"""Restores: what of a snapshot would change without a word, later or though the restore was refused."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CONTENT: Final = "cluster/backup/content.py"
_T_CONTENT: Final = "tests/parts/backup/test_content.py"
_RESTORE: Final = "cluster/backup/restore.py"
_TRUST: Final = "cluster/backup/trust.py"
_RESUMED: Final = "cluster/backup/resumed.py"
_MESSAGES: Final = "cluster/rpc/messages.py"

_T_ACCESS: Final = "tests/parts/backup/test_access.py"
_T_JUDGEMENT: Final = "tests/parts/backup/test_judgement.py"
_T_RESUMED: Final = "tests/parts/backup/test_resumed.py"
_T_WAITS_ANEW: Final = f"{_T_RESUMED}::test_staged_rotation_waits_anew_for_the_clients_of_this_cluster"

BUGS: Final = (
    # -- roots that come later
    Bug(
        "a rotation is restored before it has a root",
        "its provider makes the root of before again: one that was distrusted is trusted and signs, and nobody is told",
        _RESTORE,
        "        kept = without_rootless(looked.saved, self._parts.unix_now)\n",
        "        kept = looked.saved\n",
        (
            f"{_T_RESUMED}::test_root_that_is_not_made_yet_does_not_come_back_unnamed",
            f"{_T_RESUMED}::test_rotation_without_a_root_is_given_up_as_if_it_had_been_aborted",
        ),
    ),
    Bug(
        "a rotation is given up without a word",
        "an operator waits for a root that does not come",
        _RESTORE,
        ", *given_up(saved.state))\n",
        ",)\n",
        (f"{_T_RESUMED}::test_root_that_is_not_made_yet_does_not_come_back_unnamed",),
    ),
    Bug(
        "a snapshot without a root is restored",
        "all roots go, and one comes from a sealed key that nobody was told of",
        _CONTENT,
        '    _require(saved.active_root is not None, "it was saved before there was a root")\n',
        "",
        (f"{_T_RESUMED}::test_snapshot_without_a_root_is_refused",),
    ),
    Bug(
        "a CA without a root is saved",
        "an operator has a backup that no cluster restores",
        _RESTORE,
        "        if state.seal is None or state.config is None or root is None:\n",
        "        if state.seal is None or state.config is None:\n",
        (f"{_T_RESUMED}::test_nothing_is_saved_before_there_is_a_root",),
    ),
    Bug(
        "the root of a rotation is not looked at where one of its id is listed",
        "it takes that one's place with any certificate, under a name that an operator knows",
        _CONTENT,
        "    if saved.rotation is not None and saved.rotation.root is not None:\n",
        "    ids = {root.root_id for root in saved.roots}\n"
        "    if saved.rotation and saved.rotation.root and saved.rotation.root.root_id not in ids:\n",
        (f"{_T_CONTENT}::test_rotation_that_was_under_way_is_judged_too",),
    ),
    Bug(
        "a saved table of access control need not be in order",
        "a token is listed and good, and nobody finds it to delete it",
        "fsm/acl_rules.py",
        "            if before >= key:\n",
        "            if before == key:\n",
        (f"{_T_CONTENT}::test_state_with_one_thing_wrong_is_refused_and_nothing_changes",),
    ),
    Bug(
        "a saved table of access control may have a twin",
        "deleting a token or policy leaves its twin in force",
        "fsm/acl_rules.py",
        "            if before >= key:\n",
        "            if before > key:\n",
        (f"{_T_CONTENT}::test_state_with_one_thing_wrong_is_refused_and_nothing_changes",),
    ),
    Bug(
        "saved tables of access control are not looked at",
        "look-ups among tokens go wrong for as long as the cluster lives",
        _CONTENT,
        '    _require(disorder is None, f"{disorder}")\n',
        "",
        (f"{_T_CONTENT}::test_state_with_one_thing_wrong_is_refused_and_nothing_changes",),
    ),
    # -- staged rotations
    Bug(
        "a restored rotation counts by the index of the cluster that was saved",
        "all of the snapshot's own certificates count as renewed: the root signs at once, which no client has",
        _RESUMED,
        "        rotation = replace(rotation, phase=RotationPhase.WAIT, published_index=next_index)\n",
        "        rotation = replace(rotation, phase=RotationPhase.WAIT)\n",
        (_T_WAITS_ANEW,),
    ),
    Bug(
        "the time that a restored rotation has waited counts",
        "as above: after a day in a backup it is over",
        _RESUMED,
        "    rotation = replace(rotation, phase_since=now)\n",
        "",
        (_T_WAITS_ANEW,),
    ),
    Bug(
        "a staged rotation that had waited is restored as one that has",
        "as above, though the clients that it had waited for were those of another time",
        _RESUMED,
        "    if rotation.is_staged and rotation.phase in (RotationPhase.WAIT, RotationPhase.ACTIVATE):\n",
        "    if rotation.is_staged and rotation.phase is RotationPhase.WAIT:\n",
        (_T_WAITS_ANEW,),
    ),
    # -- what a refused restore leaves
    Bug(
        "rows are sent before the leader has judged",
        "a refused restore leaves thousands of certificates on record that this CA has never issued",
        _RESTORE,
        "        await asking.whether_the_leader_takes_it()\n",
        "",
        (
            f"{_T_JUDGEMENT}::test_provider_without_the_active_root_is_noticed_before_a_row_is_recorded",
            f"{_T_JUDGEMENT}::test_leader_of_the_release_before_is_not_asked_to_record_anything",
        ),
    ),
    Bug(
        "the leader is not asked whether the log takes the state",
        "as above, when everything else is in order",
        _RESTORE,
        "        if size > MAX_PROPOSAL_BYTES:\n",
        "        if False:\n",
        (f"{_T_JUDGEMENT}::test_state_that_fits_into_no_entry_is_noticed_before_a_row_is_recorded",),
    ),
    Bug(
        "what proves a question proves the restore",
        "whoever was taken for the leader has a request to restore before its rows are recorded",
        _MESSAGES,
        '        return b"quorumca restore check 1" + self._fields()\n',
        '        return b"quorumca restore 1" + self._fields()\n',
        (f"{_T_JUDGEMENT}::test_proof_of_one_request_is_none_of_another",),
    ),
    # -- who may have rows recorded
    Bug(
        "rows need no proof",
        "a server's TLS key is enough to put certificates on record that nobody has issued",
        _RESTORE,
        "            raise LostRace(_CHANGED)\n        await asyncio.to_thread(self._require_proof, state, request)\n",
        "            raise LostRace(_CHANGED)\n",
        (f"{_T_JUDGEMENT}::test_rows_are_taken_only_whole_and_with_the_proof_of_a_data_key",),
    ),
    Bug(
        "the proof leaves the rows out",
        "as above, for whoever has seen one request",
        _MESSAGES,
        "        fields = [self.issuer_key_id, self.rows, self.trust_domain, self.ca_index]\n",
        "        fields = [self.issuer_key_id, self.trust_domain, self.ca_index]\n",
        (f"{_T_JUDGEMENT}::test_rows_are_taken_only_whole_and_with_the_proof_of_a_data_key",),
    ),
    Bug(
        "rows are good for ever",
        "as above, after any other change of the CA",
        _RESTORE,
        "        _require_its_ca(request, state)\n        if request.trust_domain != state.trust_domain:\n",
        "        if request.trust_domain != state.trust_domain:\n",
        (f"{_T_JUDGEMENT}::test_rows_are_for_one_state_of_one_ca",),
    ),
    Bug(
        "rows are good for any trust domain",
        "as above, in a cluster into which the release before has restored another's data key",
        _RESTORE,
        "        if request.trust_domain != state.trust_domain:\n",
        "        if False:\n",
        (f"{_T_JUDGEMENT}::test_rows_are_for_one_state_of_one_ca",),
    ),
    Bug(
        "rows are taken in the form of the release before",
        "as above, with no proof at all",
        "cluster/node/leader_work.py",
        "            served(RESTORE_ROWS, self._snapshots.unproven),\n",
        "            served(RESTORE_ROWS, self._snapshots.rows),\n",
        (f"{_T_JUDGEMENT}::test_rows_in_the_form_of_the_release_before_are_refused",),
    ),
    Bug(
        "rows are counted, and not their bytes",
        "a record of long names is saved, and can never be restored",
        _RESTORE,
        "            if chunk and (len(chunk) >= _ROWS_PER_ENTRY or size + length > _BYTES_PER_ENTRY):\n",
        "            if chunk and len(chunk) >= _ROWS_PER_ENTRY:\n",
        (f"{_T_JUDGEMENT}::test_every_row_that_can_be_recorded_can_be_restored",),
    ),
    Bug(
        "a trust domain is taken in any case",
        "a cluster's own backup in other letters counts as one of another cluster, and its tokens come back",
        "fsm/fields.py",
        '[a-z0-9]([a-z0-9-]*[a-z0-9])?"))]\n',
        '[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"))]\n',
        ("tests/unit/fsm/test_bounds.py", _T_CONTENT),
    ),
    Bug(
        "trust domains are compared letter by letter",
        "as above",
        "fsm/state.py",
        'f"{self.config.cluster_id.lower()}.consul"',
        'f"{self.config.cluster_id}.consul"',
        ("tests/unit/fsm/test_acl.py::test_own_backup_is_one_however_its_trust_domain_is_spelt",),
    ),
    Bug(
        "access control is taken from a file without a MAC",
        "whoever can write backups, and one operator who forces the restore, give a revoked token every right",
        _TRUST,
        "if is_authentic and brings_access(now, saved) else None",
        "if brings_access(now, saved) else None",
        (f"{_T_ACCESS}::test_file_that_no_seal_key_vouches_for_brings_no_rights_even_by_force",),
    ),
    Bug(
        "what is said of access control is not what is done",
        "an operator is told that tokens stay as they are, and they are those of a file that nobody vouches for",
        _RESTORE,
        "        if change.tokens is None:\n",
        "        if False:\n",
        (f"{_T_ACCESS}::test_file_that_no_seal_key_vouches_for_brings_no_rights_even_by_force",),
    ),
)
