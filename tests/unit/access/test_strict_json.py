"""JSON that decides who somebody is: one reading, and bounds that are seen before it is parsed."""

import json
import random
import time
from typing import Any

import pytest

from cluster.access.methods.strict_json import MAX_DEPTH, MAX_VALUES, JsonRefused, is_clean, read_object


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":1}', "twice"),
        (b'{"a":1,"\\u0061":1}', "twice"),
        (b'{"x":[{"a":{"b":1,"b":2}}]}', "twice"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested deeper"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper"),
        (b"[" * 90_000, "nested deeper"),
        (b'{"a":[' + b"1," * MAX_VALUES + b"1]}", "more than"),
        (b'{"a":' + b"1" * 33 + b"}", "digits"),
        (b'{"a":0.' + b"1" * 33 + b"}", "digits"),
        (b'{"a":1e' + b"1" * 33 + b"}", "digits"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "NaN"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"{} {}", "not JSON"),
        (b'{"a":"\n"}', "not JSON"),
        (b'{"a', "not JSON"),
        (b"", "not JSON"),
        (b"[]", "no JSON object"),
        (b" " * 100_001, "100001 bytes"),
    ],
)
def test_what_is_refused_and_why(data: bytes, why: str) -> None:
    with pytest.raises(JsonRefused, match=why):
        read_object(data, max_bytes=100_000)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": "[[[[[[[[[[[[[[[[[[[[[[[[[[[", "b": '\\"{', "c": ["é", None, True, -1.5, 2**63]},
        {"a": [[[[[[[[[[[[[[1]]]]]]]]]]]]]]},
        {"a": ["," * 10_000]},
    ],
)
def test_what_is_modest_is_read(value: dict[str, Any]) -> None:
    assert read_object(json.dumps(value).encode(), max_bytes=100_000) == value


def test_its_cost_is_bounded_by_its_length() -> None:
    for piece in (b'"', b'\\"', b'"\\', b'{"', b'"a"', b"[", b"],", b"9", b'"\\\\'):
        began = time.process_time()
        with pytest.raises(JsonRefused):
            read_object((b'{"a":"' + piece * 100_000)[:100_000], max_bytes=100_000)
        assert time.process_time() - began < 0.5


def test_it_reads_what_json_reads_or_refuses() -> None:
    rng = random.Random(14)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        '"a"',
        '"b"',
        "1",
        "-",
        "e5",
        "null",
        "true",
        "\\",
        " ",
        "é",
        "\\u0061",
    ]
    for _ in range(20_000):
        text = "{" + "".join(rng.choices(pieces, k=rng.randint(0, 10))) + "}"
        try:
            found = read_object(text.encode(), max_bytes=1000)
        except JsonRefused:
            continue
        assert found == json.loads(text)


@pytest.mark.parametrize(("text", "clean"), [("", True), ("é", True), ("\0", False), ("é\0", False), ("\ud800", False)])
def test_clean_texts_can_be_kept(text: str, clean: bool) -> None:
    assert is_clean(text) is clean
