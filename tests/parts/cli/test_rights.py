"""Under the default policy `deny` each command works with the least token that what it is for needs: nothing that it
reads on the way needs more.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.cli.main import GROUPS, build_parser
from cluster.http.app import ROUTES, template
from cluster.http.context import Route
from cluster.http.gate import Inside, Needs
from tests.kit.acl_samples import uuid
from tests.kit.fake_acl_api import ROOT, FakeAclApi
from tests.kit.fake_api import FakeApi, serving_one
from tests.parts.cli.conftest import Run

SNAPSHOT: Final = Path(__file__).parents[1] / "backup" / "golden" / "previous.snapshot"
#: What routes that judge by themselves need at least.
INSIDE: Final = {
    "/v1/connect/ca/sign": "service:write",
    "/v1/connect/ca/certs": "service:write",
    "/v1/connect/ca/certs/{serial}": "service:write",
    "/v1/acl/token/self": "",
    "/v1/acl/logout": "",
}
NOTHING: Final[frozenset[str]] = frozenset()
SERVICE: Final = frozenset({"service:write"})
OPERATOR_READ: Final = frozenset({"operator:read"})
OPERATOR: Final = frozenset({"operator:read", "operator:write"})
ACL_READ: Final = frozenset({"acl:read"})
ACL: Final = frozenset({"acl:read", "acl:write"})

#: Every form of a command that asks other things than the others do, by the rights that it may need.
COMMANDS: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("ca roots", NOTHING),
    ("ca roots -pem", NOTHING),
    ("ca get-config", OPERATOR),
    ("ca set-config -config-file config.json", OPERATOR),
    ("ca rotate", OPERATOR),
    ("ca rotate -dry-run", OPERATOR),
    ("ca rotate -staged", OPERATOR),
    ("ca rotation", OPERATOR_READ),
    *((f"ca rotation {word}", OPERATOR) for word in ("pause", "resume", "activate", "abort")),
    ("ca distrust aa:bb", OPERATOR),
    ("ca sign -csr csr.pem", SERVICE),
    ("ca sign -service web -key-out key.pem", SERVICE),
    ("ca certs", SERVICE),
    ("ca certs -service web", SERVICE),
    ("ca certs 01:02", SERVICE),
    ("doctor", OPERATOR_READ | {"agent:read"}),
    ("members", OPERATOR_READ),
    ("operator raft list-peers", OPERATOR_READ),
    ("operator raft transfer-leader", OPERATOR),
    ("operator raft add-peer -id n -address 127.0.0.1:1 -rpc 127.0.0.1:2", OPERATOR),
    ("operator raft remove-peer -id n", OPERATOR),
    ("operator agent-ca read", OPERATOR_READ),
    ("operator agent-ca remove", ACL),
    ("operator agent-ca set -ca ca.pem -key ca-key.pem", ACL),
    ("operator join-token -name n -address 127.0.0.1:1 -rpc 127.0.0.1:2", ACL),
    ("seal status", OPERATOR_READ),
    ("seal rotate", OPERATOR),
    ("snapshot save out.snap", ACL),
    ("snapshot restore in.snap", ACL),
)
OF_ACCESS: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("acl token read -self", NOTHING),
    ("acl token list", ACL_READ),
    ("acl policy read -name global-management", ACL_READ),
    ("acl policy create -name p", ACL),
    ("acl role create -name r -policy-name global-management", ACL),
    ("acl token create -policy-name global-management", ACL),
    ("acl set-agent-token default " + uuid(9), frozenset({"agent:write"})),
    ("login -method m -bearer-token-file bearer -token-sink-file sink", NOTHING),
)

#: Their commands ask for what a table keeps: tests beside them try them all.
OF_ACCESS_GROUPS: Final = frozenset({"acl", "login", "logout"})


def asked(api: FakeApi) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in api.requests]


def rights(requests: list[tuple[str, str]]) -> set[str]:
    return {right for method, path in requests if (right := need(route_of(method, path)))}


def need(route: Route) -> str:
    if isinstance(route.access, Needs):
        return str(route.access.right)
    return INSIDE[template(route.path)] if isinstance(route.access, Inside) else ""


def route_of(method: str, path: str) -> Route:
    def fits(route: Route) -> bool:
        parts, given = template(route.path).split("/"), path.split("/")
        return (
            method in route.methods
            and len(parts) == len(given)
            and all(part == one or part.startswith("{") for part, one in zip(parts, given, strict=True))
        )

    # A path by itself comes before one with a place in it.
    return min((route for route in ROUTES if fits(route)), key=lambda route: template(route.path).count("{"))


class Willing(FakeApi):
    """Answers everything, so that a command gets to its end."""

    def next_answer(self, method: str, path: str) -> tuple[int, bytes]:
        if (method, path) in self.answers:
            return super().next_answer(method, path)
        if path == "/v1/catalog/datacenters":
            return 200, b'["dc1"]'
        if path == "/v1/snapshot":
            return 200, SNAPSHOT.read_bytes()
        return 200, json.dumps(ANSWER).encode()


ANSWER: Final[dict[str, Any]] = {
    "TrustDomain": "11.consul",
    "Roots": [],
    "CertPEM": "a chain\n",
    "Certs": [],
    "Servers": [],
    "Success": True,
    "Settled": True,
    "Nodes": [],
    "ID": "r",
    "Phase": "done",
    "Config": {"NodeName": "n"},
    "Stats": {"raft": {"leader": "n"}},
}


@pytest.fixture
def files() -> None:
    for name in ("csr.pem", "ca.pem", "ca-key.pem", "bearer"):
        Path(name).touch(0o600)
        Path(name).write_text("good")
    Path("in.snap").write_bytes(SNAPSHOT.read_bytes())
    Path("config.json").write_text('{"Provider": "consul"}')


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("words", "allowed"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_command_asks_for_no_more_than_it_needs(
    run: Run, words: str, allowed: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_one(Willing()) as api:
        monkeypatch.setenv("QUORUMCA_HTTP_ADDR", api.address)
        result = run(words)
    assert result.code == 0, result.err
    needed = rights(asked(api))
    assert needed <= allowed
    # And the table allows no more: what includes the rest is asked for.
    assert not allowed or {right for right in allowed if right.endswith(":write")} <= needed


@pytest.mark.usefixtures("files", "private_files")
@pytest.mark.parametrize(("words", "allowed"), OF_ACCESS, ids=[words for words, _ in OF_ACCESS])
def test_command_of_access_control_asks_for_no_more_than_it_needs(
    run: Run, words: str, allowed: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_one(FakeAclApi()) as api:
        monkeypatch.setenv("QUORUMCA_HTTP_ADDR", api.address)
        monkeypatch.setenv("QUORUMCA_HTTP_TOKEN", ROOT)
        api.started()
        run("acl auth-method create -type jwt -name m -config {}")
        api.requests.clear()
        result = run(words)
    assert result.code == 0, result.err
    assert rights(asked(api)) <= allowed


def test_every_command_that_asks_a_node_is_tried() -> None:
    tried = [words for words, _ in COMMANDS]
    for group in GROUPS:
        if group not in OF_ACCESS_GROUPS:
            parser = build_parser([group])
            missing = [
                words
                for words in commands_of(subparsers(parser)[group], group)
                if not any(one == words or one.startswith(f"{words} ") for one in tried)
            ]
            assert missing == []


def commands_of(parser: argparse.ArgumentParser, words: str) -> Iterator[str]:
    """Those that take the flags of the API."""
    below = subparsers(parser)
    if not below and any("--http-addr" in action.option_strings for action in parser._actions):
        yield words
    for name, one in below.items():
        yield from commands_of(one, f"{words} {name}")


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}
