"""A real cluster where nothing is allowed by default, and tokens of every kind to walk up to its doors with."""

import asyncio
import functools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgpack
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from cluster.rpc.operation import VERSION
from cluster.rpc.tokens import pack_tokens
from tests.kit import pki
from tests.kit.attacker import Credentials, client_context, send_tls
from tests.kit.gate_table import ANONYMOUS, EXPIRED, MANAGEMENT, NO_TOKEN, NONE, REVOKED, Bearer, Need, bearers
from tests.kit.real_cluster import Answer, LocalCluster, Node, Settings, make_csr
from tests.kit.wait import eventually

DENY: Final[Settings] = {
    "acl": {"default_policy": "deny"},
    # Whoever walks here brings more wrong tokens than one address may.
    "limits": {"signing_workers": 1, "refused_per_source": 0},
}
_AT_ONCE: Final = 8
_ATTEMPTS: Final = 3
_PUBLIC_KEY: Final = pki.key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
METHOD_CONFIG: Final = {"JWTValidationPubKeys": [_PUBLIC_KEY], "ClaimMappings": {"team": "team"}}


@dataclass(frozen=True, slots=True)
class Held:
    """A token, as whoever has it sends it, and as others name it."""

    secret_id: str
    accessor_id: str = ""


@dataclass
class Walk:
    """A cluster, somebody who may do everything, and tokens of all kinds."""

    cluster: LocalCluster
    session: aiohttp.ClientSession
    root: Held
    leader: Node
    follower: Node
    facts: dict[str, str]
    held: dict[Bearer | tuple[str, ...], Held] = field(default_factory=dict)

    async def look_who_leads(self) -> None:
        self.leader = await self.cluster.leader()
        self.follower, bystander = (node for node in self.cluster.nodes if node is not self.leader)
        self.facts["bystander"] = bystander.name

    async def term(self) -> str:
        stats = (await self.ask(self.leader, "GET", "/v1/agent/self", None, self.root.secret_id)).json()["Stats"]
        return str(stats["raft"]["term"])

    @property
    def sides(self) -> tuple[Node, Node]:
        return self.leader, self.follower

    async def ask(
        self, node: Node, method: str, path: str, body: object = None, secret_id: str = "", way: int = 0
    ) -> Answer:
        """The token goes one of the three ways that there are."""
        headers = {}
        url = URL(f"{node.url}{path}", encoded=True)
        if not secret_id.isprintable():  # no client sends it in a header
            way = 2
        match way % 3 if secret_id else None:
            case 0:
                headers["X-Consul-Token"] = secret_id
            case 1:
                headers["Authorization"] = f"Bearer {secret_id}"
            case 2:
                url = url.update_query(token=secret_id)
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, url, data=data, headers=headers) as response:
            return Answer(response.status, (await response.read()).decode(errors="replace"), response.headers)

    async def all_asked(
        self, node: Node, method: str, path: str, body: object, tokens: Sequence[tuple[Bearer, Held]]
    ) -> list[Answer]:
        """The same by each of them; the session lets a few through at a time."""
        return await asyncio.gather(
            *(self.ask(node, method, path, body, held.secret_id, way) for way, (_, held) in enumerate(tokens))
        )

    async def must(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.ask(self.leader, method, path, body, self.root.secret_id)
        assert answer.status == 200, (method, path, answer)
        return json.loads(answer.text)

    async def made(self, rules: tuple[str, ...], **fields: object) -> Held:
        links = []
        for text in rules:
            made = await self.must("PUT", "/v1/acl/policy", {"Name": f"p-{uuid.uuid4()}", "Rules": text})
            links.append({"ID": made["ID"]})
        token = await self.must("PUT", "/v1/acl/token", {"Policies": links, **fields})
        return Held(token["SecretID"], token["AccessorID"])

    async def token_of(self, bearer: Bearer) -> Held:
        if bearer.rules is None:
            return self.held[bearer]
        if bearer.rules not in self.held:
            self.held[bearer.rules] = await self.made(bearer.rules)
        return self.held[bearer.rules]

    async def tokens(self, need: Need, turn: int = 0) -> list[tuple[Bearer, Held]]:
        return [(bearer, await self.token_of(bearer)) for bearer in bearers(need, turn)]

    async def stands(self) -> list[object]:
        """All that a request could change, on both nodes; who leads, too."""
        found: list[object] = [(await self.ask(node, "GET", "/v1/status/leader")).text for node in self.sides]
        for node in self.sides:
            digest = await self.ask(node, "GET", "/v1/operator/digest?stale", None, self.root.secret_id)
            found.append(digest.json())
        return found

    async def digest(self) -> dict[str, Any]:
        """Of what the leader has applied."""
        answer = await self.ask(self.leader, "GET", "/v1/operator/digest?stale", None, self.root.secret_id)
        return dict(answer.json())

    async def settled(self) -> list[object]:
        """The same, once both nodes have applied what was asked for before."""

        async def equal() -> list[object] | None:
            *_, one, other = found = await self.stands()
            return found if one == other else None

        return await eventually("both nodes hold the same", equal)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Walk]:
    directory = tmp_path_factory.mktemp("gate")
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(LocalCluster(directory, settings=DENY))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE), trust_env=False)
        )
        for node in cluster.nodes:
            cluster.start_through(node, "tests.integration.short_lives", directory)
        await cluster.wait_ready()
        one, other, _ = cluster.nodes
        first = await eventually("access control is set up", lambda: _first_token(cluster, one))
        made = Walk(cluster, session, first, one, other, {})
        await made.look_who_leads()
        await _furnish(made)
        yield made


Scene = Callable[..., Awaitable[None]]


def steady(scene: Scene) -> Scene:
    """A test that speaks of the leader. On a busy machine another may be elected meanwhile: then it is tried again."""

    @functools.wraps(scene)
    async def test(walk: Walk, **arguments: Any) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            await walk.look_who_leads()
            term = await walk.term()
            try:
                return await scene(walk, **arguments)
            except AssertionError:
                await walk.look_who_leads()
                if attempt == _ATTEMPTS or await walk.term() == term:
                    raise
        raise AssertionError("not reached")

    marked: Scene = pytest.mark.asyncio(loop_scope="module")(test)
    return marked


async def _first_token(cluster: LocalCluster, node: Node) -> Held | None:
    answer = await cluster.ask(node, "PUT", "/v1/acl/bootstrap")
    if answer.status == 503:
        return None
    return Held(answer.json()["SecretID"], answer.json()["AccessorID"])


async def _furnish(walk: Walk) -> None:
    """One of everything, for requests to name; and the tokens that no rules make."""
    method = {"Name": "there", "Type": "jwt", "MaxTokenTTL": "5m", "Config": METHOD_CONFIG}
    rule = {"AuthMethod": "there", "BindType": "service", "BindName": "web"}
    expires = await walk.made(('operator = "write"\nacl = "write"',), ExpirationTTL="1s")
    revoked = await walk.made(('operator = "write"\nacl = "write"',))
    await walk.must("DELETE", f"/v1/acl/token/{revoked.accessor_id}")
    uri = await walk.cluster.service_uri("web")
    issued = await walk.must("PUT", "/v1/connect/ca/sign", {"CSR": make_csr(uri)[0]})
    await walk.must("PUT", "/v1/connect/ca/sign", {"CSR": make_csr(await walk.cluster.service_uri("api"))[0]})
    domain = uri.removeprefix("spiffe://").split("/")[0]
    walk.facts |= {
        "serial": issued["SerialNumber"],
        "csr_service": make_csr(uri)[0],
        "csr_agent": make_csr(f"spiffe://{domain}/agent/client/dc/dc1/id/worker-1")[0],
        "csr_gateway": make_csr(f"spiffe://{domain}/gateway/mesh/dc/dc1")[0],
        "token": (await walk.made(("",))).accessor_id,
        "policy": (await walk.must("PUT", "/v1/acl/policy", {"Name": "there"}))["ID"],
        "role": (await walk.must("PUT", "/v1/acl/role", {"Name": "there"}))["ID"],
        "method": (await walk.must("PUT", "/v1/acl/auth-method", method))["Name"],
        "rule": (await walk.must("PUT", "/v1/acl/binding-rule", rule))["ID"],
    }
    walk.held |= {NONE: Held(""), ANONYMOUS: Held("anonymous"), MANAGEMENT: walk.root}
    walk.held |= {EXPIRED: expires, REVOKED: revoked}
    for bearer in NO_TOKEN:
        if bearer not in walk.held:
            walk.held[bearer] = Held(bearer.secret_id or str(uuid.uuid4()))

    async def has_gone() -> bool:
        return (
            expires.accessor_id
            not in (await walk.ask(walk.leader, "GET", "/v1/acl/tokens", None, walk.root.secret_id)).text
        )

    await eventually("the token has expired", has_gone)


# -- between servers


def rpc(operation: str, requests: Sequence[object], tokens: Sequence[str], version: int = VERSION) -> bytes:
    """As a member sends it."""
    body: bytes = msgpack.packb([5000, list(requests)])
    head = [
        f"POST /rpc/{operation} HTTP/1.1",
        "Host: x",
        f"Quorumca-Rpc: {version}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if packed := pack_tokens([(token, "") for token in tokens]):
        head.append(f"Quorumca-Tokens: {packed}")
    return "\r\n".join([*head, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody with the certificate of a server, on the way to another."""

    node: Node
    credentials: Credentials

    async def outcomes(self, request: bytes) -> list[Any]:
        context = client_context(self.credentials)
        answer = await asyncio.to_thread(send_tls, self.node.local.rpc, context, request)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), answer
        return list(msgpack.unpackb(body))


def member_beside(walk: Walk, to: Node) -> Member:
    other = walk.follower if to is walk.leader else walk.leader
    return Member(to, Credentials(other.local.directory / "cert.pem", other.local.directory / "key.pem"))
