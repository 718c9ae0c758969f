import argparse
from collections.abc import Callable, Iterator

import pytest

from cluster.cli.arguments import SWITCHES, Parser, dns_name, ip_text, matching, normalise, whole_number
from cluster.cli.main import build_parser


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["-cluster-id", "x"], ["--cluster-id", "x"]),
        (["--cluster-id", "x"], ["--cluster-id", "x"]),
        (["-days=3"], ["--days=3"]),
        (["-config-file=-"], ["--config-file=-"]),
        (["-common-name=a b\n=c"], ["--common-name=a b\n=c"]),
        (["-h"], ["-h"]),
        (["--csr", "-"], ["--csr", "-"]),
        (["-5"], ["-5"]),
        (["-two words"], ["-two words"]),
        (["--", "-id"], ["--", "-id"]),
        (["-id", "--", "-id"], ["--id", "--", "-id"]),
        (["-server=true", "--stale=1"], ["--server", "--stale"]),
        (["-server=false", "-cli=F"], []),
        (["-server=perhaps"], ["--server=perhaps"]),
        (["-domain=true"], ["--domain=true"]),
    ],
)
def test_long_flags_get_two_dashes(given: list[str], expected: list[str]) -> None:
    assert normalise(given) == expected


def test_switches_are_all_flags_without_value() -> None:
    """Or `-flag=true`, which Go takes, would be refused for the one that was forgotten."""
    groups = (
        "acl",
        "agent",
        "ca",
        "join",
        "login",
        "logout",
        "members",
        "operator",
        "seal",
        "snapshot",
        "tls",
        "version",
    )
    found = {
        option.removeprefix("--")
        for group in groups
        for parser in _all_parsers(build_parser([group]))
        for action in parser._actions
        if isinstance(action, argparse._StoreTrueAction)
        for option in action.option_strings
    }
    assert found == SWITCHES


def _all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _all_parsers(child)


def test_sub_commands_take_no_abbreviations(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="x")
    parser.add_subparsers().add_parser("y").add_subparsers().add_parser("z").add_argument("--domain")
    with pytest.raises(SystemExit):
        parser.parse_args(["y", "z", "--dom", "a"])
    assert "unrecognized arguments: --dom a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("check", "good", "bad", "allowed"),
    [
        (whole_number(1, 10), "10", ["0", "11", "-1", "1.5", "", "x", "1" * 30, "٣"], "a whole number from 1 to 10"),
        (matching(str.islower, "lower case"), "a", ["A", ""], "lower case"),
        (
            dns_name,
            "*.web-1.example.com",
            ["", "a..b", "a b", "-a", "a.*", "a" * 64, "a." * 127 + "a", "ä"],
            "a DNS name",
        ),
        (ip_text, "::1", ["", "localhost", "1.2.3", "1.2.3.4/8"], "an IP address"),
    ],
)
def test_checks_name_the_value_and_what_is_allowed(
    check: Callable[[str], object], good: str, bad: list[str], allowed: str
) -> None:
    assert str(check(good)) == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError) as refused:
            check(text)
        assert str(refused.value).endswith(f"is not allowed: must be {allowed}")
        assert repr(text)[:100] in str(refused.value)
