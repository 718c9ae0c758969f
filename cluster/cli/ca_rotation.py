"""`quorumca ca rotate`, `rotation`, `distrust`: change the root, look at and steer the change, drop an old root.

The servers do all of it: a command that is interrupted, or loses its server, stops only watching.
"""

import argparse
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands, duration_text, whole_number
from cluster.cli.output import note, print_json, print_success, print_table, progress
from cluster.client.api import Api, objects
from cluster.client.errors import CommandError, Exit, failing_as

_ROTATION: Final = "/v1/connect/ca/rotation"
_ROOTS: Final = "/v1/connect/ca/roots"
_STEERING: Final = ("pause", "resume", "activate", "abort")
#: The server's own patience with a rotation has ended; the rotation goes on.
_STILL_UNDER_WAY: Final = 504
_LOOK_AGAIN_SECONDS: Final = 0.5
#: A leader may be lost meanwhile, and the asked node restarted.
_PATIENCE_SECONDS: Final = 60.0
_STATUS_FIELDS: Final = (
    *("ID", "Phase", "StartedAt", "PhaseSince", "Provider", "NewRootID"),
    *("Staged", "Forced", "Paused", "WaitUntil", "WaitingFor"),
)
_PLAN_FIELDS: Final = (
    ("ActiveRootID", "Current root"),
    ("Provider", "Provider"),
    ("Forced", "Without cross-signing"),
    ("Staged", "Staged"),
    ("TrustedRoots", "Trusted roots afterwards"),
    ("RetiredUntil", "Current root is trusted until"),
    ("Links", "Cross-signed certificates in a chain"),
    ("ChainBytes", "Bytes of a chain, at most"),
    ("MaxChainBytes", "Bytes allowed"),
    ("AffectedLeaves", "Valid leaves of the current root"),
)


def add_parser(subcommands: Subcommands) -> None:
    _add_rotate(subcommands)

    rotation = subcommands.add_parser(
        "rotation",
        help="show how a rotation stands, or steer it",
        description="Without ACTION: the rotation under way, how the last one ended, and the trusted roots.",
    )
    rotation.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        choices=_STEERING,
        help="pause: do not activate the new root of a staged rotation yet; resume; activate: do not wait longer;"
        " abort: give any rotation up",
    )
    add_api_flags(rotation)
    rotation.set_defaults(run=run_rotation)

    distrust = subcommands.add_parser("distrust", help="stop trusting a retired root at once, before its time")
    distrust.add_argument("root", metavar="ROOT-ID", help="as `ca roots` lists it")
    add_api_flags(distrust, is_read=False)
    distrust.set_defaults(run=run_distrust)


def add_staged_flags(parser: Parser) -> None:
    """`--staged` and `--wait-for`; `check_staged` belongs to them."""
    parser.add_argument(
        "--staged", action="store_true", help="let clients learn the new root first; it signs once they have"
    )
    parser.add_argument(
        "--wait-for",
        metavar="DURATION",
        type=duration_text,
        help="with --staged: it signs after this time even if clients lag; at most 720h, default 10m",
    )


def check_staged(args: argparse.Namespace) -> None:
    if args.wait_for is not None and not args.staged:
        raise CommandError("--wait-for requires --staged", Exit.USAGE)


def _add_rotate(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser(
        "rotate",
        help="replace the root by a new one with a fresh key",
        description="The old root cross-signs the new one and stays trusted, so no connection fails meanwhile.",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would happen, and change nothing")
    parser.add_argument("--key-type", choices=("ec", "rsa"), help="of the new root; default: as configured")
    parser.add_argument(
        "--key-bits", metavar="N", type=whole_number(1, 1 << 16), help="256, 384, 521 (ec), 2048, 4096 (rsa)"
    )
    parser.add_argument(
        "--force-without-cross-signing",
        action="store_true",
        help="do without the old root's signature; breaks connections for a while",
    )
    add_staged_flags(parser)
    parser.add_argument("--wait", action="store_true", help="until the new root signs, also of a staged rotation")
    add_api_flags(parser, is_read=False)
    parser.set_defaults(run=run_rotate)


def run_rotate(args: argparse.Namespace) -> int:
    check_staged(args)
    if args.dry_run and args.wait:
        raise CommandError("--dry-run and --wait cannot be given together", Exit.USAGE)
    api = api_from(args)
    with failing_as("Error planning the rotation" if args.dry_run else "Error rotating the root"):
        if args.dry_run:
            answer = api.json("PUT", _ROTATION, body=_request(args, "plan"))
        elif args.wait:
            answer = _rotate_and_wait(api, _request(args, "rotate"))
        else:
            answer = api.json("PUT", _ROTATION, body=_request(args, "rotate"))
    if args.format == "json":
        print_json(answer)
    elif args.dry_run:
        _print_plan(answer)
    else:
        _print_status(answer, was_asked_for=True)
    return Exit.OK


def run_rotation(args: argparse.Namespace) -> int:
    if args.action is not None and args.stale:
        raise CommandError(f"--stale cannot be given together with {args.action}", Exit.USAGE)
    api = api_from(args)
    if args.action is None:
        with failing_as("Error querying the rotation"):
            answer = api.json("GET", _ROTATION)
    else:
        with failing_as(f"Error asking to {args.action} the rotation"):
            answer = api.json("PUT", _ROTATION, body={"Action": args.action})
    if args.format == "json":
        print_json(answer)
    else:
        _print_status(answer)
    return Exit.OK


def run_distrust(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as(f"Error removing root {args.root}"):
        api.text("DELETE", f"{_ROOTS}/{quote(args.root, safe=':')}")
    print_success(f"Root {args.root} is no longer trusted.", as_json=args.format == "json")
    return Exit.OK


def _request(args: argparse.Namespace, action: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "Action": action,
        "PrivateKeyType": args.key_type,
        "PrivateKeyBits": args.key_bits,
        "ForceWithoutCrossSigning": args.force_without_cross_signing or None,
        "Staged": args.staged or None,
        "Wait": args.wait_for,
    }
    return {name: value for name, value in body.items() if value is not None}


# -- waiting


def _rotate_and_wait(api: Api, body: Mapping[str, Any]) -> dict[str, Any]:
    """The status once it has ended. Raises: CommandError, also when it was given up."""
    with progress("Rotating the root") as show:
        quiet = replace(api, waiting=nullcontext)
        before = _member(quiet.json("GET", _ROTATION), "Last").get("ID")
        text = quiet.text("PUT", _ROTATION, body=body, accept=(200, _STILL_UNDER_WAY))
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                status = quiet.json("GET", _ROTATION)
            except CommandError:
                if time.monotonic() >= deadline:
                    raise
            else:
                deadline = time.monotonic() + _PATIENCE_SECONDS
                rotation = _member(status, "Rotation")
                if not rotation:
                    break
                show(_progress_text(rotation))
            time.sleep(_LOOK_AGAIN_SECONDS)
    last = _member(status, "Last")
    if last.get("ID") == before:
        raise CommandError(f"no rotation was begun: {text.strip()}")
    if not last.get("RootID"):
        raise CommandError(f"the rotation was given up: {last.get('Reason')}")
    return status


def _progress_text(rotation: Mapping[str, Any]) -> str:
    uptake = _member(rotation, "Uptake")
    share = f" ({uptake.get('Percent')} % have it)" if uptake else ""
    return f"Rotating the root: waiting for {rotation.get('WaitingFor')}{share}"


# -- printing


def _print_status(status: Mapping[str, Any], *, was_asked_for: bool = False) -> None:
    rotation, last = _member(status, "Rotation"), _member(status, "Last")
    is_done = was_asked_for and not rotation and bool(last.get("RootID"))
    if rotation:
        rows: list[tuple[object, object]] = [(name, rotation.get(name)) for name in _STATUS_FIELDS]
        if uptake := _member(rotation, "Uptake"):
            rows.append(("Uptake", _uptake_text(uptake)))
        print_table("A rotation is under way.", ("Field", "Value"), rows)
    elif not is_done:
        print("No rotation is under way.")
    if is_done:
        print(f"Rotated at {last.get('EndedAt')}: root {last['RootID']} signs from now on.")
    elif last:
        print(_last_text(last))
    columns = ("ID", "Active", "RotatedOutAt", "PruneAt", "NotAfter")
    print_table(None, columns, [[root.get(name) for name in columns] for root in objects(status, "Roots")])
    if lost := _listed(status, "CutOffRoots"):
        note(
            f"New certificates do not lead to {', '.join(map(str, lost))}: clients that know no other root refuse them"
        )
    if last and last.get("ClientsMayFailUntil"):
        note(
            "It was forced: clients that have not fetched the new root refuse new certificates; those of the old root"
            f" are trusted until {last['ClientsMayFailUntil']}"
        )


def _last_text(last: Mapping[str, Any]) -> str:
    if last.get("RootID"):
        return f"The last one ended at {last.get('EndedAt')}: root {last['RootID']}"
    return f"The last one was given up at {last.get('EndedAt')}: {last.get('Reason')}"


def _uptake_text(uptake: Mapping[str, Any]) -> str:
    return (
        f"{uptake.get('Percent')} %: {uptake.get('WatchersSeen')} of {uptake.get('Watchers')} watchers,"
        f" {uptake.get('IdentitiesRenewed')} of {uptake.get('Identities')} identities"
    )


def _print_plan(plan: Mapping[str, Any]) -> None:
    key = ("Key of the new root", f"{plan.get('PrivateKeyType')} {plan.get('PrivateKeyBits')}")
    rows: list[tuple[object, object]] = [(label, plan.get(name)) for name, label in _PLAN_FIELDS]
    rows.insert(2, key)
    rows += [("Cut off", root) for root in _listed(plan, "CutOffRoots")]
    rows += [("Risk", risk) for risk in _listed(plan, "Risks")]
    print_table("Nothing was changed. A rotation now would be:", ("What", "Value"), rows)


def _listed(answer: Mapping[str, Any], key: str) -> list[Any]:
    """A list in an answer; what a server of before does not know is empty."""
    found = answer.get(key)
    return found if isinstance(found, list) else []


def _member(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in an answer; null counts as empty. Raises: CommandError."""
    value = answer.get(key) or {}
    if not isinstance(value, dict):
        raise CommandError(f"the server's answer is not understood: {key} is not an object")
    return value
