"""Everything that can be found wrong with one node from its configuration, whether it runs or not."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cluster.base.config import NodeConfig, load_config
from cluster.base.errors import ConfigError
from cluster.base.words import plain
from cluster.doctor.connect import ConnectRules, check_connect
from cluster.doctor.data_dir import check_data_dir, is_in_use
from cluster.doctor.findings import Finding, critical, note
from cluster.doctor.host import check_addresses, check_servers
from cluster.doctor.members import check_membership
from cluster.doctor.tls_files import check_http_tls, check_tls
from cluster.doctor.token_files import check_token_files


def check_node(path: Path, now: datetime, rules: ConnectRules) -> Iterator[Finding]:
    try:
        config = load_config(path)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            yield _unreadable(path, error.__cause__)
            return
        for line in str(error).splitlines():
            yield critical(
                "config",
                path,
                line.removeprefix(f"{path}: "),
                "The node does not start with a mistake in its configuration.",
                f"mend {path}; deploy/node.example.toml shows every key",
            )
        return
    yield from check_connect(config, rules)
    yield from _check(config, now)


def _unreadable(path: Path, error: OSError) -> Finding:
    """It says nothing of what is in it."""
    return critical(
        "config",
        path,
        f"cannot be read by you: {plain(error)}" if isinstance(error, PermissionError) else plain(error),
        "The node was not looked at.",
        f"run this as the user that the node runs as, or as root: sudo -u quorumca quorumca doctor --config {path}"
        if isinstance(error, PermissionError)
        else "give the node's own file with --config; deploy/node.example.toml shows every key",
    )


def _check(config: NodeConfig, now: datetime) -> Iterator[Finding]:
    is_running = is_in_use(config.data_dir)
    yield from check_tls(config, now)
    yield from check_http_tls(config, now)
    yield from check_token_files(config)
    yield from check_data_dir(config, is_running=is_running)
    yield from check_servers(config)
    if not is_running:  # it says so itself
        yield from check_membership(config)
    if is_running:
        yield note(
            "node-runs",
            config.data_dir,
            "is in use: the node runs, or another one on its data",
            "Its ports and its record of certificates were not looked at.",
            f"ask it: quorumca doctor --http-addr {config.http.address}",
        )
    else:
        yield from check_addresses(config)
