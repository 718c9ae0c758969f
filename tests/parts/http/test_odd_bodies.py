"""Whatever body a request has in place of the right one: the answer is in our own words."""

import json
from itertools import product

import pytest

from cluster.http.app import ROUTES
from tests.kit.words import ODD_CONTENTS, assert_plain
from tests.parts.http.conftest import Running

PATHS = sorted({(route.methods[-1], route.path) for route in ROUTES if {"PUT", "POST"} & set(route.methods)})
FIELDS = [
    *("CSR", "Provider", "Config", "State", "ModifyIndex", "ForceWithoutCrossSigning", "Target", "ClientCertURI"),
    *("ID", "Address", "RPC", "Action", "KeyType", "Wait", "MinWait", "Within"),
]
VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    1.5,
    2**70,
    "",
    "\0",
    "é",
    "x" * 70_000,
    [],
    [[]],
    {},
    {"": None},
    "-----BEGIN ",
)


@pytest.mark.parametrize("content", ODD_CONTENTS)
async def test_odd_body_is_refused_in_plain_words(api: Running, content: str) -> None:
    for method, path in PATHS:
        reply = await api.ask(method, path.replace("{service:.*}", "web"), data=ODD_CONTENTS[content])
        assert_plain(reply.text)
        assert reply.status < 500 or reply.text, (method, path)


@pytest.mark.parametrize("field", FIELDS)
async def test_odd_value_is_refused_in_plain_words(api: Running, field: str) -> None:
    for (method, path), value in product(PATHS, VALUES):
        for body in ({field: value}, {field.lower(): {field: value}}):
            reply = await api.ask(method, path.replace("{service:.*}", "web"), data=json.dumps(body).encode())
            assert_plain(reply.text)


QUERIES = [
    *(
        "index",
        "wait",
        "pem",
        "stale",
        "consistent",
        "cached",
        "dc",
        "limit",
        "after",
        "issuer",
        "expires_before",
        "kind",
    ),
    *("service", "spiffe_id", "id", "address", "format", "pretty", "max_stale", "token", "ns", "partition"),
]
ODD_VALUES = (
    *("", "-1", "1e9", "9" * 5000, "%00", "%FF", "%C3%A9", "%ED%A0%80", "a%0Ab", "%", "0x10", "1.5", "null", "true"),
    *("aa:bb:", "zz", "5m5", "-5m", "1h1h1h", "2027-13-45T99:99:99Z", "%F0%9F%92%A9" * 50),
)


@pytest.mark.parametrize("name", QUERIES)
async def test_odd_query_is_refused_in_plain_words(api: Running, name: str) -> None:
    paths = sorted({route.path for route in ROUTES if "GET" in route.methods})
    for path, value in product(paths, ODD_VALUES):
        path = path.replace("{service:.*}", "web").replace("{serial}", "01:2f")
        reply = await api.get(f"{path}?{name}={value}&wait=1ms" if name != "wait" else f"{path}?wait={value}")
        if reply.status != 200:
            assert_plain(reply.text)


@pytest.mark.parametrize("serial", ODD_VALUES[1:])
async def test_odd_serial_is_refused_in_plain_words(api: Running, serial: str) -> None:
    reply = await api.get(f"/v1/connect/ca/certs/{serial}")
    assert_plain(reply.text)
