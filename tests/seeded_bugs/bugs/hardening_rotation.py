"""Roots that come back, roots that end before older ones, names below constrained CAs, and what a plan foretells."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_LINKS: Final = "fsm/links.py"
_LIMITS: Final = "cluster/ca/chain_limits.py"
_VERIFY: Final = "providers/pki/verify.py"
_T_NAMES: Final = "tests/property/providers/test_constrained_names.py"
_T_RETURNING: Final = "tests/parts/ca/test_returning_roots.py"
_T_LINKS: Final = "tests/unit/fsm/test_links.py"
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
)
