"""`quorumca ca sign`: have a CSR signed, or make a key and a CSR for a service here and have that signed."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands, dns_name, ip_text
from cluster.cli.files import PRIVATE, PUBLIC, new_file, read_text
from cluster.cli.output import print_json
from cluster.client.api import Api
from cluster.client.errors import CommandError, Exit, failing_as

#: Four times what the API takes, so that it is the API that explains.
_MAX_CSR_BYTES: Final = 64 << 10
_NEEDS_SERVICE: Final = {"key_out": "--key-out", "dns_san": "--dns-san", "ip_san": "--ip-san"}


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser(
        "sign",
        help="sign a CSR, or make a key and a certificate for a service",
        description="Prints the certificate with its chain, leaf first. Files that exist are not overwritten.",
    )
    _add_request_flags(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the chain to this file instead")
    add_api_flags(parser, is_read=False)
    parser.set_defaults(run=run)


def _add_request_flags(parser: Parser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--csr", metavar="FILE", help="the CSR, PEM; - is standard input")
    what.add_argument("--service", metavar="NAME", help="make an EC P-256 key and a CSR for this service")
    parser.add_argument("--key-out", metavar="FILE", type=Path, help="with --service: where the private key goes")
    more = "with --service: may be repeated"
    parser.add_argument("--dns-san", metavar="NAME", type=dns_name, action="append", default=[], help=more)
    parser.add_argument("--ip-san", metavar="ADDRESS", type=ip_text, action="append", default=[], help=more)


def run(args: argparse.Namespace) -> int:
    _check_flags(args)
    api = api_from(args)
    with failing_as("Error signing certificate"), ExitStack() as files:
        if args.service is None:
            csr_pem = read_text(args.csr, _MAX_CSR_BYTES)
        else:
            csr_pem, key_pem = _new_csr(api, args)
            files.enter_context(new_file(args.key_out, PRIVATE)).write(key_pem)
        out = files.enter_context(new_file(args.out, PUBLIC)) if args.out else sys.stdout
        issued = api.json("PUT", "/v1/connect/ca/sign", body={"CSR": csr_pem})
        chain_pem = _text(issued, "CertPEM")
        if args.out or args.format == "pretty":
            out.write(chain_pem)
    if args.format == "json":
        print_json(issued)
    return Exit.OK


def _check_flags(args: argparse.Namespace) -> None:
    if args.service is None:
        for name, flag in _NEEDS_SERVICE.items():
            if getattr(args, name):
                raise CommandError(f"{flag} requires --service", Exit.USAGE)
    elif args.key_out is None:
        raise CommandError("--service requires --key-out", Exit.USAGE)


def _new_csr(api: Api, args: argparse.Namespace) -> tuple[str, str]:
    """(CSR, key), both PEM, for the service in the cluster's trust domain and datacenter."""
    from providers.pki.spiffe import Kind, SpiffeError, SpiffeId, check_name
    from providers.pki.x509 import new_leaf_csr

    try:
        check_name("service", args.service)
    except SpiffeError as error:
        raise CommandError(f"--service is not allowed: {error}", Exit.USAGE) from error
    trust_domain = _text(api.json("GET", "/v1/connect/ca/roots"), "TrustDomain")
    datacenter = args.datacenter or _datacenter(api)
    uri = SpiffeId(Kind.SERVICE, trust_domain, datacenter, args.service).uri
    return new_leaf_csr(uri, args.dns_san, args.ip_san)


def _datacenter(api: Api) -> str:
    """Of the node that is asked: whoever may sign may not know more of it."""
    datacenters = api.texts("/v1/catalog/datacenters")
    if not datacenters or not datacenters[0]:
        raise CommandError("the server's answer is not understood: it has no datacenter")
    return datacenters[0]


def _text(answer: Any, key: str) -> str:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, str) or not value:
        raise CommandError(f"the server's answer is not understood: it has no {key}")
    return value
