"""Runs a node on which a token may expire after a second, and is not taken away for as long as the tests last:
`python -m tests.integration.short_lives DIR agent --config FILE`.
"""

import math
import sys
from typing import Any

import cluster.access.writers
import cluster.ca.leader
import fsm.duties
from cluster.cli.main import main


def _replace(owner: Any, name: str, value: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


if __name__ == "__main__":
    _replace(cluster.access.writers, "_MIN_TTL_SECONDS", 1)
    _replace(fsm.duties, "expired_tokens", lambda _state, _now: ())
    _replace(cluster.ca.leader, "next_time", lambda _state, _known: math.inf)
    sys.exit(main(sys.argv[2:]))
