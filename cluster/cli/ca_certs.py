"""`quorumca ca certs`: look up issued certificates in the cluster's record."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands, whole_number
from cluster.cli.output import note, print_json, print_table
from cluster.client.api import objects
from cluster.client.errors import CommandError, Exit, failing_as
from fsm.leaves import LEAF_KINDS

_CERTS: Final = "/v1/connect/ca/certs"
_COLUMNS: Final = ("SerialNumber", "Kind", "Service", "SpiffeID", "ValidBefore", "RequestedBy")
#: In lists where one has it.
_ACCESSOR: Final = "RequestedByAccessorID"
_FIELDS: Final = (
    "SerialNumber",
    "Kind",
    "Service",
    "SpiffeID",
    "IssuerKeyID",
    "PublicKeySHA256",
    "ValidAfter",
    "ValidBefore",
    "RequestedBy",
    "RequestedVia",
    _ACCESSOR,
    "CreateIndex",
)
_FILTERS: Final = ("service", "spiffe_id", "kind", "issuer", "expires_before", "accessor", "limit", "after")


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("certs", help="find issued certificates", description="Filters are joined by AND.")
    parser.add_argument("serial", metavar="SERIAL", nargs="?", help="show this one: hex, with or without colons")
    parser.add_argument("--service", metavar="NAME", help="issued for this service")
    parser.add_argument("--spiffe-id", metavar="URI", help="issued for this SPIFFE ID")
    parser.add_argument("--kind", choices=[*LEAF_KINDS], help="what it was issued for")
    parser.add_argument("--issuer", metavar="KEY-ID", help="signed by this key: a root's SigningKeyID")
    parser.add_argument(
        "--expires-before",
        metavar="TIME",
        type=_moment,
        help="expires before this time: RFC 3339 (UTC unless it says so), or from now on, as in 72h",
    )
    parser.add_argument("--accessor", metavar="ID", help="asked for with this token: its AccessorID")
    parser.add_argument("--limit", metavar="N", type=whole_number(1, 1000), help="at most this many (1 to 1000)")
    parser.add_argument("--after", metavar="CURSOR", help="go on where a listing ended")
    add_api_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    query = {name: str(value) for name in _FILTERS if (value := getattr(args, name)) is not None}
    if args.serial is None:
        return _list(args, query)
    if query:
        raise CommandError("SERIAL cannot be given together with filters", Exit.USAGE)
    return _show(args)


def _list(args: argparse.Namespace, query: Mapping[str, str]) -> int:
    api = api_from(args)
    with failing_as("Error querying certificates"):
        answer = api.json("GET", _CERTS, query=query)
        certs = objects(answer, "Certs")
    if args.format == "json":
        print_json(answer)
        return Exit.OK
    has_accessor = any(cert.get(_ACCESSOR) for cert in certs)
    columns = (*_COLUMNS, _ACCESSOR) if has_accessor else _COLUMNS
    print_table(None, columns, [[cert.get(name) for name in columns] for cert in certs])
    if answer.get("Next") is not None:
        note(f"There are more: go on with --after {answer['Next']}")
    return Exit.OK


def _show(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as(f"Error querying certificate {args.serial}"):
        cert: Mapping[str, Any] = api.json("GET", f"{_CERTS}/{quote(args.serial, safe=':')}")
    if args.format == "json":
        print_json(cert)
    else:
        print_table(None, ("Field", "Value"), [(name, cert.get(name)) for name in _FIELDS])
    return Exit.OK


def _moment(text: str) -> str:
    """RFC 3339 in UTC, from a time or from a duration that begins now."""
    from providers.config.durations import parse_duration

    try:
        moment = datetime.now(UTC) + timedelta(microseconds=parse_duration(text) // 1000)
    except (ValueError, OverflowError):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed: must be a time as in 2027-01-31T12:00:00Z, or a duration as in 72h"
            ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
