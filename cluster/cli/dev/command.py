"""`quorumca dev`: a cluster on this machine, one process per node. Files: local_cluster.py; processes:
dev_supervisor.py.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.cli.api_flags import add_token_flags, token_from
from cluster.cli.arguments import Subcommands, whole_number
from cluster.cli.files import keep_private
from cluster.cli.locks import LockHeld, locked
from cluster.cli.output import note, print_table, waiting
from cluster.client.errors import CommandError, Exit

if TYPE_CHECKING:
    from cluster.cli.dev.cluster_file import ClusterFile, Entry
    from cluster.cli.dev.local_cluster import LocalNode
    from cluster.cli.dev.supervisor import NodeProcess, StopSignals

_DEFAULT_NODES: Final = 3
_MAX_NODES: Final = 5
_READY_SECONDS: Final = 60.0
#: local_cluster.MAX_PORT_OFFSET, which is not imported only to read flags.
_MAX_PORT_OFFSET: Final = 57027
_DATA_DIR: Final = Path(".quorumca")
_ADDRESSES: Final = ("Node", "HTTP", "RPC", "Raft", "PID")
_PATHS: Final = ("Data", "Log")
_WIDE_COLUMNS: Final = 140
#: What commands ask that are told of no other.
_USUAL_HTTP: Final = "127.0.0.1:8500"
#: In the directory of the cluster: where the commands that are shown put the first token.
_MANAGEMENT: Final = "management.token"


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser(
        "dev",
        help="run a cluster on this machine",
        description="Runs a cluster on this machine, one process per node, until Ctrl-C. Run again, it goes on.",
    )
    parser.add_argument(
        "--nodes",
        metavar="N",
        type=whole_number(1, _MAX_NODES),
        help=f"1 to {_MAX_NODES}; default: {_DEFAULT_NODES}, or as many as DIR was made with",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, default=_DATA_DIR, help="keys, settings, data; default: %(default)s"
    )
    parser.add_argument(
        "--port-offset",
        metavar="K",
        type=whole_number(0, _MAX_PORT_OFFSET),
        help="added to all ports (HTTP 8500, RPC 8400, Raft 8300 and up); default: 0, or what DIR was made with",
    )
    parser.add_argument(
        "--acl-default-policy",
        choices=("allow", "deny"),
        help="deny: nothing is allowed without a token; default: allow, or what DIR was made with",
    )
    add_token_flags(parser)
    parser.set_defaults(run=run)
    commands = parser.add_subparsers(metavar="COMMAND")
    add_node = commands.add_parser("add-node", help="add a server to a local cluster that runs")
    # Suppressed: a default here would win over what stands before the sub-command.
    add_node.add_argument(
        "--data-dir", metavar="DIR", type=Path, default=argparse.SUPPRESS, help=f"default: {_DATA_DIR}"
    )
    add_token_flags(add_node, default=argparse.SUPPRESS)
    add_node.set_defaults(run=run_add_node)


def run(args: argparse.Namespace) -> int:
    from cluster.cli.dev import local_cluster as files
    from cluster.cli.dev.cluster_file import ClusterFile

    keep_private()
    root = _root(args)
    files.make_directory(root)
    with _sole_owner(root):
        cluster_file = ClusterFile(root)
        founders, added = _nodes(root, args.nodes, args.port_offset, cluster_file)
        policy = _policy(root, args.acl_default_policy)
        # A new cluster knows no token, whatever the environment has.
        token = token_from(args) if policy == "deny" and founders[0].is_made else ""
        nodes = [*founders, *added]
        _refuse_running(cluster_file)
        _refuse_busy_ports(nodes, is_new=not founders[0].is_made)
        with waiting("Making keys and settings"):
            files.make_shared(root)
            for node in founders:
                files.make_node(root, node, founders, files.acl_settings(policy))
        return _run_nodes(nodes, cluster_file, token, is_denied=policy == "deny")


def _run_nodes(nodes: "Sequence[LocalNode]", cluster_file: "ClusterFile", token: str, *, is_denied: bool) -> int:
    from cluster.cli.dev import supervisor as processes

    started: list[NodeProcess] = []
    with processes.StopSignals() as signals:
        try:
            # One by one into the list: whatever happens, what is in it is stopped.
            started.extend(map(processes.start_node, nodes))
            entries = [one.node.entry(one.process.pid) for one in started]
            cluster_file.put(*entries)
            with waiting("Waiting until every node serves"):
                trust_domain = processes.wait_until_serving(started, signals, _READY_SECONDS, token=token)
                if is_denied:
                    processes.wait_until_guarded(entries[0].http, signals, _READY_SECONDS)
            _show(entries, trust_domain, is_denied=is_denied)
            processes.supervise(processes.Watch(cluster_file, started, note), signals)
        except processes.Stopped:
            pass
        finally:
            is_in_order = _stop(started, cluster_file, signals)
    return Exit.OK if is_in_order else Exit.FAILED


def _stop(started: "Sequence[NodeProcess]", cluster_file: "ClusterFile", signals: "StopSignals") -> bool:
    """Every node of the cluster, also one that was added, or brought back by hand."""
    from cluster.cli.dev.supervisor import stop_all

    own = {one.process.pid for one in started}
    try:
        others = [entry for entry in cluster_file.read() if entry.pid not in own]
    except CommandError as error:
        others = []
        note(f"only the nodes that were started here are stopped: {error}")
    with waiting("Stopping the nodes"):
        is_in_order = stop_all(started, others, signals, note)
    if is_in_order:
        note("All nodes have stopped.")
    return is_in_order


# -- which nodes


def _root(args: argparse.Namespace) -> Path:
    # Resolved: what is written into configurations must not depend on the present directory.
    return Path(os.path.realpath(args.data_dir))


@contextmanager
def _sole_owner(root: Path) -> Iterator[None]:
    try:
        with locked(root / ".dev.lock"):
            yield
    except LockHeld as holder:
        raise CommandError(f"{root} is in use by another quorumca dev (pid {holder}); stop that one first") from None


def _nodes(
    root: Path, count: int | None, port_offset: int | None, cluster_file: "ClusterFile"
) -> "tuple[list[LocalNode], list[LocalNode]]":
    """Those that the cluster started or starts from, and those that were added since."""
    from cluster.cli.dev.local_cluster import HTTP_PORT, load_local, node_at

    if not node_at(root, 1, 0).is_made:
        return [node_at(root, k + 1, port_offset or 0) for k in range(count or _DEFAULT_NODES)], []
    first, config = load_local(root / "node-1")
    made_count, made_offset = len(config.servers), int(first.http.rpartition(":")[2]) - HTTP_PORT
    founders = [_made_or_new(node_at(root, k + 1, made_offset)) for k in range(made_count)]
    names = {node.name for node in founders}
    added = [load_local(root / entry.name)[0] for entry in cluster_file.read() if entry.name not in names]
    if count not in (None, made_count, made_count + len(added)):
        raise CommandError(
            f"{root} was made with --nodes {made_count}, which --nodes {count} does not change: leave the flag out,"
            " add a server with `quorumca dev add-node`, or choose another --data-dir"
        )
    if port_offset not in (None, made_offset):
        raise CommandError(
            f"{root} was made with --port-offset {made_offset}, which --port-offset {port_offset} does not change:"
            " leave the flag out, or choose another --data-dir"
        )
    return founders, added


def _policy(root: Path, wanted: str | None) -> str | None:
    """What is allowed without a token, as the first node has it or will have it."""
    from cluster.cli.dev.local_cluster import load_local, node_at

    if not node_at(root, 1, 0).is_made:
        return wanted
    config = load_local(root / "node-1")[1]
    made = "allow" if config.allows_by_default else "deny"
    if wanted not in (None, made):
        raise CommandError(
            f"{root} was made with --acl-default-policy {made}, which --acl-default-policy {wanted} does not change:"
            " leave the flag out, change [acl] in the configuration of every node, or choose another --data-dir"
        )
    return config.acl.default_policy


def _made_or_new(node: "LocalNode") -> "LocalNode":
    from cluster.cli.dev.local_cluster import load_local

    return load_local(node.directory)[0] if node.is_made else node


def _refuse_running(cluster_file: "ClusterFile") -> None:
    running = [entry for entry in cluster_file.read() if entry.is_running]
    if running:
        names = ", ".join(f"{entry.name} (pid {entry.pid})" for entry in running)
        pids = " ".join(str(entry.pid) for entry in running)
        raise CommandError(
            f"nodes of {cluster_file.path.parent} run already: {names}; stop them first, as with: kill {pids}"
        )


def _refuse_busy_ports(nodes: "Sequence[LocalNode]", *, is_new: bool) -> None:
    from cluster.cli.dev.local_cluster import port_in_use

    if found := port_in_use(nodes):
        node, what, address = found
        advice = "shift all ports with --port-offset" if is_new else "use another --data-dir: this one keeps its ports"
        raise CommandError(
            f"port {address.rpartition(':')[2]} is in use ({address}, wanted for the {what} of {node.name}):"
            f" stop what listens there, or {advice}"
        )


# -- what is shown


def _show(entries: "Sequence[Entry]", trust_domain: str, *, is_denied: bool = False) -> None:
    _print_nodes(entries)
    commands = _guarded_commands(entries[0]) if is_denied else _commands(f"http://{entries[0].http}", trust_domain)
    print("Any node answers. To try it:\n")
    if entries[0].http != _USUAL_HTTP:
        commands = {
            "quorumca asks this cluster from then on": f"export QUORUMCA_HTTP_ADDR={entries[0].http}",
            **commands,
        }
    for title, command in commands.items():
        print(f"# {title}\n{command}\n")
    sys.stdout.flush()
    note("Ctrl-C stops all nodes; run again, the cluster goes on.")


def _commands(address: str, trust_domain: str) -> dict[str, str]:
    return {
        "Sign a certificate for the service web; its key is made here, in web.key": sign_command(address, trust_domain),
        "Let the node make the key, too": f"curl -s '{address}/v1/agent/connect/ca/leaf/web?pretty'",
        "The roots to trust": f"curl -s '{address}/v1/connect/ca/roots?pretty'",
        "The servers": f"curl -s '{address}/v1/operator/raft/configuration?pretty'",
    }


def _guarded_commands(entry: "Entry") -> dict[str, str]:
    """Where nothing is allowed without a token. A token is never an argument: others see those."""
    quorumca = shlex.join([sys.executable, "-P", "-m", "cluster"])
    file = shlex.quote(str(Path(entry.config).parents[1] / _MANAGEMENT))
    address = f"-http-addr {entry.http}"
    return {
        "The first token, which may do everything; once in the life of the cluster": (
            f"test -s {file} ||"
            f" (umask 077; {quorumca} acl bootstrap {address} | awk '/^SecretID/ {{print $2}}' > {file})"
        ),
        "Commands take it from there; curl does not (see below)": f"export QUORUMCA_HTTP_TOKEN_FILE={file}",
        "Sign a certificate for the service web; its key is made here, in web.key": (
            f"{quorumca} ca sign {address} --service web --key-out web.key --out web.pem"
        ),
        "The roots to trust, for everybody": f"curl -s 'http://{entry.http}/v1/connect/ca/roots?pretty'",
        "The servers": (
            'printf \'X-Consul-Token: %s\' "$(cat "$QUORUMCA_HTTP_TOKEN_FILE")"'
            f" | curl -s -H @- 'http://{entry.http}/v1/operator/raft/configuration?pretty'"
        ),
        "How to give others less: docs/acl.md. To begin with": f"{quorumca} acl token list {address}",
    }


def _print_nodes(entries: "Sequence[Entry]") -> None:
    """One table, or two where a terminal is too narrow: an address in pieces cannot be copied."""
    addresses = [(one.name, f"http://{one.http}", one.rpc, one.raft, one.pid) for one in entries]
    paths = [(_short(Path(one.data_dir)), _short(Path(one.config).with_name("log"))) for one in entries]
    if not sys.stdout.isatty() or shutil.get_terminal_size().columns >= _WIDE_COLUMNS:
        rows = [(*left, *right) for left, right in zip(addresses, paths, strict=True)]
        print_table(None, (*_ADDRESSES, *_PATHS), rows)
        return
    print_table(None, _ADDRESSES, addresses)
    print_table(None, ("Node", *_PATHS), [(left[0], *right) for left, right in zip(addresses, paths, strict=True)])


def sign_command(address: str, trust_domain: str) -> str:
    """One line for a shell with openssl and curl: key, CSR, the CSR as a JSON string, and the request."""
    uri = f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/web"
    return (
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout web.key -subj /"
        f" -addext {shlex.quote(f'subjectAltName=URI:{uri}')} 2>/dev/null"
        """ | awk 'BEGIN{printf "{\\"CSR\\":\\""} {printf "%s\\\\n",$0} END{print "\\"}"}'"""
        f" | curl -s -X PUT --data-binary @- {address}/v1/connect/ca/sign"
    )


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


# -- add-node


def run_add_node(args: argparse.Namespace) -> int:
    from cluster.cli.dev.add_node import add_node

    keep_private()
    if args.nodes is not None or args.port_offset is not None or args.acl_default_policy is not None:
        raise CommandError(
            "--nodes, --port-offset and --acl-default-policy are of no use to add-node: DIR has its own", Exit.USAGE
        )
    root = _root(args)
    entry = add_node(root, token_from(args))
    _print_nodes([entry])
    return Exit.OK
