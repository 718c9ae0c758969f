"""Flags of several commands: links to policies and roles, identities, and texts that may stand in files."""

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cluster.cli.acl.kinds import POLICY, ROLE, Kind
from cluster.cli.acl.pretty import quoted
from cluster.cli.api_flags import MAX_TOKEN_BYTES, checked_token
from cluster.cli.arguments import Parser
from cluster.cli.files import read_secret, read_text
from cluster.client.api import Api
from cluster.client.errors import CommandError, Exit, failing_as

#: In help texts.
TEXT_OR_FILE: Final = "the text itself, @FILE, or - for standard input"
_STDIN: Final = "-"
_PATH: Final = re.compile(r"(/(?![/*])|\.{1,2}/|~/).*|[^\s\"'{}\[\]()#]+\.(hcl|json|pem|crt)")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def text_of(flag: str, given: str, limit_bytes: int) -> str:
    """What a flag gives: the text itself, `@FILE`, or `-` for standard input. Raises: CommandError."""
    source = _source(given)
    if source is None:
        if _is_path(given):
            raise CommandError(
                f"{flag}: {given!r:.200} looks like the name of a file: give @FILE for its text", Exit.USAGE
            )
        return given
    with failing_as(flag):
        return read_text(source, limit_bytes)


def _is_path(given: str) -> bool:
    """Whether it was meant as the name of a file: no rules, JSON or PEM begin or end so, but for comments."""
    return _PATH.fullmatch(given) is not None or os.path.isfile(given)


def secret_of(flag: str, given: str, limit_bytes: int = MAX_TOKEN_BYTES) -> str:
    """As `text_of`, of one line that is a secret. Raises: CommandError, whose text does not repeat it."""
    source = _source(given)
    if source is None and given and os.path.isfile(given):
        raise CommandError(f"{flag}: {given!r:.200} is the name of a file: give @FILE for its text", Exit.USAGE)
    with failing_as(flag):
        return checked_token(given) if source is None else read_secret(source, limit_bytes)


def is_uuid(text: str) -> bool:
    """Whether it has the form of an id or a secret."""
    return _UUID.fullmatch(text) is not None


def _source(given: str) -> str | None:
    if given == _STDIN:
        return _STDIN
    return given[1:] if given.startswith("@") else None


def add_policy_flags(parser: Parser, prefix: str = "") -> None:
    _add_link_flags(parser, POLICY, prefix)


def add_role_flags(parser: Parser, prefix: str = "") -> None:
    _add_link_flags(parser, ROLE, prefix)


def _add_link_flags(parser: Parser, kind: Kind, prefix: str) -> None:
    _add_repeated(parser, f"{prefix}{kind.name}-id", "ID", f"a {kind.name}, by its id or the beginning of it")
    _add_repeated(parser, f"{prefix}{kind.name}-name", "NAME", f"a {kind.name}, by its name")


def add_identity_flags(parser: Parser, prefix: str = "") -> None:
    _add_repeated(
        parser,
        f"{prefix}service-identity",
        "NAME:DC,DC",
        "the rights that a service's sidecar needs; without :DC,DC in all datacenters",
        service_identity,
    )
    _add_repeated(
        parser,
        f"{prefix}node-identity",
        "NAME:DC",
        "the rights that a node's agent needs, in one datacenter",
        node_identity,
    )


def _add_repeated(
    parser: Parser, flag: str, metavar: str, text: str, check: Callable[[str], object] | None = None
) -> None:
    options: dict[str, Any] = {} if check is None else {"type": check}
    parser.add_argument(
        f"--{flag}", metavar=metavar, action="append", default=[], help=f"{text}; may be repeated", **options
    )


def service_identity(text: str) -> dict[str, Any]:
    """A check: NAME, or NAME:DC,DC. What a name may be is for the API to say."""
    name, colon, rest = text.partition(":")
    datacenters = rest.split(",") if colon else []
    if not name or not all(datacenters) or ":" in rest:
        raise argparse.ArgumentTypeError(f"{text!r:.200} is not allowed: must be NAME or NAME:DC,DC")
    return {"ServiceName": name, **({"Datacenters": datacenters} if datacenters else {})}


def node_identity(text: str) -> dict[str, Any]:
    """A check: NAME:DC."""
    name, _, datacenter = text.partition(":")
    if not name or not datacenter or ":" in datacenter:
        raise argparse.ArgumentTypeError(f"{text!r:.200} is not allowed: must be NAME:DC")
    return {"NodeName": name, "Datacenter": datacenter}


def policy_links(api: Api, args: argparse.Namespace, prefix: str = "") -> list[dict[str, Any]]:
    """Raises: CommandError."""
    return _links(api, POLICY, args, prefix)


def role_links(api: Api, args: argparse.Namespace, prefix: str = "") -> list[dict[str, Any]]:
    """Raises: CommandError."""
    return _links(api, ROLE, args, prefix)


def _links(api: Api, kind: Kind, args: argparse.Namespace, prefix: str) -> list[dict[str, Any]]:
    names: list[str] = getattr(args, f"{prefix}{kind.name}_name")
    ids: list[str] = getattr(args, f"{prefix}{kind.name}_id")
    links = [{"Name": name} for name in names]  # the server looks them up
    for given in ids:
        with failing_as(f"Error resolving {kind.name} ID {quoted(given)}"):
            links.append({"ID": kind.full_id(api, given)})
    return links


def with_added(
    there: Iterable[Mapping[str, Any]], more: Iterable[Mapping[str, Any]], key: str
) -> list[Mapping[str, Any]]:
    """Each `key` once: the added one takes the place of the one that is there."""
    found = {item.get(key): item for item in there}
    return [*(found | {item[key]: item for item in more}).values()]


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without the fields that are empty: the API takes what is not sent as that."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], False)}


def merged_texts(current: Mapping[str, Any], fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Each as its flag says, if it was given, empty perhaps; else as it is."""
    return {name: current.get(name) if fields[name] is None else fields[name] for name in names}
