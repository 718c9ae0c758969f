"""Roots that come back, roots that end before older ones, names below constrained CAs, and what a plan foretells."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_LINKS: Final = "fsm/links.py"
_LIMITS: Final = "cluster/ca/chain_limits.py"
_VERIFY: Final = "providers/pki/verify.py"
_T_NAMES: Final = "tests/property/providers/test_constrained_names.py"
_T_RETURNING: Final = "tests/parts/ca/test_returning_roots.py"
_T_LINKS: Final = "tests/unit/fsm/test_links.py"
_T_PLAN: Final = "tests/parts/ca/test_plan.py"
_T_BYTES: Final = f"{_T_PLAN}::test_chain_has_no_more_bytes_than_were_planned_and_not_many_less"
_T_EARLY: Final = f"{_T_PLAN}::test_older_root_that_is_lost_when_the_one_in_between_ends_is_named_with_the_time"
_T_SERVED: Final = f"{_T_RETURNING}::test_root_that_comes_back_serves_clients_of_every_listed_root"

BUGS: Final = (
    Bug(
        "the way back ends where a root comes back",
        "an operator cannot go back to a root of theirs while one before it is listed",
        _LINKS,
        '    """The links up to the last that one of these keys has signed."""\n',
        "    links = next((links[:n] for n in range(1, len(links)) if links[n].key_id == links[0].key_id), links)\n",
        (_T_SERVED,),
    ),
    Bug(
        "loops stay",
        "going to and fro between two roots makes chains longer each time, until it is refused",
        _LINKS,
        "    while (shorter := _without_a_loop(kept, roots)) is not None:\n        kept = shorter\n",
        "",
        (f"{_T_LINKS}::test_loop_that_nobody_needs_is_cut_out",),
    ),
    Bug(
        "a loop is cut out although the other way ends sooner",
        "clients of a root that is still listed are lost when an older certificate ends",
        _LINKS,
        "    return _lasts_until(shorter, root.key_id) >= wanted\n",
        "    return _lasts_until(shorter, root.key_id) >= min(wanted, 1)\n",
        (_T_LINKS,),
    ),
    Bug(
        "the root that comes back is not known when its chain is planned",
        "its return is refused as too long a chain, which it would not be",
        _LIMITS,
        'colon_hex(subject_key_id(new)) if new else ""',
        '""',
        (_T_SERVED,),
    ),
    # -- names below constrained CAs
    Bug(
        "names with an underscore cannot be compared",
        "below a constrained root a good CSR is the server's fault",
        _VERIFY,
        "        if is_about_names(error) and (path := _path_in_parts(cert, helpers, roots, now)):\n",
        "        if path := ():\n",
        (_T_NAMES,),
    ),
    Bug(
        "what a leaf says beside its names is not looked at",
        "a name with an underscore hides whatever else is wrong",
        _VERIFY,
        "            _find_path(leaf, (), [twins.unconstrained(issuer)], now)\n",
        "",
        (f"{_T_NAMES}::test_underscore_hides_nothing_else_that_is_wrong_with_a_leaf",),
    ),
    Bug(
        "names with an underscore are not compared",
        "a name that a root excludes is signed",
        _VERIFY,
        "        text = constraints.refusal(hosts, limits)\n",
        '        text = ""\n',
        (_T_NAMES,),
    ),
    Bug(
        "a name that a verifier refuses is the CA's fault",
        "a CSR gets 500, in words about trust stores",
        "providers/pki/leaf.py",
        "            raise CSRRejected(str(refusal)) from refusal\n",
        "            raise\n",
        (_T_NAMES,),
    ),
    # -- what is foretold
    Bug(
        "the issuer's name is short in a plan",
        "a chain has half as many bytes again as was planned, and is refused at its end",
        _LIMITS,
        "    issuer_bytes = max(_naming_bytes(issuer) for issuer in issuers)\n",
        "    issuer_bytes = min(0, len(issuers))\n",
        (_T_BYTES,),
    ),
    Bug(
        "a leaf's issuer is short in a plan",
        "as above, for the leaf",
        _LIMITS,
        "(_pem_bytes(_naming_bytes(issuer)) if issuer else 0)",
        "(0 if issuer else 0)",
        (_T_BYTES,),
    ),
    Bug(
        "a root in between ends in silence",
        "clients of an older root refuse leaves days before it is pruned, and nobody was told",
        _LINKS,
        "        if root.is_retired and root.key_id != active.key_id and end < min(root.prune_at, root.not_after):\n",
        "        if False:\n",
        (_T_EARLY,),
    ),
    Bug(
        "a plan does not name whom it loses",
        "an operator rotates, and learns of it from handshakes that fail",
        "cluster/ca/operators.py",
        "            risks += early_ends(state.roots, now)\n",
        "",
        (_T_EARLY,),
    ),
    Bug(
        "a root is of use after its end",
        "the plan shows a time until which nobody can trust the root",
        "cluster/ca/operators.py",
        "min(now + retention_seconds(root, config), root.not_after)",
        "now + retention_seconds(root, config)",
        (_T_EARLY,),
    ),
    Bug(
        "nobody is told of a root that ends before leaves would",
        "services stop within days after a change that was answered with 200",
        "cluster/ca/roots.py",
        "    if now > root.not_after or root.not_after - now >= config.leaf_ttl_seconds:\n",
        "    if True:\n",
        (_T_EARLY,),
    ),
    Bug(
        "PUT does not say whom it will lose",
        "an operator's script goes on as if all were well",
        "cluster/http/routes/configuration.py",
        'CUT_OFF_EARLY_HEADER: ", ".join(early)',
        'CUT_OFF_EARLY_HEADER: ""',
        ("tests/parts/http/test_rotation.py::test_roots_that_will_be_cut_off_before_they_are_pruned_are_named",),
    ),
)
