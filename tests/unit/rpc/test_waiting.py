"""For how long who asked the leader, through another node, waits for its answer."""

from typing import Any, Final

import pytest

from cluster.rpc.messages import CONFIGURE, DISTRUST_ROOT, ROTATE, STEER_ROTATION
from cluster.rpc.operation import Operation

#: A step of a rotation holds the turn for a few requests to a backend; removing what was made there takes some more.
_SLOW_BACKEND_SECONDS: Final = 45.0


@pytest.mark.parametrize("operation", [CONFIGURE, ROTATE, STEER_ROTATION, DISTRUST_ROOT], ids=lambda one: one.name)
def test_changes_that_wait_for_a_backend_are_waited_for(operation: Operation[Any, Any]) -> None:
    """Else a follower gives a rotation's abort up before its turn has come, again and again."""
    assert (operation.seconds or 0.0) >= _SLOW_BACKEND_SECONDS
