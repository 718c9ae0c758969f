"""The smallest configuration of a node."""

from typing import Any


def minimal(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "node_name": "a",
        "data_dir": "/data",
        "servers": [{"name": "a", "raft": "127.0.0.1:8300", "rpc": "127.0.0.1:8400"}],
        "tls": {"ca_file": "ca.pem", "cert_file": "a.pem", "key_file": "a.key"},
    }
    return values | changes
