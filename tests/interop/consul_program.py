"""What the tests of Consul's own api package start when they start `consul`: one of our nodes.

    consul version -format=json
    consul agent -config-file FILE

Consul's `sdk/testutil` writes FILE, waits for the HTTP port, and ends the process with SIGINT; this process becomes the
node, so that the signal reaches it. What FILE says of gossip, DNS and the like has no counterpart.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.cli.dev.local_cluster import HOST, LocalNode, make_node, make_shared

#: What the api package under test was made for.
VERSION = "1.20.2"


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["version", "-format=json"]:
            print(json.dumps({"Version": VERSION}))
        case ["agent", "-config-file", path]:
            config = made_from(Path(path))
            os.execv(sys.executable, [sys.executable, "-P", "-m", "cluster", "agent", "--config", str(config)])
        case _:
            sys.exit(f"this stand-in for consul knows version and agent, not {' '.join(arguments)}")


def made_from(path: Path) -> Path:
    """The configuration of a node that is what this configuration of Consul's asks for, beside it."""
    wanted = json.loads(path.read_bytes())
    root, ports = path.parent, wanted["ports"]
    name = wanted["node_name"]
    http, rpc, raft = (f"{HOST}:{ports[kind]}" for kind in ("http", "grpc", "server"))
    node = LocalNode(name, root / name, http, rpc, raft)
    make_shared(root)
    settings = {
        "acl": _acl(root, wanted["acl"]),
        "connect": {"ca_config": wanted["connect"]["ca_config"]},
        "limits": {"signing_workers": 1},
    }
    make_node(root, node, [node], settings)
    return node.config


def _acl(root: Path, acl: Mapping[str, Any]) -> dict[str, str]:
    found = {"default_policy": acl["default_policy"]}
    tokens = acl["tokens"]
    # Names of before 1.11, which testutil writes.
    for theirs, ours in (("master", "initial_management_file"), ("agent", "agent_token_file")):
        if secret_id := tokens.get(theirs):
            file = root / theirs
            file.touch(0o600)
            file.write_text(secret_id)
            found[ours] = str(file)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
