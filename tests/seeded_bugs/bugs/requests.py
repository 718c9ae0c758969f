"""The way of a request: from the node that is asked to the leader, and a certificate to its record."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_SIGNING: Final = "cluster/signing/pipeline.py"
_FORWARD: Final = "cluster/rpc/forward.py"

_T_SIGNING: Final = "tests/parts/signing/test_pipeline.py"
_T_FORWARD: Final = "tests/parts/rpc/test_forward.py"

BUGS: Final = (
    Bug(
        "a certificate leaves though its record was refused",
        "a certificate that no node knows of",
        _SIGNING,
        '        if isinstance(result, Rejected):\n            raise InternalError(f"certificates could not',
        '        if False:\n            raise InternalError(f"certificates could not',
        (_T_SIGNING,),
    ),
    Bug(
        "a repeated request gets what was signed last",
        "its certificate is another than the one on record",
        _SIGNING,
        "            if position not in result.duplicates:\n",
        "            if True:\n",
        (_T_SIGNING,),
    ),
    Bug(
        "a request whose outcome is unknown is sent again",
        "a change of the configuration is made twice, or over somebody else's",
        _FORWARD,
        "                is_lost = True\n                if not operation.is_repeatable:\n                    raise\n",
        "                is_lost = True\n",
        (_T_FORWARD,),
    ),
)
