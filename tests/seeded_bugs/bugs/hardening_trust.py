"""Rotations after trust has been broken, queues of writers, and what a CA may sign."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ROTATION: Final = "cluster/ca/rotation.py"
_LINKS: Final = "fsm/links.py"
_LEADER: Final = "cluster/ca/leader.py"
_VERIFY: Final = "providers/pki/verify.py"

_T_BROKEN: Final = "tests/parts/ca/test_broken_trust.py"
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
        "        if now > link.not_after:\n",
        "        if False:\n",
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
        "    if now >= root.not_before + x509.BACKDATE_SECONDS:\n",
        "    if True:\n",
        (
            f"{_T_LATE}::test_operators_root_that_begins_in_the_future_is_refused_and_one_that_begins_just_now_warned_of",
        ),
    ),
)
