"""Rotations after trust has been broken, queues of writers, and what a CA may sign."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ROTATION: Final = "cluster/ca/rotation.py"
_LINKS: Final = "fsm/links.py"
_LEADER: Final = "cluster/ca/leader.py"
_VERIFY: Final = "providers/pki/verify.py"

_T_BROKEN: Final = "tests/parts/ca/test_broken_trust.py"
_RECONFIGURE: Final = "cluster/ca/reconfigure.py"
_ATTEMPTS: Final = "cluster/ca/attempts.py"
_CHANGES: Final = "cluster/ca/changes.py"
_T_WRITERS: Final = "tests/parts/ca/test_writers.py"
_T_RECONFIGURE: Final = "tests/parts/ca/test_reconfigure.py"
_T_ROTATION: Final = "tests/parts/ca/test_rotation.py"
_LIMITS: Final = "cluster/ca/chain_limits.py"
_T_ROOTS: Final = "tests/parts/ca/test_operators_roots.py"
_T_LATE: Final = "tests/parts/ca/test_late_clocks.py"
_T_FORCED: Final = f"{_T_BROKEN}::test_normal_rotation_after_a_forced_one_leaves_cut_off_roots_listed"
_T_EXPIRED: Final = f"{_T_BROKEN}::test_expired_root_is_replaced_while_an_older_one_is_still_listed"

BUGS: Final = (
    Bug(
        "cut off roots count",
        "after a forced rotation no other is possible until the oldest root is pruned",
        _ROTATION,
        "            trusted = must_stay_trusted(opened.old, others, moment)\n",
        "            trusted = tuple(others)\n",
        (_T_FORCED,),
    ),
    Bug(
        "an expired root leads on",
        "a CA whose root has expired cannot be repaired while an older root is listed",
        _LINKS,
        "    return trusted_through(old, roots, now) if now <= old.not_after else ()\n",
        "    return tuple(root for root in roots if now <= root.not_after)\n",
        (_T_EXPIRED,),
    ),
    Bug(
        "links that have expired stay",
        "every handshake carries certificates that lead nobody anywhere",
        _LINKS,
        "(link for link in root.intermediates if now <= link.not_after))\n",
        "root.intermediates)\n",
        (f"{_T_BROKEN}::test_links_behind_one_that_has_expired_go_with_the_next_rotation",),
    ),
    Bug(
        "a lost provider holds up the change away from it",
        "an operator who forces the CA away from a backend that is gone waits for ever",
        _LEADER,
        "            if duty not in _OF_THE_NEXT_ROOT:\n",
        "            if True:\n",
        (f"{_T_BROKEN}::test_provider_that_is_gone_for_good_is_left_by_force",),
    ),
    Bug(
        "links are compared with roots that are gone",
        "once a root in the middle is distrusted no rotation is possible",
        _VERIFY,
        "            is_link or cert.not_valid_after_utc <= last,\n",
        "            cert.not_valid_after_utc <= last,\n",
        (f"{_T_BROKEN}::test_distrusted_root_in_the_middle_holds_no_rotation_up",),
    ),
    # -- writers at the same time
    Bug(
        "writers overtake each other",
        "who came last is first once a rotation ends, and what is in force then is what nobody wrote last",
        _RECONFIGURE,
        "        async with changes.writing(until):\n",
        "        if True:\n",
        (f"{_T_WRITERS}::test_writer_that_comes_as_a_rotation_ends_does_not_overtake_one_that_has_waited_for_it",),
    ),
    Bug(
        "a stale index waits for a rotation",
        "who can only lose is told so after it has waited",
        _RECONFIGURE,
        "        self._check(update, config, state)\n        if state.rotation",
        "        if state.rotation",
        (f"{_T_WRITERS}::test_behind_a_published_rotation_nobody_waits_and_a_stale_index_is_still_told",),
    ),
    Bug(
        "a queue of writers without an end",
        "thousands of requests wait for what most of them cannot get",
        _CHANGES,
        "        if self._waiting >= _MAX_WAITING:\n",
        "        if False:\n",
        (f"{_T_WRITERS}::test_more_writers_than_can_get_their_turn_are_refused_at_once",),
    ),
    Bug(
        "steering queues behind writers",
        "a rotation cannot be given up as long as somebody waits for its end",
        _CHANGES,
        "            await self._wait_for(self._turn, patience if until is None else until)\n",
        "            lock = self._turn if until else self._writers\n"
        "            await self._wait_for(lock, patience if until is None else until)\n"
        "            await self._turn.acquire() if until is None else None\n",
        (f"{_T_WRITERS}::test_steering_does_not_queue_behind_writers",),
    ),
    Bug(
        "a write outlives a change of leader in the queue",
        "it is done twice: here, and where it was sent again meanwhile",
        _ATTEMPTS,
        "        if term != self.term:\n",
        "        if False:\n",
        ("tests/unit/ca/test_attempts.py",),
    ),
    Bug(
        "a write that was overtaken on its way is done",
        "a request that arrives late undoes what was written since, and may have been done before",
        _ATTEMPTS,
        "        if self.is_overtaken or self.attempt.is_repeat:\n",
        "        if self.attempt.is_repeat:\n",
        (f"{_T_RECONFIGURE}::test_write_between_reading_and_committing_is_a_lost_race",),
    ),
    Bug(
        "a request behind its own repetition is done",
        "one request takes effect twice",
        _RECONFIGURE,
        "        if attempt.request_id in self._arrived and not attempt.is_repeat:\n",
        "        if False:\n",
        (f"{_T_WRITERS}::test_request_that_arrives_behind_its_own_repetition_is_not_done_twice",),
    ),
    Bug(
        "a write that was overtaken is not made anew",
        "operators on other nodes than the leader get 500 when they write at the same time",
        "cluster/node/ca.py",
        "            if clock() >= until:\n",
        "            if True:\n",
        ("tests/parts/node/test_service.py::test_write_that_is_overtaken_on_its_way_is_made_anew",),
    ),
    # -- what an operator's root may say
    Bug(
        "a root that allows no CA below it is taken",
        "every later rotation fails, and only force helps",
        _VERIFY,
        "    _rule_path_length,\n",
        "",
        (f"{_T_ROOTS}::test_root_that_some_peer_refuses_is_refused_with_the_reason_and_nothing_changes",),
    ),
    Bug(
        "what peers refuse is taken",
        "handshakes fail in some languages only, or from the next rotation on",
        _VERIFY,
        '    problems += [f"RootCert {text}" for text in peers.problems(root)]\n',
        "",
        (f"{_T_ROOTS}::test_root_that_some_peer_refuses_is_refused_with_the_reason_and_nothing_changes",),
    ),
    Bug(
        "nothing is rehearsed",
        "an operator's root is committed before it shows that clients of older ones would refuse it",
        _RECONFIGURE,
        "            await self._rehearse(candidate, state, request)\n",
        "            pass\n",
        (f"{_T_ROOTS}::test_root_that_is_half_a_listed_one_is_refused_before_anything_begins",),
    ),
    Bug(
        "path lengths are found out at the end",
        "a rotation is begun and given up, and the plan had said nothing",
        _LIMITS,
        "    _require_room(old, trusted, links, own_links - 1 - len(above), cross.key_id)\n",
        "",
        (f"{_T_ROOTS}::test_root_with_room_for_one_says_in_the_plan_from_when_on_a_second_rotation_is_possible",),
    ),
    Bug(
        "nobody is told of a root that cannot be rotated out",
        "operators learn of it when they must rotate",
        _LEADER,
        ", stuck(root))\n",
        ")\n",
        (f"{_T_ROOTS}::test_root_without_room_from_the_release_before_is_warned_of_and_replaced_by_force",),
    ),
    Bug(
        "name constraints of older roots do not count",
        "leaves go out that clients of the constrained root refuse",
        "cluster/ca/roots.py",
        "for root in (active, *must_stay_trusted(active, roots, now))]\n",
        "for root in (active,)]\n",
        (f"{_T_ROOTS}::test_names_that_a_trusted_root_does_not_permit_are_refused_until_it_is_not_trusted",),
    ),
    Bug(
        "names that a CA does not permit are signed",
        "the refusal is the server's fault, in words about paths",
        "providers/pki/csr.py",
        "    if policy.limits and (text := refusal(checked_hosts, policy.limits)):\n",
        '    if text := "":\n',
        (f"{_T_ROOTS}::test_every_kind_of_limit_is_asked_before_anything_is_signed",),
    ),
    Bug(
        "a backend's CA is not asked what it says",
        "a mount whose CA is for something else is taken, and peers refuse its leaves",
        _VERIFY,
        '        if found := [*filter(None, said), *(f"{_show(cert)} {text}" for text in peers.problems(cert))]:\n',
        "        if found := []:\n",
        (f"{_T_ROOTS}::test_ca_of_a_backend_that_some_peer_refuses_is_refused_by_its_name",),
    ),
    # -- chains that TLS stacks follow
    Bug(
        "a root with a chain too long is used",
        "a rotation that nobody planned ends in chains that clients refuse",
        "cluster/ca/chain_limits.py",
        "    if count > MAX_CHAIN_LINKS:\n",
        "    if False:\n",
        (f"{_T_ROTATION}::test_rotation_that_begins_by_itself_is_given_up_rather_than_lead_to_a_chain_too_long",),
    ),
    Bug(
        "chains of eight",
        "s2n-tls, rustls and Java refuse handshakes, even when they trust the newest root",
        "cluster/ca/chain_limits.py",
        "MAX_CHAIN_LINKS: Final = 6\n",
        "MAX_CHAIN_LINKS: Final = 8\n",
        (f"{_T_ROTATION}::test_cluster_whose_chains_are_longer_already_goes_on_and_rotates_again_once_they_fit",),
    ),
    # -- clients whose clocks are late
    Bug(
        "a root begins now",
        "right after a rotation clients whose clocks are seconds late refuse every new leaf",
        "providers/builtin/provider.py",
        "        begin = intent.not_before - x509.backdate_seconds(state.root_ttl_seconds)\n",
        "        begin = intent.not_before\n",
        (f"{_T_LATE}::test_openssl_with_a_late_clock_accepts_it_with_each_root",),
    ),
    Bug(
        "Vault's root begins half a minute ago",
        "as above, for clients that are late by more than that",
        "providers/vault/mount.py",
        '                "not_before_duration": f"{backdate_seconds(ttl_seconds)}s",\n',
        "",
        (f"{_T_LATE}::test_openssl_with_a_late_clock_accepts_it_with_each_root",),
    ),
    Bug(
        "Vault's intermediate begins half a minute ago",
        "as above",
        "providers/vault/mount.py",
        ", **body, **begin}",
        ", **body}",
        (f"{_T_LATE}::test_openssl_with_a_late_clock_accepts_it_with_each_root",),
    ),
    Bug(
        "nobody is told of a root that begins just now",
        "handshakes of some clients fail for a minute, and nothing says why",
        "cluster/ca/roots.py",
        "    if is_made_here or now >= root.not_before + x509.BACKDATE_SECONDS:\n",
        "    if True:\n",
        (
            f"{_T_LATE}::test_operators_root_that_begins_in_the_future_is_refused_and_one_that_begins_just_now_warned_of",
        ),
    ),
)
