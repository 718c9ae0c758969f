"""Every endpoint, every operation between servers and what the router says by itself, asked with every kind of token on
the leader and on a follower of a real cluster: what is answered, and that nothing came of what was refused.
"""

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from multidict import CIMultiDict
from yarl import URL

from cluster.api.access import MAX_SECRET_ID, SERVICE_WRITE
from cluster.http.app import ROUTES, template
from cluster.rpc import messages
from cluster.rpc.operation import Operation
from cluster.rpc.tokens import pack_tokens
from tests.integration.walking import Held, Walk, member_beside, rpc, steady, walk
from tests.kit import pki
from tests.kit.attacker import client_context, send_tls
from tests.kit.gate_table import (
    DOORS,
    MANAGEMENT,
    NONE,
    OPEN,
    OPERATIONS,
    REVOKED,
    ROWS,
    Bearer,
    Door,
    Kind,
    Need,
    Who,
    filled,
    refusal,
)
from tests.kit.real_cluster import Node
from tests.kit.wild_requests import REQUESTS

__all__ = ["walk"]

pytestmark = [pytest.mark.slow, pki.needs_openssl]


#: Requests that would do something, where those that are tried otherwise would not.
WIRE: Final[dict[str, list[Any]]] = {
    "sign": ["$csr_service", (1 << 127 | 7).to_bytes(16, "big"), "me"],
    "add_peer": ["node-9", "127.0.0.1:1", "127.0.0.1:2"],
    "acl_delete": ["tokens", "$token"],
    "acl_clone": ["$token", "another"],
    "transfer": [None],
}
#: And for whoever may do it, some that do less.
MILD: Final[dict[str, list[Any]]] = {
    "rotate": [None, None, False, False, 0, b"r" * 16, 1, False],
    "configure": ["none", "{}", None, False, 0, False, 0, b"r" * 16, 0, False],
    "rotate_seal": [b"another", True],
    "add_peer": ["", "x", "x"],
    "acl_put": ["nothing", "", "{}"],
    "acl_delete": ["nothing", ""],
    "acl_clone": ["", ""],
    "transfer": ["nobody"],
    "announce_key": [],
}
#: Where a token that gives nothing of the kind is refused before the body has said of what.
_BY_THE_HEAD: Final = ("/v1/connect/ca/sign", "/v1/agent/connect/authorize")


def test_every_endpoint_and_every_operation_is_in_the_table() -> None:
    served = {(method, template(route.path)) for route in ROUTES for method in route.methods}
    assert served == {(door.method, door.template) for door in DOORS}
    operations = {value.name for value in vars(messages).values() if isinstance(value, Operation)}
    assert operations == set(OPERATIONS) == set(REQUESTS)


def _is_refused(bearer: Bearer, need: Need) -> bool:
    match need.kind:
        case Kind.OPEN:
            return False
        case Kind.KNOWN | Kind.ROWS:
            return bearer.who is Who.UNKNOWN
        case Kind.LOGIN:
            return True
        case Kind.ROW:
            return not (bearer.is_granted or bearer.is_owner)
        case Kind.RIGHT:
            return not bearer.is_granted


@pytest.mark.parametrize("door", DOORS, ids=str)
@steady
async def test_who_passes_a_door_and_who_does_not(walk: Walk, door: Door) -> None:
    for node in walk.sides:
        need = door.needs.on(node.name)
        tokens = await walk.tokens(need, DOORS.index(door))
        refused = [(bearer, held) for bearer, held in tokens if _is_refused(bearer, need)]
        path, body = door.request(walk.facts)
        before = await walk.settled()
        answers = await walk.all_asked(node, door.method, path, body, refused)
        assert await walk.stands() == before
        for (bearer, held), answer in zip(refused, answers, strict=True):
            assert (answer.status, answer.text) in _refused_by(door, bearer, need, held), (node.name, bearer)
            assert answer.headers["X-Consul-Default-ACL-Policy"] == "deny"
        # And whoever may is let through.
        let_in = [(bearer, held) for bearer, held in tokens if not _is_refused(bearer, need)]
        path, body = door.request(walk.facts, is_mild=True)
        texts = set()
        for way, (bearer, held) in enumerate(let_in):
            answer = await walk.ask(node, door.method, path, body, held.secret_id, way)
            texts.add(answer.text)
            assert answer.status == door.passes, (node.name, bearer, answer.text)
            if need.kind is not Kind.OPEN:
                assert not _speaks_of_rights(answer.text), (node.name, bearer, answer.text)
        if need.kind is Kind.OPEN:
            assert len(texts) == 1, "it depends on the token"


def _refused_by(door: Door, bearer: Bearer, need: Need, held: Held) -> list[tuple[int, str]]:
    if need.kind is Kind.LOGIN and bearer.who is not Who.UNKNOWN:
        if bearer.who is Who.ANONYMOUS:
            return [(401, "Supplied token does not exist")]
        return [(403, "Permission denied: token wasn't created via login")]
    needs = [need]
    if door.template in _BY_THE_HEAD:
        needs.append(replace(need, right=str(SERVICE_WRITE), name=None))
    return [(403, refusal(bearer, one, held.accessor_id)) for one in needs]


def _speaks_of_rights(text: str) -> bool:
    return "Permission denied" in text or text == "ACL not found"


# -- certificates on record


@pytest.mark.parametrize("limit", [1, 100])
@steady
async def test_record_shows_own_rows_and_says_nothing_of_the_others(walk: Walk, limit: int) -> None:
    """Not by how many there are, nor by where the next page begins, nor by a header."""
    tokens = await walk.tokens(ROWS)
    before = await walk.settled()
    for node in walk.sides:
        for bearer, held in tokens:
            if bearer.who is Who.UNKNOWN:
                continue
            for query, names in (
                ("", {"web", "api", "worker-1", ""}),
                ("&service=web", {"web"}),
                ("&service=api", {"api"}),
            ):
                if not bearer.is_granted:
                    others = {"api"} if 'service_prefix ""' in "".join(bearer.rules or ()) else set()
                    names = names & (others | ({"web"} if bearer.is_owner else set()))
                found, headers, pages = await _all_pages(walk, node, held, f"?limit={limit}{query}")
                assert set(found) <= names, (bearer, query)
                assert {"web", "api"} & names <= set(found), (bearer, query)
                # A page for each row, and not one for each row that is hidden.
                assert len(pages) == max(1, -(-len(found) // limit)), (bearer, query)
                is_filtered = not bearer.is_granted and bearer.who is Who.KNOWN
                assert headers == {"true" if is_filtered else None}, (bearer, query)
    assert await walk.stands() == before


async def _all_pages(walk: Walk, node: Node, held: Held, query: str) -> tuple[list[str], set[str | None], list[Any]]:
    pages: list[Any] = []
    headers = set()
    following: str | None = "0"
    while following is not None:
        answer = await walk.ask(node, "GET", f"/v1/connect/ca/certs{query}&after={following}", None, held.secret_id)
        pages.append(answer.json())
        headers.add(answer.headers.get("X-Consul-Results-Filtered-By-ACLs"))
        following = pages[-1]["Next"]
    return [row["Service"] for page in pages for row in page["Certs"]], headers, pages


# -- what the router says by itself


_NO_PATHS: Final = (
    *(
        "/",
        "/v1",
        "/v1/",
        "/v1/acl",
        "/v1/acl/",
        "/v1/acl/nothing",
        "/v1/acl/create",
        "/v1/acl/info/x",
        "/v2/acl/tokens",
    ),
    *("/v1/acl/tokens/", "//v1/acl/tokens", "/v1//acl/tokens", "/V1/acl/tokens", "/v1/acl/Tokens", "/v1/acl/tokens;x"),
    *("/v1/operator", "/v1/snapshot/", "/v1/snapshot.tgz", "/v1/connect/ca", "/v1/kv/x", "/rpc/sign", "/v1/rpc/sign"),
)
#: The same resource in another spelling, which the router makes out.
_SPELT: Final = (
    *("/v1/acl/%74okens", "/v1/%61cl/tokens", "/%76%31/acl/tokens"),
    *("/v1/snapsho%74", "/v1/operator/%64igest", "/v1/connect/ca/configuratio%6e"),
)
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")


@steady
async def test_paths_that_there_are_not_are_the_same_for_everybody(walk: Walk) -> None:
    tokens = [(bearer, walk.held[bearer]) for bearer in (NONE, REVOKED, MANAGEMENT)]
    before = await walk.settled()
    for node in walk.sides:
        for path in _NO_PATHS:
            for method in ("GET", "PUT", "DELETE", "OPTIONS"):
                answers = await walk.all_asked(node, method, path, None, tokens)
                assert {(answer.status, answer.text) for answer in answers} == {(404, "Invalid URL path: not found")}
    assert await walk.stands() == before


@steady
async def test_other_methods_and_options_are_the_same_for_everybody(walk: Walk) -> None:
    by_path: dict[str, set[str]] = {}
    for door in DOORS:
        by_path.setdefault(door.request(walk.facts)[0].partition("?")[0], set()).add(door.method)
    templates = {door.request(walk.facts)[0].partition("?")[0]: door.template for door in DOORS}
    served: dict[str, set[str]] = {}
    for door in DOORS:
        served.setdefault(door.template, set()).add(door.method)
    before = await walk.settled()
    some = [(bearer, walk.held[bearer]) for bearer in (NONE, REVOKED, MANAGEMENT)]
    for node in walk.sides:
        for path, template_ in templates.items():
            allow = ",".join(["OPTIONS", *sorted(served[template_])])
            for method in _METHODS:
                if method in served[template_] or method == "CONNECT":  # no client sends a path with that
                    continue
                for answer in await walk.all_asked(node, method, path, None, some):
                    assert answer.headers.get("Allow") == allow, (method, path, answer)
                    text = "" if method in ("OPTIONS", "HEAD") else f"method {method} not allowed"
                    assert (answer.status, answer.text) == (200 if method == "OPTIONS" else 405, text), (method, path)
    assert await walk.stands() == before


@steady
async def test_other_spellings_of_a_path_lead_to_the_same_door(walk: Walk) -> None:
    for node in walk.sides:
        for path in _SPELT:
            none, unknown = [await walk.ask(node, "GET", path, None, secret) for secret in ("", str(uuid.uuid4()))]
            assert (none.status, unknown.status, unknown.text) == (403, 403, "ACL not found"), path
            assert none.text.startswith("Permission denied: anonymous token lacks permission '"), path


@steady
async def test_two_tokens_that_differ_are_refused_by_every_door(walk: Walk) -> None:
    """Where Consul takes the first: whoever passes a request on might take the other one for what counts."""
    before = await walk.settled()
    root, other = walk.root.secret_id, str(uuid.uuid4())
    for node in walk.sides:
        for door in DOORS:
            path, body = door.request(walk.facts)
            url = f"{node.url}{path}{'&' if '?' in path else '?'}"
            for query, headers in (
                (f"token={root}", [("X-Consul-Token", other)]),
                (f"token={other}", [("Authorization", f"Bearer {root}")]),
                (f"token={root}&token={other}", []),
                (f"token=&token={root}", []),
                ("", [("X-Consul-Token", root), ("Authorization", f"bearer {other}")]),
                ("", [("X-Consul-Token", root), ("X-Consul-Token", other)]),
            ):
                to = URL(f"{url}{query}", encoded=True)
                data = None if body is None else json.dumps(body)
                async with walk.session.request(door.method, to, data=data, headers=CIMultiDict(headers)) as response:
                    assert response.status == 400, (door, query)
                    text = await response.text()
                    assert text.startswith("two different tokens") or (door.method, text) == ("HEAD", "")
    assert await walk.stands() == before


# -- the document


@steady
async def test_openapi_says_of_each_door_what_it_needs(walk: Walk) -> None:
    document = (await walk.ask(walk.follower, "GET", "/v1/openapi.json")).json()
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == {(door.template, door.method) for door in DOORS}
    assert {} in document["security"], "who brings no token is asked for what the anonymous one may"
    for door in DOORS:
        operation = document["paths"][door.template][door.method.lower()]
        assert (operation.get("security") == []) is (door.needs.kind is Kind.OPEN), door
        assert "403" in operation["responses"], door
        assert str(door.passes) in operation["responses"] or door.passes == 404, door


# -- between servers


@pytest.mark.parametrize("operation", OPERATIONS)
@steady
async def test_what_a_member_asks_for_somebody_is_judged_by_their_token(walk: Walk, operation: str) -> None:
    """All in one message, each with its own token; whoever brings it."""
    need = OPERATIONS[operation]
    leader = member_beside(walk, walk.leader)
    tokens = await walk.tokens(need or OPEN, list(OPERATIONS).index(operation))
    if need is not None and need.kind is not Kind.OPEN:
        refused = [(bearer, held) for bearer, held in tokens if _is_refused(bearer, need)]
        request = filled(WIRE.get(operation, REQUESTS[operation]), walk.facts)
        before = await walk.settled()
        secrets = [held.secret_id for _, held in refused]
        outcomes = await leader.outcomes(rpc(operation, [request] * len(refused), _sent(secrets)))
        assert await walk.stands() == before
        for (bearer, held), (error, result) in zip(refused, outcomes, strict=True):
            assert result is None
            kind = "TokenUnknown" if bearer.who is Who.UNKNOWN else "PermissionDenied"
            assert error[:2] == [kind, _wire_refusal(need, bearer, held)], bearer
    request = filled(MILD.get(operation, WIRE.get(operation, REQUESTS[operation])), walk.facts)
    let_in = [(bearer, held) for bearer, held in tokens if need is None or not _is_refused(bearer, need)]
    for bearer, held in let_in:
        [(error, _)] = await leader.outcomes(rpc(operation, [request], _sent([held.secret_id])))
        if operation not in ("acl_bootstrap", "acl_login"):
            assert error is None or not _speaks_of_rights(error[1]), (bearer, error)


@pytest.mark.parametrize("operation", OPERATIONS)
@steady
async def test_a_follower_does_for_nobody_what_is_the_leaders(walk: Walk, operation: str) -> None:
    follower = member_beside(walk, walk.follower)
    before = await walk.settled()
    request = filled(WIRE.get(operation, REQUESTS[operation]), walk.facts)
    secrets = ["", str(uuid.uuid4()), walk.root.secret_id]
    outcomes = await follower.outcomes(rpc(operation, [request] * 3, secrets))
    assert await walk.stands() == before
    if operation not in ("watchers", "seal_check", "seal_status"):
        assert {error[0] for error, _ in outcomes} == {"NotLeader"}


@steady
async def test_tokens_that_are_no_list_for_these_requests_are_refused(walk: Walk) -> None:
    before = await walk.settled()
    context = client_context(member_beside(walk, walk.leader).credentials)
    good = pack_tokens([(walk.root.secret_id, "")])
    wrong = ("", f"{good},{good}", f"{good},", f"{good}=", "!", "=", "a", "_" * 400, f" ,{good}", ",", "\u00e9")
    for operation, request in (("steer_rotation", ["pause"]), ("acl_put", REQUESTS["acl_put"])):
        for tokens in wrong:
            plain = rpc(operation, [request], [])
            head, _, body = plain.partition(b"\r\n\r\n")
            sent = head + f"\r\nQuorumca-Tokens: {tokens}\r\n\r\n".encode() + body
            answer = await asyncio.to_thread(send_tls, walk.leader.local.rpc, context, sent)
            refused = answer.startswith(b"HTTP/1.1 400 ") or b"anonymous token lacks permission" in answer
            assert refused, (tokens, answer)
    assert await walk.stands() == before


def _sent(secrets: Sequence[str]) -> list[str]:
    """Those that a node passes on at all: longer ones it refuses itself."""
    return [secret if len(secret) <= MAX_SECRET_ID else "x" for secret in secrets]


def _wire_refusal(need: Need, bearer: Bearer, held: Held) -> str:
    if need.kind is Kind.LOGIN and bearer.who is not Who.UNKNOWN:
        return "Permission denied: token wasn't created via login"
    return refusal(bearer, need, held.accessor_id)
