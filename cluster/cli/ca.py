"""`quorumca ca`: the trusted roots and the CA's configuration.

Rotation is in ca_rotation.py, signing in ca_sign.py, the record in ca_certs.py.
"""

import argparse
import sys
from typing import Any, Final

from cluster.cli import ca_certs, ca_rotation, ca_sign
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.files import json_object, read_text
from cluster.cli.output import print_json, print_success, print_table
from cluster.client.api import objects
from cluster.client.errors import CommandError, Exit, failing_as
from providers.config.secrets import secret_places

_ROOTS: Final = "/v1/connect/ca/roots"
_CONFIGURATION: Final = "/v1/connect/ca/configuration"
#: What the API takes at most.
_MAX_CONFIG_BYTES: Final = 512 << 10
#: Fields of Go's CAConfig in their order, with Go's zero values.
_CONFIG_FIELDS: Final[dict[str, Any]] = {
    "Provider": "",
    "Config": None,
    "State": None,
    "ForceWithoutCrossSigning": False,
    "CreateIndex": 0,
    "ModifyIndex": 0,
}
_FORCE: Final = "ForceWithoutCrossSigning"
_MODE: Final = "RotationMode"
_WAIT: Final = "RotationWait"


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("ca", help="look at the CA, configure it, sign and find certificates")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    roots = commands.add_parser("roots", help="list the root certificates that the mesh trusts")
    roots.add_argument("--pem", action="store_true", help="print the certificates, roots and their intermediates")
    add_api_flags(roots)
    roots.set_defaults(run=run_roots)

    get_config = commands.add_parser("get-config", help="print the CA's configuration as JSON")
    add_api_flags(get_config)
    get_config.set_defaults(run=run_get_config)

    set_config = commands.add_parser("set-config", help="change the CA's configuration, and so perhaps its root")
    set_config.add_argument("--config-file", metavar="FILE", help="JSON as get-config prints it; - is standard input")
    set_config.add_argument(
        "--force-without-cross-signing",
        action="store_true",
        help="change the root even if the old one cannot cross-sign the new one; breaks connections for a while",
    )
    ca_rotation.add_staged_flags(set_config)
    add_api_flags(set_config, is_read=False)
    set_config.set_defaults(run=run_set_config)

    ca_rotation.add_parser(commands)
    ca_sign.add_parser(commands)
    ca_certs.add_parser(commands)


def run_roots(args: argparse.Namespace) -> int:
    if args.pem and args.format == "json":
        raise CommandError("--pem and --format json cannot be given together", Exit.USAGE)
    api = api_from(args)
    with failing_as("Error querying CA roots"):
        if args.pem:
            sys.stdout.write(api.text("GET", _ROOTS, query={"pem": "1"}))
            return Exit.OK
        answer = api.json("GET", _ROOTS)
        roots = objects(answer, "Roots")
    if args.format == "json":
        print_json(answer)
    else:
        print_table(
            f"Trust domain: {answer.get('TrustDomain')}",
            ("ID", "Name", "Active", "NotAfter", "Key"),
            [
                (
                    root.get("ID"),
                    root.get("Name"),
                    root.get("Active"),
                    root.get("NotAfter"),
                    f"{root.get('PrivateKeyType')} {root.get('PrivateKeyBits')}",
                )
                for root in roots
            ],
        )
    return Exit.OK


def run_get_config(args: argparse.Namespace) -> int:
    """Prints the same for both formats: what `set-config` takes."""
    api = api_from(args)
    with failing_as("Error querying CA configuration"):
        answer = api.json("GET", _CONFIGURATION)
    print_json({name: answer.get(name, zero) for name, zero in _CONFIG_FIELDS.items()})
    return Exit.OK


def run_set_config(args: argparse.Namespace) -> int:
    if not args.config_file:
        raise CommandError("The -config-file flag is required", Exit.USAGE)
    ca_rotation.check_staged(args)
    with failing_as("Error reading config file"):
        config = _read_config(args.config_file)
    api = api_from(args, carries_secret=_holds_secret(config))
    if args.force_without_cross_signing:
        # Without the flag the file's own value counts. Consul overwrites it with false (consul-compat 11.7).
        config = _with(config, {_FORCE: True})
    if args.staged:
        config = _with(config, {_MODE: "staged"})
        if args.wait_for is not None:
            config = _with(config, {_WAIT: args.wait_for})
    with failing_as("Error setting CA configuration"):
        api.text("PUT", _CONFIGURATION, body=config)
    print_success("Configuration updated!", as_json=args.format == "json")
    return Exit.OK


def _read_config(name: str) -> dict[str, Any]:
    text = read_text(name, _MAX_CONFIG_BYTES)
    with failing_as(name):
        return json_object(text, "a JSON object with Provider and Config")


def _holds_secret(config: dict[str, Any]) -> bool:
    """A private key, or a login of a provider."""
    named = [value for name, value in config.items() if name.lower() == "config"]
    return any(any(secret_places(value)) for value in named if isinstance(value, dict))


def _with(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """In place of what the file says under the same names, in any case, or with underscores, as the server reads."""
    names = {name.lower() for name in changes}
    return {key: value for key, value in config.items() if key.replace("_", "").lower() not in names} | changes
