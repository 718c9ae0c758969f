"""`quorumca tls`: the agent CA and the nodes' certificates as files, with Consul's flags, file names and refusals."""

import argparse
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.base.names import is_node_name
from cluster.cli.arguments import Parser, Subcommands, dns_name, ip_text, is_dns_name, matching, whole_number
from cluster.cli.files import read_text, save_pair
from cluster.cli.output import note
from cluster.client.errors import CommandError, Exit

if TYPE_CHECKING:
    from cluster.tls.certificates import Identity, Pair
    from providers.pki.x509 import Issuer

_DOMAIN: Final = "#DOMAIN#"
#: What every trust domain ends with, whatever the domain of the agents' names is.
_MESH_DOMAIN: Final = "consul"
_ROLES: Final = ("server", "client", "cli")
_MAX_NUMBER: Final = 10_000
_MAX_PEM_BYTES: Final = 64 << 10
#: RFC 5280 A.1, ub-common-name.
_MAX_COMMON_NAME: Final = 64
_SERVER_WARNING: Final = """\
==> WARNING: Whoever has this certificate and its key can be the server
    that it names, once that is one of the cluster's: see the state, vote,
    lead, and put what they like into the log, a root too. The CA's keys
    in it open with the seal key only. Keep both as safe as the key of the
    CA, and copy them to that server and nowhere else."""

_days: Final = whole_number(1, 36_500)
_common_name: Final = matching(
    lambda text: len(text) <= _MAX_COMMON_NAME and text.isprintable(),
    f"at most {_MAX_COMMON_NAME} characters, all of them printable",
)
_cluster_id: Final = matching(re.compile("[A-Za-z0-9-]{1,63}").fullmatch, "letters, digits and hyphens, as in a UUID")
_label: Final = matching(is_node_name, "a DNS label: lower-case letters, digits and inner hyphens, at most 63")
_domain: Final = matching(
    lambda text: len(text) <= 253 and all(map(is_node_name, text.split("."))), "a DNS domain in lower case"
)

#: RFC 5280 4.2.1.10 has no wildcards: a domain stands for all below it. An address is no name to anybody.
_name_constraint: Final = matching(
    lambda text: (
        not text.startswith("*") and is_dns_name(text.removeprefix(".")) and not text.rpartition(".")[2].isdigit()
    ),
    "a DNS domain, without a wildcard, and no address",
)


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("tls", help="make the certificates that nodes know each other by")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    ca = commands.add_parser("ca", help="the agent CA").add_subparsers(metavar="COMMAND", required=True)
    _add_ca_create(ca.add_parser("create", help="make a CA: DOMAIN-agent-ca.pem and DOMAIN-agent-ca-key.pem"))
    cert = commands.add_parser("cert", help="certificates").add_subparsers(metavar="COMMAND", required=True)
    _add_cert_create(cert.add_parser("create", help="make a certificate: DC-ROLE-DOMAIN-N.pem and -N-key.pem"))


def _add_ca_create(parser: Parser) -> None:
    _add_common_flags(parser, days=1825)
    parser.add_argument("--common-name", metavar="NAME", type=_common_name, help="of the CA")
    parser.add_argument(
        "--cluster-id",
        metavar="ID",
        type=_cluster_id,
        help="adds the SPIFFE ID of this cluster, so that the CA can become the mesh's root",
    )
    parser.add_argument("--name-constraint", action="store_true", help="be good for DOMAIN and localhost only")
    parser.add_argument(
        "--additional-name-constraint",
        metavar="DOMAIN",
        type=_name_constraint,
        action="append",
        default=[],
        help="with --name-constraint: be good for this domain too; may be repeated",
    )
    parser.set_defaults(run=run_ca_create)


def _add_cert_create(parser: Parser) -> None:
    _add_common_flags(parser, days=365)
    parser.add_argument("--server", action="store_true", help="for a server")
    parser.add_argument("--client", action="store_true", help="for a client agent")
    parser.add_argument("--cli", action="store_true", help="for the command line")
    parser.add_argument("--node", metavar="NAME", type=_label, help="with --server: the server's node name")
    parser.add_argument("--dc", metavar="NAME", type=_label, default="dc1", help="datacenter; default: dc1")
    parser.add_argument("--ca", metavar="FILE", default=f"{_DOMAIN}-agent-ca.pem", help="default: %(default)s")
    parser.add_argument("--key", metavar="FILE", default=f"{_DOMAIN}-agent-ca-key.pem", help="default: %(default)s")
    for flag, check in (("--additional-dnsname", dns_name), ("--additional-ipaddress", ip_text)):
        parser.add_argument(
            flag, metavar="NAME", type=check, action="append", default=[], help="also name this; may be repeated"
        )
    parser.set_defaults(run=run_cert_create)


def _add_common_flags(parser: Parser, days: int) -> None:
    parser.add_argument("--days", metavar="N", type=_days, default=days, help=f"validity; default: {days}")
    parser.add_argument("--domain", metavar="DOMAIN", type=_domain, default="consul", help="default: consul")


def run_ca_create(args: argparse.Namespace) -> int:
    from cluster.tls.certificates import new_ca

    if args.additional_name_constraint and not args.name_constraint:
        raise CommandError("-additional-name-constraint requires -name-constraint", Exit.USAGE)
    pair = new_ca(
        _now(),
        args.days,
        common_name=args.common_name or "",
        uri=f"spiffe://{args.cluster_id}.{args.domain}" if args.cluster_id else "",
        permitted_dns=[*args.additional_name_constraint, args.domain, "localhost"] if args.name_constraint else (),
    )
    if args.cluster_id and args.domain != _MESH_DOMAIN:
        note(
            f"-cluster-id with -domain={args.domain}: this CA cannot become the root of a Quorum CA mesh, whose trust"
            f" domain is {args.cluster_id}.{_MESH_DOMAIN}. Leave -domain out for that."
        )
    _check_ca(pair, args.domain)
    _save(f"{args.domain}-agent-ca", pair)
    return Exit.OK


def run_cert_create(args: argparse.Namespace) -> int:
    identity = _identity(args)
    ca_file, key_file = (name.replace(_DOMAIN, args.domain, 1) for name in (args.ca, args.key))
    issuer = _load_issuer(ca_file, key_file)
    pair = _new_cert(issuer, identity, args.days, ca_file)
    _check_made(pair, identity, ca_file)
    if identity.role == "server":
        print(_SERVER_WARNING)
    print(f"==> Using {ca_file} and {key_file}")
    _save(_free_stem(f"{args.dc}-{identity.role}-{args.domain}"), pair)
    return Exit.OK


def _identity(args: argparse.Namespace) -> "Identity":
    from cluster.tls.certificates import Identity

    roles = [role for role in _ROLES if getattr(args, role)]
    if len(roles) != 1:
        raise CommandError("Please provide either -server, -client, or -cli", Exit.USAGE)
    if args.node and not args.server:
        raise CommandError("-node requires -server", Exit.USAGE)
    if args.server and not args.node:
        note("Without -node the certificate names no server; quorumca's own servers need one that does.")
    if args.cli and args.additional_dnsname:
        note("-additional-dnsname has no effect with -cli")
    identity = Identity(
        roles[0],
        args.dc,
        args.domain,
        args.node or "",
        tuple(args.additional_dnsname),
        tuple(args.additional_ipaddress),
    )
    if len(identity.name) > _MAX_COMMON_NAME:
        raise CommandError(
            f"-dc and -domain are too long: {identity.name} must have at most {_MAX_COMMON_NAME} characters", Exit.USAGE
        )
    return identity


def _load_issuer(ca_file: str, key_file: str) -> "Issuer":
    from cluster.tls.certificates import load_ca

    ca_pem, key_pem = read_text(ca_file, _MAX_PEM_BYTES), read_text(key_file, _MAX_PEM_BYTES)
    try:
        return load_ca(ca_pem, key_pem, _now())
    except ValueError as error:
        raise CommandError(f"{ca_file} and {key_file} cannot be used: {error}") from error


def _new_cert(issuer: "Issuer", identity: "Identity", days: int, ca_file: str) -> "Pair":
    from cluster.tls.certificates import new_cert

    now, end = _now(), issuer.cert.not_valid_after_utc
    if end < now + timedelta(days=days):
        note(f"The certificate ends before -days {days}, with the CA's: {end:%Y-%m-%d}")
    try:
        return new_cert(issuer, identity, now, days)
    except ValueError as error:
        raise CommandError(f"{ca_file} cannot be used: {error}") from error


def _check_made(pair: "Pair", identity: "Identity", ca_file: str) -> None:
    from cluster.tls.proof import check_made

    try:
        check_made(pair, identity, read_text(ca_file, _MAX_PEM_BYTES))
    except ValueError as error:
        raise CommandError(f"{ca_file} cannot be used: {error}") from error


def _check_ca(ca: "Pair", domain: str) -> None:
    """With a certificate that is thrown away: a CA that no peer accepts is found before it is in use everywhere."""
    from cluster.tls.certificates import Identity, load_ca, new_cert
    from cluster.tls.proof import check_made

    now, identity = _now(), Identity("server", domain=domain, node="node")
    try:
        check_made(new_cert(load_ca(ca.cert_pem, ca.key_pem, now), identity, now, 1), identity, ca.cert_pem)
    except ValueError as error:
        raise CommandError(f"the CA that these flags ask for cannot be used: {error}", Exit.USAGE) from error


def _free_stem(prefix: str) -> str:
    for number in range(_MAX_NUMBER + 1):
        stem = f"{prefix}-{number}"
        if not any(os.path.lexists(path) for path in _paths(stem)):
            return stem
    raise CommandError(f"no file name is free: {prefix}-0.pem to {prefix}-{_MAX_NUMBER}.pem are taken")


def _paths(stem: str) -> tuple[Path, Path]:
    return Path(f"{stem}.pem"), Path(f"{stem}-key.pem")


def _save(stem: str, pair: "Pair") -> None:
    cert_path, key_path = _paths(stem)
    save_pair((cert_path, pair.cert_pem), (key_path, pair.key_pem))
    print(f"==> Saved {cert_path}\n==> Saved {key_path}")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
