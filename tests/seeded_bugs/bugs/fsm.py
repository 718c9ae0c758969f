"""What the state machine refuses."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_APPLY: Final = "fsm/apply.py"
_CA_RULES: Final = "fsm/ca_rules.py"

_T_APPLY: Final = "tests/unit/fsm/test_apply.py"
_T_ROTATION: Final = "tests/unit/fsm/test_rotation.py"

BUGS: Final = (
    Bug(
        "no expected index",
        "a deposed leader's work overwrites the roots of its successor",
        _APPLY,
        "    if expected != current:\n",
        "    if False:\n",
        (_T_APPLY,),
    ),
    Bug(
        "roots and configuration are not changed as one",
        "a root is active whose provider is not configured",
        _CA_RULES,
        "    return replace(_with_roots(state, cmd.roots, cmd.providers), config=config)\n",
        "    return _with_roots(state, cmd.roots, cmd.providers)\n",
        (_T_APPLY,),
    ),
    Bug(
        "two rotations at a time",
        "the second takes the place of the first, whose root is trusted already and never signs",
        _CA_RULES,
        '        return Rejected("rotation_under_way", "another rotation is under way")\n',
        "        pass\n",
        (_T_ROTATION,),
    ),
    Bug(
        "a rotation ends without its configuration",
        "the new root is active while the old provider signs",
        _CA_RULES,
        "    return replace(state, config=_stamped(cmd.config, state.config, index), rotation=None, "
        "last_rotation=cmd.outcome)\n",
        "    return replace(state, rotation=None, last_rotation=cmd.outcome)\n",
        (_T_ROTATION,),
    ),
    Bug(
        "two active roots",
        "nodes sign with different keys",
        _CA_RULES,
        "    if state.roots and sum(root.is_active for root in state.roots) != 1:\n",
        "    if False:\n",
        (_T_APPLY,),
    ),
    Bug(
        "chains are not checked",
        "leaves are served with intermediates that lead to no trusted root",
        _CA_RULES,
        "            if intermediate.issuer_key_id not in linked:\n",
        "            if False:\n",
        (_T_APPLY,),
    ),
    Bug(
        "the trust domain may change",
        "every certificate in the mesh stops matching",
        _CA_RULES,
        "    if before.roots and before.config.cluster_id != after.config.cluster_id:\n",
        "    if False:\n",
        (_T_APPLY,),
    ),
)
