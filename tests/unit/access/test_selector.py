"""Selectors and the names that come of them: go-bexpr's and HIL's answers, and what only we refuse."""

import time

import pytest

from cluster.access.bind_names import BindNameRefused, bound_name, check_bind_name
from cluster.access.selector import Fields, Proved, SelectorRefused, parse_selector

FIELDS = Fields(
    frozenset({"serviceaccount.name", "serviceaccount.namespace", "value.team", "value.empty", "value.absent"}),
    frozenset({"list.groups", "list.absent"}),
)
LOGIN = Proved(
    {"serviceaccount.name": "web", "serviceaccount.namespace": "default", "value.team": "a b", "value.empty": ""},
    {"list.groups": ("dev", "ops")},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("  \n", True),
        ("serviceaccount.name == web", True),
        ('serviceaccount.name == "web"', True),
        ("serviceaccount.name == `web`", True),
        ("serviceaccount.name==web", True),
        ("serviceaccount.name == Web", False),
        ("serviceaccount.name != web", False),
        ('value.team == "a b"', True),
        ('value["team"] == "a b"', True),
        ("value[`team`] == `a b`", True),
        ("value.absent == x", False),
        ("value.absent != x", True),
        ('value.absent == ""', True),
        ('value.absent != ""', False),
        ('not value.absent == ""', False),
        ('value.empty == ""', True),
        ("dev in list.groups", True),
        ('"qa" in list.groups', False),
        ("qa not in list.groups", True),
        ("list.groups contains ops", True),
        ("list.groups not contains ops", False),
        ("list.groups is empty", False),
        ("list.groups is not empty", True),
        ("list.absent is empty", True),
        ("list.absent is not empty", False),
        ("dev in list.absent", False),
        ("dev not in list.absent", True),
        ("not serviceaccount.name == web", False),
        ("not not serviceaccount.name == web", True),
        ("serviceaccount.name == x and value.team == x or dev in list.groups", True),
        ("serviceaccount.name == x and (value.team == x or dev in list.groups)", False),
        ("not serviceaccount.name == x and dev in list.groups", True),
        ("not (serviceaccount.name == web or dev in list.groups)", False),
        ('serviceaccount.name == "and"', False),
        ("serviceaccount.name == and", False),
        ('value.team == "\\"" or value.team == "a\\tb"', False),
    ],
)
def test_selector_holds_of_what_it_says(text: str, expected: bool) -> None:
    assert parse_selector(text, FIELDS).holds(LOGIN) is expected


@pytest.mark.parametrize(
    "text",
    [
        "nosuch == x",
        "serviceaccount.x == y",
        "serviceaccount == y",
        "value.nosuch == x",
        'value.nosuch != ""',
        'value["nosuch"] != x',
        "value.groups != x",
        "list.nosuch is empty",
        "dev not in list.nosuch",
        "dev not in list.team",
        "value == y",
        "list == y",
        "list.groups == dev",
        "list.groups != dev",
        "value.team is empty",
        'value.team matches "a.*"',
        'value.team not matches "a.*"',
        'list.groups matches "a.*"',
        '"we" in value.team',
        "value.team contains we",
        "serviceaccount.name contains we",
        "serviceaccount.name",
        "serviceaccount.name = web",
        "serviceaccount.name == web && value.team == x",
        "serviceaccount.name == web || value.team == x",
        '"web" == serviceaccount.name',
        "web == serviceaccount.name",
        "serviceaccount.name == ",
        "== web",
        "and",
        "not",
        "serviceaccount.name AND web",
        "serviceaccount.name == web AND value.team == x",
        "serviceaccount.name == web value.team == x",
        "(serviceaccount.name == web",
        "serviceaccount.name == web)",
        "serviceaccount.name == (web)",
        '"serviceaccount.name" == web',
        "dev in",
        "in list.groups",
        "list.groups is",
        "list.groups is not",
        'value.team == "x',
        "value.team == `x",
        'value.team == "\\x"',
        "value.team == x\0",
        "()",
        "(" * 100 + "serviceaccount.name == web" + ")" * 100,
        "not " * 1000 + "serviceaccount.name == web",
        "x" * 5000,
    ],
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    began = time.process_time()
    with pytest.raises(SelectorRefused):
        parse_selector(text, FIELDS)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("quoted", ['""', "``", '"x"', "`x`"])
@pytest.mark.parametrize("rest", ["", ' and serviceaccount.name == "admin"', ' ""', " )"])
def test_what_follows_a_whole_selector_is_never_passed_over(quoted: str, rest: str) -> None:
    """A quoted text is no end, not even an empty one: the conditions after it would count for nothing."""
    with pytest.raises(SelectorRefused):
        parse_selector(f"serviceaccount.name == web {quoted}{rest}", FIELDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", "web"),
        ("${serviceaccount.name}", "web"),
        ("${ serviceaccount.name }-${serviceaccount.namespace}", "web-default"),
        ("$${serviceaccount.name}", "${serviceaccount.name}"),
        ("a$b", "a$b"),
        ("${value.team}", "a b"),
    ],
)
def test_names_are_put_in(text: str, expected: str) -> None:
    check_bind_name(text, FIELDS)
    assert bound_name(text, LOGIN.texts) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "${nosuch}",
        "${list.groups}",
        "${1 + 1}",
        "${",
        "${}",
        "${value}",
        "${upper(value.team)}",
        "${${value.team}}",
        "x" * 5000,
    ],
)
def test_what_is_no_name_is_refused_when_it_is_written(text: str) -> None:
    with pytest.raises(BindNameRefused):
        check_bind_name(text, FIELDS)


def test_missing_value_fails_the_login_and_values_are_not_looked_into() -> None:
    with pytest.raises(BindNameRefused):
        bound_name("web-${value.nosuch}", LOGIN.texts)
    assert bound_name("${value.x}", {"value.x": "${value.y}", "value.y": "admin"}) == "${value.y}"
