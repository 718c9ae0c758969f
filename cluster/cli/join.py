"""`quorumca join`: this machine becomes a server of a cluster, or gets another certificate as the server that it is.

The key is made here and never leaves. Every file is open before the token is used: what is had once is not lost for
want of a place. The seal key is no part of this: it opens the CA's keys, and an operator brings it by another way.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.base.names import is_address, is_node_name
from cluster.cli.api_flags import MAX_TOKEN_BYTES
from cluster.cli.arguments import Subcommands, matching
from cluster.cli.files import PRIVATE, PUBLIC, keep_private, new_file, read_secret, read_text, replaced_at_end
from cluster.cli.output import waiting
from cluster.cli.toml import dump_toml
from cluster.client.errors import CommandError, Exit
from cluster.client.joining import Wanted, join, parse_fingerprint

if TYPE_CHECKING:
    from cluster.base.config import NodeConfig

_MAX_PEM_BYTES: Final = 256 << 10
_MAX_SEAL_BYTES: Final = 64 << 10
_NAME: Final = matching(is_node_name, "a DNS label: lower-case letters, digits and inner hyphens, at most 63")
_ADDRESS: Final = matching(is_address, "host:port with a port from 1 to 65535, an IPv6 host in brackets")
_FINGERPRINT: Final = matching(parse_fingerprint, "a SHA-256 in hex, of 64 digits, with or without colons")


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("join", help="make this machine a server of a cluster, by a join token")
    parser.add_argument("--server", metavar="HOST:PORT", type=_ADDRESS, required=True, help="join.address of a server")
    parser.add_argument(
        "--ca-fingerprint", metavar="SHA256", type=_FINGERPRINT, required=True, help="of the agent CA's certificate"
    )
    tokens = parser.add_mutually_exclusive_group(required=True)
    tokens.add_argument("--token", help="the join token; others on this machine may see it: use a file")
    tokens.add_argument("--token-file", metavar="FILE", help="file with the join token; - for standard input")
    parser.add_argument("--name", metavar="NAME", type=_NAME, help="this server's name, as the token says")
    parser.add_argument("--address", metavar="HOST:PORT", type=_ADDRESS, help="of Raft; the others dial it")
    parser.add_argument("--rpc", metavar="HOST:PORT", type=_ADDRESS, help="of RPC; the others dial it")
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        type=_ADDRESS,
        default="127.0.0.1:8500",
        help="of the API; default 127.0.0.1:8500",
    )
    parser.add_argument(
        "--dir", metavar="DIR", type=Path, help="where its files go, which must not exist; default NAME"
    )
    parser.add_argument("--datacenter", metavar="DC", type=_NAME, default="dc1", help="default: dc1")
    parser.add_argument("--domain", metavar="DOMAIN", default="consul", help="of servers' names; default: consul")
    parser.add_argument("--seal-key-file", metavar="FILE", help="the cluster's seal key, which is copied")
    parser.add_argument("--rejoin", action="store_true", help="another certificate for a server that is one already")
    parser.add_argument("--config", metavar="FILE", type=Path, help="with --rejoin: the node's settings")
    parser.add_argument("--new-key", action="store_true", help="with --rejoin: another key, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    keep_private()
    _check_flags(args)
    if args.rejoin:
        return _rejoin(args)
    directory = args.dir or Path(args.name)
    _make(directory, args)
    config = directory / "config.toml"
    print(
        f"{args.name} is a server now, and votes once it has caught up. Start it:\n\n  quorumca agent --config {config}"
    )
    if not args.seal_key_file:
        print(f"\nBefore that, copy the cluster's seal key to {directory / 'data' / 'seal.key'}, mode 0600.")
    return Exit.OK


def _check_flags(args: argparse.Namespace) -> None:
    """Raises: CommandError."""
    only_new = {
        "--name": args.name,
        "--address": args.address,
        "--rpc": args.rpc,
    }
    if args.rejoin:
        if args.config is None:
            raise CommandError("--rejoin needs --config", Exit.USAGE)
        given = [
            name
            for name, value in {**only_new, "--dir": args.dir, "--seal-key-file": args.seal_key_file}.items()
            if value
        ]
        if given:
            raise CommandError(f"{', '.join(given)} with --rejoin: the file of --config says so", Exit.USAGE)
        return
    if args.config is not None or args.new_key:
        raise CommandError("--config and --new-key are of use with --rejoin only", Exit.USAGE)
    if missing := [name for name, value in only_new.items() if not value]:
        raise CommandError(f"the following arguments are required: {', '.join(missing)}", Exit.USAGE)


def _asked(args: argparse.Namespace, ask: Wanted, suffix: str) -> dict[str, Any]:
    """Raises: CommandError."""
    token = read_secret(args.token_file, MAX_TOKEN_BYTES) if args.token_file else args.token
    fingerprint = parse_fingerprint(args.ca_fingerprint)
    assert fingerprint is not None  # the flag was checked
    with waiting(f"Asking {args.server}"):
        return join(args.server, fingerprint, suffix, token, ask)


# -- a new server


def _make(directory: Path, args: argparse.Namespace) -> None:
    """Raises: CommandError; then nothing is left."""
    from cluster.tls.node_certs import key_pem, new_key, node_csr

    seal_key = read_text(args.seal_key_file, _MAX_SEAL_BYTES) if args.seal_key_file else None
    data = directory / "data"
    with ExitStack() as made:
        for path in (directory, data):
            try:
                path.mkdir(mode=0o700)
            except OSError as error:
                raise CommandError(f"{path} cannot be made: {error.strerror}") from error
            made.callback(_remove, path)
        files = ExitStack()
        made.push(files)
        names = {"ca.pem": PUBLIC, "cert.pem": PUBLIC, "key.pem": PRIVATE, "config.toml": PUBLIC}
        opened = {name: files.enter_context(new_file(directory / name, mode)) for name, mode in names.items()}
        if seal_key is not None:
            files.enter_context(new_file(data / "seal.key", PRIVATE)).write(seal_key)
        key = new_key()
        opened["key.pem"].write(key_pem(key))
        wanted = Wanted(args.name, args.address, args.rpc, node_csr(key))
        answer = _asked(args, wanted, f".server.{args.datacenter}.{args.domain}")
        cert_pem, ca_pem = _text(answer, "Certificate"), _text(answer, "CA")
        _check(cert_pem, key_pem(key), ca_pem, args.name, args.datacenter, args.domain)
        opened["cert.pem"].write(cert_pem)
        opened["ca.pem"].write(ca_pem)
        opened["config.toml"].write("# Made by `quorumca join`.\n" + dump_toml(_settings(directory, args, answer)))
        files.pop_all().close()
        made.pop_all()


def _remove(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _settings(directory: Path, args: argparse.Namespace, answer: Mapping[str, Any]) -> dict[str, Any]:
    here = Path(os.path.abspath(directory))
    return {
        "node_name": args.name,
        "datacenter": args.datacenter,
        "data_dir": str(here / "data"),
        # Those that the cluster started from, whoever is a server now: later changes are in the log.
        "servers": [
            {"name": _text(server, "Name"), "raft": _text(server, "Address"), "rpc": _text(server, "RPC")}
            for server in _founders(answer)
        ],
        "tls": {
            "ca_file": str(here / "ca.pem"),
            "cert_file": str(here / "cert.pem"),
            "key_file": str(here / "key.pem"),
            "domain": args.domain,
            "renew": True,
        },
        "http": {"address": args.http},
        "rpc": {"address": args.rpc},
        "raft": {"address": args.address},
        # One server that decides otherwise where no rule speaks would be a door past the others.
        "acl": {"default_policy": _default_policy(answer)},
    }


def _default_policy(answer: Mapping[str, Any]) -> str:
    policy = _text(answer, "DefaultPolicy")
    if policy not in ("allow", "deny"):
        raise CommandError("the answer does not say what the cluster allows by default")
    return policy


def _founders(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    founders = answer.get("Founders")
    if not isinstance(founders, list) or not all(isinstance(server, dict) for server in founders):
        raise CommandError("the answer does not name the servers that the cluster started from")
    return founders


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or len(value) > _MAX_PEM_BYTES:
        raise CommandError(f"the answer has no {name}")
    return value


def _check(cert_pem: str, key: str, ca_pem: str, node: str, datacenter: str, domain: str) -> None:
    """Whether the other servers take it. Raises: CommandError."""
    from cluster.tls.certificates import Identity, Pair
    from cluster.tls.proof import check_made

    try:
        check_made(Pair(cert_pem, key), Identity("server", datacenter, domain, node), ca_pem)
    except ValueError as error:
        raise CommandError(f"the certificate that was made is of no use: {error}") from error


# -- one that is a server already


def _rejoin(args: argparse.Namespace) -> int:
    from cluster.tls.node_certs import key_pem, new_key, node_csr

    config = _config(args.config)
    files = config.tls
    key = new_key() if args.new_key else _present_key(files.key_file)
    try:
        csr_pem = node_csr(key)
    except ValueError as error:
        raise CommandError(f"{files.key_file}: {error}: take --new-key") from error
    ask = Wanted(config.node_name, config.raft_address, config.rpc_address, csr_pem)
    ca_pem = read_text(str(files.ca_file), _MAX_PEM_BYTES)
    with ExitStack() as drafts:
        # The key first: if only that is in place, the next --rejoin takes it as it is.
        cert_file = drafts.enter_context(replaced_at_end(Path(files.cert_file)))
        if args.new_key:
            drafts.enter_context(replaced_at_end(Path(files.key_file))).write(key_pem(key).encode())
        answer = _asked(args, ask, f".server.{config.datacenter}.{files.domain}")
        cert_pem = _text(answer, "Certificate")
        _check(cert_pem, key_pem(key), ca_pem, config.node_name, config.datacenter, files.domain)
        cert_file.write(cert_pem.encode())
    print(
        f"{config.node_name} has another certificate: {files.cert_file}\nStart it; if it runs, it takes it by itself."
    )
    return Exit.OK


def _config(path: Path) -> "NodeConfig":
    from cluster.base.config import load_config
    from cluster.base.errors import ConfigError

    try:
        return load_config(path)
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _present_key(path: Path) -> Any:
    from providers.pki.keys import load_pem

    try:
        return load_pem(read_text(str(path), _MAX_PEM_BYTES))
    except ValueError as error:
        raise CommandError(f"{path} holds no key that can be used ({error}): take --new-key") from error
