"""What is wrong with what a node's configuration says of a new CA. The rules are the CA's (cluster/ca/settings.py), and
are handed in: this room is below.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster.base.config import ConnectSection, NodeConfig
from cluster.doctor.findings import Finding, critical, warning
from cluster.seal.node_file import NodeFile


@dataclass(frozen=True, slots=True)
class ConnectRules:
    #: Why no CA can be made of it, or nothing.
    mistake: Callable[[ConnectSection], str]
    #: Keys of `ca_config` that nobody reads.
    unread_keys: Callable[[ConnectSection], list[str]]


def check_connect(config: NodeConfig, rules: ConnectRules) -> Iterator[Finding]:
    if mistake := rules.mistake(config.connect):
        make = critical if _is_new(config) else warning
        yield make(
            "connect",
            config.data_dir,
            mistake,
            "No CA can be made of it: a new node does not start with it, and where there is a CA already it has no"
            " effect.",
            "mend [connect] in the node's file; of a CA that there is: quorumca ca get-config, quorumca ca set-config",
        )
    if unread := rules.unread_keys(config.connect):
        yield warning(
            "connect-unknown-key",
            config.data_dir,
            f"connect.ca_config has keys that the provider {config.connect.ca_provider!r} does not read:"
            f" {', '.join(unread)}",
            "A new CA has the default for what was meant, and says nothing of it.",
            "mend their spelling; docs/consul-compat.md has the names",
        )


def _is_new(config: NodeConfig) -> bool:
    try:
        return (NodeFile(config.data_dir).read() or {}).get("seal") is None
    except (OSError, ValueError):
        return False
