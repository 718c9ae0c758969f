"""What a client can make a node hold, wait for, and write down, over HTTP."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_BODY: Final = "cluster/http/body.py"
_INTAKE: Final = "cluster/http/intake.py"

_T_BODIES: Final = "tests/parts/http/test_bodies.py"

BUGS: Final = (
    # -- bodies
    Bug(
        "what was read of a body that broke off stays",
        "connections that are long gone hold half a megabyte each: a node grows by gigabytes in a minute",
        _BODY,
        "        error.__traceback__ = None\n",
        "        pass\n",
        (
            f"{_T_BODIES}::test_nothing_is_left_of_bodies_that_break_off",
            f"{_T_BODIES}::test_nothing_is_left_of_a_body_that_is_broken",
        ),
    ),
    Bug(
        "bodies of one address have no bound in all",
        "one client that sends half a megabyte on every connection, and no end, holds gigabytes",
        _INTAKE,
        "        if held > MAX_HELD_PER_SOURCE or ",
        "        if ",
        (
            f"{_T_BODIES}::test_bodies_of_one_address_are_bounded_and_small_ones_are_read_all_the_same",
            f"{_T_BODIES}::test_one_source_has_its_share_and_all_together_the_whole",
        ),
    ),
    Bug(
        "bodies have no bound in all",
        "a few addresses together hold gigabytes",
        _INTAKE,
        " or self.held_bytes + count > MAX_HELD_BYTES:\n",
        ":\n",
        (f"{_T_BODIES}::test_one_source_has_its_share_and_all_together_the_whole",),
    ),
    Bug(
        "what is held of a body counts after its end",
        "the node refuses every body after a while",
        _BODY,
        "        held.end()\n",
        "        pass\n",
        (f"{_T_BODIES}::test_nothing_is_left_of_bodies_that_break_off",),
    ),
)
