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
