"""Reading the command line: Go's flag habits on top of argparse, and the checks of values that commands share.

A check raises ArgumentTypeError; argparse puts the flag's name before its text and ends with exit code 2.
"""

import argparse
import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

Subcommands: TypeAlias = "argparse._SubParsersAction[Parser]"  # argparse gives it no public name

_FLAG: Final = re.compile(r"--?(?P<name>[A-Za-z][A-Za-z0-9-]+)(?P<value>=.*)?", re.DOTALL)
#: Flags without a value. Go, and so scripts made for Consul, may write `-server=true`.
SWITCHES: Final = frozenset(
    {
        *("accept-files-without-mac", "allow-cleartext-token", "cli", "client", "dry-run", "expanded", "force"),
        *(
            "force-without-cross-signing",
            "keep-key",
            "local",
            *("merge-node-identities", "merge-policies", "merge-roles", "merge-service-identities"),
            "meta",
            "name-constraint",
            "new-key",
            "no-merge",
            "pem",
            "rejoin",
        ),
        *("self", "server", "staged", "stale", "undo", "wait"),
    }
)
_LABEL: Final = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
#: Go's strconv.ParseBool.
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Parser(argparse.ArgumentParser):
    """Takes flags in full only, and shows the usage of the very command that does not know one. A subclass because
    argparse makes sub-commands' parsers of their parent's class.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Of a sub-command, too; argparse itself leaves what is unknown to the outermost parser."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def normalise(argv: Sequence[str]) -> list[str]:
    """The same words with two dashes before every long flag; `-h` and what follows `--` stay as they are."""
    end = argv.index("--") if "--" in argv else len(argv)
    words = [new for word in argv[:end] for new in _normalised(word)]
    return [*words, *argv[end:]]


def _normalised(word: str) -> list[str]:
    flag = _FLAG.fullmatch(word)
    if flag is None:
        return [word]
    name, value = flag["name"], flag["value"] or ""
    if name in SWITCHES and value[1:] in _BOOLEANS:
        return [f"--{name}"] if _BOOLEANS[value[1:]] else []
    return [f"--{name}{value}"]


def dns_name(text: str) -> str:
    """A check for what a certificate can name: a host, or `*.` and a domain."""
    return matching(is_dns_name, "a DNS name")(text)


def is_dns_name(text: str) -> bool:
    return len(text) <= 253 and _DNS_NAME.fullmatch(text) is not None


def ip_text(text: str) -> str:
    """A check for an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r:.200} is not allowed: must be an IP address") from None
    return text


def duration_text(text: str) -> str:
    """A check for Go durations; which are long enough is for the API to say."""
    from providers.config.durations import parse_duration

    try:
        parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r:.200} is not allowed: must be a duration as in 10m") from None
    return text


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A check for numbers from `low` to `high`."""

    def check(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: must be a whole number from {low} to {high}")

    return check


def matching(test: Callable[[str], object], allowed: str) -> Callable[[str], str]:
    """A check for texts that `test` finds true; `allowed` completes the sentence "must be ..."."""

    def check(text: str) -> str:
        if test(text):
            return text
        raise argparse.ArgumentTypeError(f"{text!r:.200} is not allowed: must be {allowed}")

    return check
