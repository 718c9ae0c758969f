"""Requests to the HTTP API, made from its OpenAPI document, against a whole node that leads: the answer is one of those
that the document has for the operation, in the form that it has there, and nothing has failed that nobody expected.

An input is JSON: which operation, and what stands in its path, query, headers and body. So it can be changed as values,
and what was found once is found again.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from msgspec import structs
from yarl import URL

from cluster.access.first import first_acl
from cluster.access.secret_ids import new_key
from cluster.api.service import Service
from cluster.backup.restore import Snapshots
from cluster.base.clock import SystemClock
from cluster.base.config import parse_config
from cluster.base.errors import NoLeader
from cluster.http.app import HttpServer, create_app, start_http
from cluster.http.openapi.document import DOCUMENT
from cluster.node.seals import NodeSeals
from cluster.node.service import node_service
from cluster.rpc.forward import Forwarder
from cluster.rpc.peers import Unsent
from fsm.acl import GLOBAL_MANAGEMENT, Acl
from tests.fuzz.access import logins, rules
from tests.fuzz.access.changes import WILD, changed
from tests.fuzz.nodes import Fresh, Running
from tests.kit.acl_samples import NOW, uuid
from tests.kit.csrs import service_csr
from tests.kit.node_config import minimal
from tests.kit.ports import free_ports

MANAGER: Final = uuid(0xA0)
WEB: Final = uuid(0xA1)
_TOKENS: Final = {"manager": MANAGER, "web": WEB, "none": "", "unknown": uuid(0xA2), "odd": "\u00e9" * 70}
#: Nobody may do anything with these, but for what is open to everybody.
_REFUSED: Final = ("unknown", "odd")
#: After so many writes of access control a node is made anew: each makes the state longer.
_WRITES: Final = 300
_SECONDS: Final = 30.0
_MAX_TEXT: Final = 400
_MAX_BODY: Final = 200_000
_LEADER_WAIT_SECONDS: Final = 0.05

#: It waits for the other servers, which nobody is here, by a clock that stands.
_LEFT_OUT: Final = ("/v1/operator/seal", "put")
#: Nobody answers, there is none, or it is large.
_NO_SEEDS: Final = ("/v1/operator/seal", "/v1/operator/agent-ca", "/v1/snapshot")
OPERATIONS: Final = tuple(
    (path, method)
    for path, methods in sorted(DOCUMENT["paths"].items())
    for method in sorted(methods)
    if (path, method) != _LEFT_OUT
)
#: A good value for a member, parameter or part of a path of this name, whatever it is in; `@` stands for the ID of an
#: object of that kind that is there.
_TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("@policies", "@roles", "@tokens", "@binding_rules", "web", "ci", "team", GLOBAL_MANAGEMENT, uuid(1), "a"),
    "ID": ("@policies", "@roles", "@tokens", "@binding_rules", uuid(1), ""),
    "AccessorID": ("@tokens", uuid(0xB0), ""),
    "SecretID": (uuid(0xB1), "<hidden>", ""),
    "Token": (uuid(0xB2), ""),
    "Name": ("web", "team", "ci", "policy-1", "builtin/x"),
    "Rules": tuple(seed.decode() for seed in rules.rules_seeds()),
    "Selector": tuple(seed[1:].decode() for seed in rules.selector_seeds()),
    "BindName": tuple(seed[1:].decode() for seed in rules.bind_name_seeds()),
    "BindType": ("service", "node", "policy", "role"),
    "AuthMethod": ("ci", "", "nosuch"),
    "BearerToken": tuple(seed.decode() for seed in logins.token_seeds()),
    "ServiceName": ("web", "api", "W"),
    "NodeName": ("n1",),
    "Datacenter": ("dc1", "dc2"),
    "ExpirationTime": ("2027-01-15T08:30:00Z", "0001-01-01T00:00:00Z"),
    "ExpirationTTL": ("1h", "1m", "25h", "-1s"),
    "MaxTokenTTL": ("5m", "1h", "1s"),
    "Type": ("jwt", "kubernetes", "tls"),
    "CSR": ("@csr",),
    "Provider": ("consul", "vault", ""),
    "Target": ("web",),
    "ClientCertURI": ("spiffe://x.consul/ns/default/dc/dc1/svc/a",),
    "service": ("web", "api", "no such"),
    "serial": ("01:2f", "ff"),
    "kind": ("agent", "default", "agent_recovery", "nosuch"),
    "dc": ("dc1", "", "dc2"),
    "wait": ("1ms", "x"),
    "index": ("0", "1", "999999", "-1"),
    "max_stale": ("1s", "x"),
    "limit": ("1", "0", "x"),
    "policy": ("@policies", "x"),
    "role": ("@roles", "x"),
    "authmethod": ("ci", "x"),
    "address": ("127.0.0.1:1",),
    "Address": ("127.0.0.1:1", "x"),
    "RPC": ("127.0.0.1:2",),
}
_CONFIGS: Final = ({"LeafCertTTL": "72h"}, {"LeafCertTTL": "24h", "CSRMaxPerSecond": 0})
_METHOD: Final = json.loads(logins.method_seeds()[0][1:])


class Answered(Exception):
    """A refusal that the document has."""


class Requests:
    def __init__(self) -> None:
        self._fresh = Fresh()
        self._api: _Api | None = None

    def close(self) -> None:
        """Raises: what has ended the leader's loop, if something has."""
        if self._api is not None:
            self._api.close()
            self._api = None
        self._fresh.close()

    def seeds(self) -> list[bytes]:
        """What everybody may read, and what is written again and again."""
        read = [
            {"path": path, "method": "get", "token": "manager", "parts": {}, "query": {}}
            for path, method in OPERATIONS
            if method == "get" and "{" not in path and path not in _NO_SEEDS
        ]
        written = [
            {**_write("/v1/acl/token"), "body": {"Description": "d", "ServiceIdentities": [{"ServiceName": "web"}]}},
            {**_write("/v1/acl/token/{id}", uuid(0xC1)), "body": {"Description": "of web", "Policies": []}},
            {**_write("/v1/acl/auth-method/{id}", "ci"), "body": {"Type": "jwt", "Config": _METHOD}},
            {**_write("/v1/connect/ca/sign"), "token": "web", "body": {"CSR": "@csr"}},
        ]
        return [json.dumps(one).encode() for one in [*read, *written]]

    def mutate(self, seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
        if rng.random() < 0.7:
            path, method = rng.choice(OPERATIONS)
            wanted: Any = _made(path, method, rng)
        else:
            wanted = json.loads(rng.choice([*seeds, *kept]))
        if rng.random() < 0.4:
            for part in rng.sample(("body", "query", "parts"), rng.randrange(1, 3)):
                if part in wanted:
                    wanted[part] = changed(wanted[part], rng)
        return json.dumps(wanted).encode()

    def __call__(self, data: bytes) -> object:
        wanted = _understood(data)
        running = self._fresh.get()
        if self._api is None or self._api.running is not running:
            self._api = _Api(running)
        members = running.cluster.members, running.cluster.removed
        try:
            return self._api.ask(wanted)
        finally:
            running.cluster.members, running.cluster.removed = members
            if self._api.writes > _WRITES:
                self.close()
            else:
                self._fresh.check()


def _write(path: str, part: str = "") -> dict[str, Any]:
    return {"path": path, "method": "put", "token": "manager", "parts": {"id": part} if part else {}, "query": {}}


def _understood(data: bytes) -> dict[str, Any]:
    try:
        wanted = json.loads(data)
    except (ValueError, RecursionError):
        wanted = None
    if not isinstance(wanted, dict) or (wanted.get("path"), wanted.get("method")) not in OPERATIONS:
        raise Answered("no request")
    return wanted


class _NoPeers:
    """Nobody is reached."""

    async def send(self, *_: Any, **__: Any) -> Any:
        raise Unsent

    async def ask(self, *_: Any, **__: Any) -> Any:
        raise NoLeader("nobody answers")


_NO_PEERS: Final[Any] = _NoPeers()


class _Api:
    """The HTTP port of a node, and somebody who asks there."""

    def __init__(self, running: Running) -> None:
        self.running = running
        node = running.node
        clock = SystemClock()
        forwarder = Forwarder(
            node.replica.real,
            node.operations,
            _NO_PEERS,
            "a",
            clock,
            node.metrics,
            _LEADER_WAIT_SECONDS,
        )
        snapshots = Snapshots(
            node.replica.real, forwarder, node.sealer, running.cluster.ledger_path, "a", "dc1", node.clock, node.log
        )
        seals = NodeSeals(node.replica.real, forwarder, _NO_PEERS, node.seal_watch, "a")
        [port] = free_ports(1)
        config = parse_config(
            minimal(node_name="a", data_dir=str(running.cluster.directory), limits={"leader_wait_ms": 50}), source="t"
        )
        config = structs.replace(config, http=structs.replace(config.http, address=f"127.0.0.1:{port}"))
        service = node_service(
            config, node.parts, forwarder, node.membership, node.watchers, snapshots, seals, node.directory
        )
        self._url = f"http://127.0.0.1:{port}"
        self._server, self._client = running.run(self._started(service))
        self._first_index = running.cluster.state.acl_index

    async def _started(self, service: Service) -> tuple[HttpServer, aiohttp.ClientSession]:
        node, cluster = self.running.node, self.running.cluster
        if cluster.state.acl.key is None:
            cluster.commit(first_acl(*new_key(node.sealer), NOW))
        await service.acl.bootstrap(MANAGER, "127.0.0.1")
        manager = await service.access.caller(MANAGER)
        rules_text = 'service "web" { policy = "write" }'
        await service.acl.put(manager, "policies", "", {"Name": "web", "Rules": rules_text})
        await service.acl.put(manager, "roles", "", {"Name": "team", "Policies": [{"Name": "web"}]})
        await service.acl.put(manager, "methods", "", {"Name": "ci", "Type": "jwt", "Config": _METHOD})
        rule = {"AuthMethod": "ci", "BindType": "service", "BindName": "web"}
        await service.acl.put(manager, "binding_rules", "", rule)
        for secret_id, accessor_id in ((WEB, uuid(0xC0)), (uuid(0xC2), uuid(0xC1))):
            token = {"SecretID": secret_id, "AccessorID": accessor_id, "Policies": [{"Name": "web"}]}
            await service.acl.put(manager, "tokens", "", token)
        app = create_app(service, node.log, clock=node.clock, rng=random.Random(1))
        return await start_http(app, service.config.http), aiohttp.ClientSession()

    @property
    def writes(self) -> int:
        return self.running.cluster.state.acl_index - self._first_index

    def close(self) -> None:
        async def close() -> None:
            await self._client.close()
            await self._server.stop()

        self.running.run(close())

    def ask(self, wanted: Mapping[str, Any]) -> object:
        path, method = wanted["path"], wanted["method"]
        operation = DOCUMENT["paths"][path][method]
        token = wanted.get("token")
        secret_id = _TOKENS.get(token, "") if isinstance(token, str) else ""
        url = URL(
            self._url + self._path(path, wanted.get("parts")) + self._query(path, wanted.get("query")), encoded=True
        )
        body = self._resolved(wanted["body"]) if "body" in wanted else None
        data = json.dumps(body).encode()[:_MAX_BODY] if "body" in wanted else None
        status, content_type, answer = self.running.run(self._exchanged(method.upper(), url, secret_id, data))
        failed = [event for event in self.running.node.log.events if event[0] == "http.failed"]
        assert not failed, f"failed: {failed[:1]}"
        assert str(status) in operation["responses"], f"undocumented: {status} {answer[:200]!r}"
        if token in _REFUSED and operation.get("security") != []:
            assert status >= 400, "done for somebody whom nobody knows"
        if status >= 400:
            assert content_type == "text/plain", content_type
            assert answer or method == "head", "no reason"
            raise Answered(f"{status}: {answer.decode()}")
        described = operation["responses"][str(status)].get("content", {})
        if content_type == "application/json" and content_type in described:
            for fault in faults(json.loads(answer), described[content_type]["schema"]):
                raise AssertionError(f"not as described: {fault}")
        return status

    async def _exchanged(self, method: str, url: URL, secret_id: str, data: bytes | None) -> tuple[int, str, bytes]:
        headers = {"X-Consul-Token": secret_id} if secret_id else {}
        async with (
            asyncio.timeout(_SECONDS),
            self._client.request(method, url, headers=headers, data=data, allow_redirects=False) as response,
        ):
            return response.status, response.content_type, await response.read()

    def _path(self, path: str, parts: object) -> str:
        known = parts if isinstance(parts, dict) else {}
        pieces = []
        for piece in path.split("/"):
            if piece.startswith("{"):
                value = self._resolved(known.get(piece[1:-1], "x"))
                piece = _quoted(value) or "x"
            pieces.append(piece)
        return "/".join(pieces)

    def _query(self, path: str, query: object) -> str:
        if not isinstance(query, dict):
            return ""
        query = {name: self._resolved(value) for name, value in query.items()}
        if "/leaf/" in path:
            query.pop("index", None)  # it waits by a clock that stands
        if query.get("index") and not str(query.get("wait", "1ms")).isalpha():
            query["wait"] = "1ms"  # or it would be waited for
        pairs = [f"{_quoted(name)}={_quoted(value)}" for name, value in query.items() if name]
        return "?" + "&".join(pairs[:20]) if pairs else ""

    def _resolved(self, value: Any) -> Any:
        """With the IDs of what is there."""
        match value:
            case dict():
                return {name: self._resolved(inner) for name, inner in value.items()}
            case list():
                return [self._resolved(inner) for inner in value]
            case "@csr":
                return service_csr(self.running.cluster.state.trust_domain)
            case str() if value.startswith("@"):
                return _some_id(self.running.cluster.state.acl, value[1:])
            case _:
                return value


def _some_id(acl: Acl, table: str) -> str:
    """Of the one that was changed last, so that it is nobody's in particular."""
    name = {"policies": "policy_id", "roles": "role_id", "tokens": "accessor_id", "binding_rules": "rule_id"}.get(table)
    found = max(getattr(acl, table), key=lambda one: one.modify_index, default=None) if name else None
    return getattr(found, name) if found is not None and name else uuid(1)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return quote(text[:_MAX_TEXT].encode("utf-8", "surrogatepass"), safe="")


# -- a request by its description


def _made(path: str, method: str, rng: random.Random) -> dict[str, Any]:
    operation = DOCUMENT["paths"][path][method]
    parts: dict[str, Any] = {}
    query: dict[str, Any] = {}
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            parts[parameter["name"]] = _value(parameter["schema"], parameter["name"], rng, 0)
        elif rng.random() < 0.12:
            query[parameter["name"]] = _value(parameter["schema"], parameter["name"], rng, 0)
    token = "manager" if rng.random() < 0.7 else rng.choice(list(_TOKENS))
    made: dict[str, Any] = {"path": path, "method": method, "token": token, "parts": parts, "query": query}
    content = operation.get("requestBody", {}).get("content", {})
    if content and rng.random() < 0.97:
        schema = content.get("application/json", {}).get("schema", {})
        made["body"] = _value(schema, "", rng, 0)
    return made


def _value(schema: Mapping[str, Any], name: str, rng: random.Random, depth: int) -> Any:
    """Mostly of the type that is described."""
    if rng.random() < 0.02 or depth > 6:
        return rng.choice(WILD)
    if "$ref" in schema:
        return _value(_referred(schema["$ref"]), name, rng, depth)
    for words in ("anyOf", "oneOf"):
        if words in schema:
            return _value(rng.choice(schema[words]), name, rng, depth)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type", "object")
    kind = rng.choice(kind) if isinstance(kind, list) else kind
    match kind:
        case "object":
            return _object(schema, name, rng, depth)
        case "array":
            return [_value(schema["items"], name, rng, depth + 1) for _ in range(rng.choice((0, 1, 1, 2)))]
        case "string":
            return rng.choice(_TEXTS.get(name, ("", "x", "web", "a b", "\u00e9")))
        case "integer":
            return rng.choice((0, 1, 7, -1, 60_000_000_000, 1 << 62))
        case "boolean":
            return rng.random() < 0.5
        case _:
            return None


def _object(schema: Mapping[str, Any], name: str, rng: random.Random, depth: int) -> Any:
    if "properties" in schema:
        share = rng.choice((0.3, 0.6, 1.0))
        required = schema.get("required", ())
        return {
            member: _value(inner, member, rng, depth + 1)
            for member, inner in schema["properties"].items()
            if member in required or rng.random() < share
        }
    if name == "Config":
        return rng.choice((*_CONFIGS, _METHOD))
    return {f"k{number}": rng.choice(("v", "", "\u00e9")) for number in range(rng.randrange(3))}


def _referred(reference: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    return found


# -- an answer against its description

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def faults(value: Any, schema: Mapping[str, Any], where: str = "$") -> Iterator[str]:
    """What of it the description does not have, as far as the document's schemas go."""
    if "$ref" in schema:
        yield from faults(value, _referred(schema["$ref"]), where)
        return
    if "anyOf" in schema:
        if not any(not list(faults(value, one, where)) for one in schema["anyOf"]):
            yield f"{where} is none of those allowed"
        return
    assert "oneOf" not in schema, "what is described by two of them is refused by validators: use anyOf"
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    allowed = tuple(kind for name in kinds for kind in _TYPES[name])
    if kinds and (not isinstance(value, allowed) or (isinstance(value, bool) and "boolean" not in kinds)):
        yield f"{where} is {type(value).__name__}, not {kinds}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}, not one of {schema['enum']}"
    elif isinstance(value, dict):
        yield from _faults_of_members(value, schema, where)
    elif isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from faults(item, schema["items"], f"{where}[{number}]")


def _faults_of_members(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    described = schema.get("properties")
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}.{name} is missing"
    for name, inner in value.items():
        if described is not None and name in described:
            yield from faults(inner, described[name], f"{where}.{name}")
        elif "additionalProperties" in schema:
            yield from faults(inner, schema["additionalProperties"], f"{where}.{name}")
        elif described is not None:
            yield f"{where}.{name} is not described"
