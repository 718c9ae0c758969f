"""What a Host header says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.names import is_host_pattern, parse_host


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("LocalHost:8500", "localhost", 8500),
        ("localhost:", "localhost", None),
        ("localhost.", "localhost", None),
        ("ca.example.net.:443", "ca.example.net", 443),
        ("127.0.0.1:8500", "127.0.0.1", 8500),
        ("[::1]", "::1", None),
        ("[::1]:8500", "::1", 8500),
        ("[0:0:0:0:0:0:0:1]", "::1", None),
        ("[2001:DB8::1]:1", "2001:db8::1", 1),
        ("[::ffff:127.0.0.1]:8500", "127.0.0.1", 8500),
        # Names, although some resolvers take them for addresses.
        ("127.1", "127.1", None),
        ("2130706433", "2130706433", None),
        ("0x7f000001", "0x7f000001", None),
        ("127.0.0.01", "127.0.0.01", None),
        ("my_host", "my_host", None),
    ],
)
def test_a_host_is_taken_apart_and_has_one_form(text: str, host: str, port: int | None) -> None:
    assert parse_host(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ":", ":8500", ".", "..", "localhost..", "a..b", "-a", "a-", "a b", "localhost ", " localhost"),
        *("::1", "[::1", "::1]", "[]", "[::g]", "[fe80::1%25eth0]", "[127.0.0.1]", "[::1]x", "127.0.0.1.:99999"),
        *("localhost:65536", "localhost:x", "localhost:-1", "localhost:8500:1", "user@localhost", "localhost/", "*"),
        *("http://localhost", "localhost,evil.example", "localhost\t", "ｌocalhost", "lo\x00calhost", "a" * 300),
    ],
)
def test_what_is_no_host_is_none(text: str) -> None:
    assert parse_host(text) is None


@given(st.text())
def test_no_text_breaks_the_parser_and_its_result_is_stable(text: str) -> None:
    found = parse_host(text)
    if found is not None:
        host = f"[{found[0]}]" if ":" in found[0] else found[0]
        assert parse_host(host) == (found[0], None)


@pytest.mark.parametrize("text", ["ca.example.net", "*.example.net", "CA", "10.0.0.1", "::1", "[::1]"])
def test_host_patterns(text: str) -> None:
    assert is_host_pattern(text)


@pytest.mark.parametrize("text", ["", "*", "*.", "a.*.b", "ca:8500", "http://ca", "a b", "10.0.0.1:1", "*.*.a"])
def test_what_is_no_host_pattern(text: str) -> None:
    assert not is_host_pattern(text)
