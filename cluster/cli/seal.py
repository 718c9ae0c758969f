"""`quorumca seal`: the key that seals the CA's private keys (cluster/seal/sealer.py): made, changed, looked at."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.files import keep_private
from cluster.cli.output import note, print_json, print_table, waiting
from cluster.client.api import Api, objects
from cluster.client.errors import CommandError, Exit, failing_as

_SEAL: Final = "/v1/operator/seal"
_SETTLE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5

_NEXT: Final = """\
Copy this file, mode 0600, to every node of the cluster: as seal.key in its data directory, or to where
seal.key_file in its configuration points. The nodes do not start with different keys or without one.
Keep a backup apart from the nodes and their backups. Without this key nobody can open the CA's private
keys again; with it and a copy of a data directory, anybody can."""


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("seal", help="make, change and look at the key that seals the CA's private keys")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    init = commands.add_parser("init", help="make a new seal key, for a new cluster")
    init.add_argument("--key-file", metavar="FILE", type=Path, default=Path("seal.key"), help="default: seal.key")
    init.set_defaults(run=run_init)

    status = commands.add_parser("status", help="which seal key each server has, and what is left to do")
    add_api_flags(status, is_read=False)
    status.set_defaults(run=run_status)

    rotate = commands.add_parser("rotate", help="change to the next seal key and seal everything again")
    rotate.add_argument("--keep-key", action="store_true", help="change the data key only, under the same seal key")
    add_api_flags(rotate, is_read=False)
    rotate.set_defaults(run=run_rotate)


def run_init(args: argparse.Namespace) -> int:
    from cluster.seal.sources import write_key_file

    path: Path = args.key_file
    keep_private()
    try:
        write_key_file(path)
    except FileExistsError:
        raise CommandError(
            f"{path} already exists. It is not replaced: a cluster that was sealed with it could never be opened again."
        ) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    print(f"==> Saved {path}\n{_NEXT}")
    return Exit.OK


def run_status(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error reading the seal"):
        answer = api.json("GET", _SEAL)
        _show(answer, as_json=args.format == "json")
    return Exit.OK


def run_rotate(args: argparse.Namespace) -> int:
    """Done when it is committed; then it is seen to the end, but for what is left to an operator."""
    api = api_from(args)
    with failing_as("Error changing the seal"):
        answer = api.json("PUT", _SEAL, body={"KeepKey": args.keep_key})
        answer = _settled(api, answer)
        _show(answer, as_json=args.format == "json")
    if answer.get("Settled") is not True:
        note(f"It is changed, but not all servers are done within {_SETTLE_SECONDS:g} s: see `quorumca seal status`")
        return Exit.FAILED
    return Exit.OK


def _settled(api: Api, answer: dict[str, Any]) -> dict[str, Any]:
    """Once it is, or the time is over."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    with waiting("Waiting until nothing needs the key of before"):
        while answer.get("Settled") is not True and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            answer = api.json("GET", _SEAL)
    return answer


def _show(answer: Mapping[str, Any], *, as_json: bool) -> None:
    nodes = objects(answer, "Nodes")
    if as_json:
        print_json(answer)
        return
    columns = ("Node", "Source", "KeyID", "SealID", "Settled")
    print_table(None, columns, [tuple(node.get(column) for column in columns) for node in nodes])
    for node in nodes:
        if node.get("ToDo"):
            note(f"{node.get('Node')}: {node.get('ToDo')}")
