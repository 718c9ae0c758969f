"""Weak typing of the configuration map, as Consul's decoder does it."""

import pytest

from providers.config.decode import Fields
from providers.errors import ConfigInvalid

SECOND = 1_000_000_000


def _duration(value: object) -> int:
    fields = Fields({"LeafCertTTL": value})
    result = fields.duration_ns("LeafCertTTL", 7)
    fields.finish()
    return result


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("2s", 2 * SECOND),
        (2 * SECOND, 2 * SECOND),
        (2e9, 2 * SECOND),
        (True, 1),
        (None, 7),
    ],
)
def test_duration_is_text_or_nanoseconds(value: object, ns: int) -> None:
    assert _duration(value) == ns


def test_int_accepts_what_consul_accepts() -> None:
    values = {"2048": 2048, "0x800": 2048, "": 0, "-1": -1}
    for text, number in values.items():
        assert Fields({"Bits": text}).integer("Bits", 5) == number
    assert Fields({"Bits": 2048.9}).integer("Bits", 5) == 2048
    assert Fields({"Bits": True}).integer("Bits", 5) == 1


def test_flag_accepts_what_consul_accepts() -> None:
    for value in (True, 1, 0.5, "1", "t", "T", "TRUE", "true", "True"):
        assert Fields({"F": value}).flag("F", default=False) is True
    for value in (False, 0, 0.0, "", "0", "f", "F", "FALSE", "false", "False"):
        assert Fields({"F": value}).flag("F", default=True) is False


def test_number_and_text_accept_what_consul_accepts() -> None:
    assert Fields({"N": "2.5"}).number("N", 1.0) == 2.5
    assert Fields({"N": ""}).number("N", 1.0) == 0.0
    assert Fields({"N": 3}).number("N", 1.0) == 3.0
    assert [Fields({"T": value}).text("T") for value in ("a", 5, 2.5, True, False)] == ["a", "5", "2.5", "1", "0"]
    assert Fields({"M": {"a": 1}}).text_map("M") == {"a": "1"}


def test_keys_match_without_case_and_the_exact_one_wins() -> None:
    assert Fields({"leafcertttl": "1s"}).duration_ns("LeafCertTTL", 0) == SECOND
    assert Fields({"LEAFCERTTTL": "1s", "LeafCertTTL": "2s"}).duration_ns("LeafCertTTL", 0) == 2 * SECOND
    # Two wrong spellings: the choice must be the same on every node, whatever the order of the map.
    one = Fields({"leafcertttl": "1s", "LEAFCERTTTL": "2s"}).duration_ns("LeafCertTTL", 0)
    other = Fields({"LEAFCERTTTL": "2s", "leafcertttl": "1s"}).duration_ns("LeafCertTTL", 0)
    assert one == other


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        ("duration_ns", "30d", 'error decoding \'X\': time: unknown unit "d" in duration "30d"'),
        ("duration_ns", "x", "error decoding 'X': time: invalid duration \"x\""),
        ("duration_ns", [], "'X' expected type 'time.Duration', got unconvertible type '[]interface {}'"),
        ("duration_ns", 1 << 64, "cannot parse 'X' as int: value out of range"),
        ("integer", "many", "cannot parse 'X' as int: strconv.ParseInt: parsing \"many\": invalid syntax"),
        ("integer", " 5", "cannot parse 'X' as int: strconv.ParseInt: parsing \" 5\": invalid syntax"),
        ("integer", float("nan"), "cannot parse 'X' as int: nan is not a number"),
        ("integer", {}, "'X' expected type 'int', got unconvertible type 'map[string]interface {}'"),
        ("number", "fast", "cannot parse 'X' as float: strconv.ParseFloat: parsing \"fast\": invalid syntax"),
        ("number", "inf", "cannot parse 'X' as float: value out of range"),
        ("number", 10**400, "cannot parse 'X' as float: value out of range"),
        ("number", [], "'X' expected type 'float32', got unconvertible type '[]interface {}'"),
        ("flag", "yes", "cannot parse 'X' as bool: strconv.ParseBool: parsing \"yes\": invalid syntax"),
        ("flag", [], "'X' expected type 'bool', got unconvertible type '[]interface {}'"),
        ("text", ["secret"], "'X' expected type 'string', got unconvertible type '[]interface {}'"),
        ("text_map", "secret", "'X' expected type 'map[string]string', got unconvertible type 'string'"),
    ],
)
def test_wrong_type_is_refused_without_repeating_secrets(kind: str, value: object, error: str) -> None:
    fields = Fields({"X": value})
    default = () if kind.startswith("text") else (0,)
    getattr(fields, kind)("X", *default)
    with pytest.raises(ConfigInvalid) as caught:
        fields.finish()
    assert str(caught.value) == f"error decoding config: 1 error(s) decoding:\n\n* {error}"


def test_all_mistakes_are_reported_together() -> None:
    fields = Fields({"B": "x", "A": "y"})
    fields.integer("B", 0)
    fields.duration_ns("A", 0)
    with pytest.raises(ConfigInvalid, match=r"2 error\(s\) decoding:\n\n\* cannot parse 'B'.*\n\* error decoding 'A'"):
        fields.finish()


def test_list_is_of_texts_and_one_text_is_a_list_of_one() -> None:
    for value, texts in (("a", ["a"]), (["a", 1, True], ["a", "1", "1"]), (7, ["7"]), ([], []), (None, [])):
        assert Fields({"L": value}).text_list("L") == texts
    wrongs: list[object] = [{}, [{}], [["a"]], [None]]
    for wrong in wrongs:
        fields = Fields({"L": wrong})
        fields.text_list("L")
        with pytest.raises(ConfigInvalid, match=r"'L\[0\]' expected type 'string'"):
            fields.finish()


def test_keys_that_nobody_knows_are_named_and_so_are_two_spellings() -> None:
    fields = Fields({"a": 1, "B": 2, "x": 3, "z" * 100: 4})
    fields.allow_only(["A", "b"])
    with pytest.raises(ConfigInvalid, match=f"'' has invalid keys: x, {'z' * 64}$"):
        fields.finish()
    fields = Fields({"a": 1, "A": 2})
    fields.allow_only(["A"])
    with pytest.raises(ConfigInvalid, match="'A' is given more than once"):
        fields.finish()
    fields = Fields({"a": 1})
    fields.allow_only(["A"])
    fields.finish()
