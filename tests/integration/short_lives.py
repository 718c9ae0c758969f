"""Runs a node on which a token may expire after a second, and is not taken away for as long as the tests last:
`python -m tests.integration.short_lives DIR agent --config FILE`.
"""

import sys
from typing import Any

import cluster.access.writers
import cluster.ca.leader
from cluster.cli.main import main


def _replace(owner: Any, name: str, value: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


if __name__ == "__main__":
    _replace(cluster.access.writers, "_MIN_TTL_SECONDS", 1)
    _replace(cluster.ca.leader, "_LOOK_SECONDS", 3600.0)
    sys.exit(main(sys.argv[2:]))
