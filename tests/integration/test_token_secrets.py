"""What tokens are proved with is nowhere: neither in files, logs, metrics and answers of any node, nor in what every
user of the machine can read of its processes, nor in the memory of processes that have no business with it.
"""

import asyncio
import base64
import gzip
import io
import json
import os
import tarfile
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
import pytest

from tests.integration.key_search import SecretSearch, prepared_for_secrets, stored_token_key
from tests.integration.memory import holds, keeper_of, workers_of
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, Node, Settings, make_csr
from tests.kit.tokens import public_pem, signer, token_of
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pki.needs_openssl]

SETTINGS: Final[Settings] = {
    "acl": {"default_policy": "deny"},
    # Small, so that there are snapshots and more than one part of the log.
    "raft": {"compact_bytes": 64 << 10, "keep_bytes": 0},
    "log": {"level": "debug"},
    "limits": {"signing_workers": 1},
    "connect": {"ca_config": {"csr_max_per_second": 0}},
}
_SIGNATURES: Final = 120


@dataclass
class Secrets:
    """All that was given out or sent, by what it is; and what nodes answered to requests that are looked at."""

    texts: dict[str, str] = field(default_factory=dict, repr=False)
    answers: list[tuple[str, bytes]] = field(default_factory=list, repr=False)

    def searches(self) -> list[SecretSearch]:
        return [SecretSearch.of_text(what, text) for what, text in self.texts.items()]


class Cluster:
    """A cluster with its operator."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.secrets = Secrets()
        self.root = ""

    @property
    def nodes(self) -> list[Node]:
        return self.cluster.nodes

    async def must(self, node: Node, method: str, path: str, body: object = None, token: str | None = None) -> Any:
        headers = {"X-Consul-Token": self.root if token is None else token}
        return (await self.cluster.ask(node, method, path, body, headers=headers)).json()

    async def refused(
        self, node: Node, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """And what is said then is looked at."""
        headers = {"X-Consul-Token": self.root} if headers is None else headers
        answer = await self.cluster.ask(node, method, path, body, headers=headers)
        assert answer.status >= 400, (method, path, answer)
        said = json.dumps({**answer.headers, "": answer.text})
        self.secrets.answers.append((f"{answer.status} to {method} {path.partition('?')[0]}", said.encode()))

    async def bootstrap(self) -> None:
        async def done() -> dict[str, Any] | None:
            answer = await self.cluster.ask(self.nodes[0], "PUT", "/v1/acl/bootstrap")
            return None if answer.status == 503 else dict(answer.json())

        self.root = (await eventually("access control is set up", done))["SecretID"]
        self.secrets.texts["the bootstrap token"] = self.root

    async def use(self) -> None:
        """Every way in which a token comes to be, is used, and is refused; through every node."""
        secrets = self.secrets.texts
        for number, node in enumerate(self.nodes):
            body = {"ServiceIdentities": [{"ServiceName": "web"}]}
            drawn = await self.must(node, "PUT", "/v1/acl/token", body)
            secrets[f"a token drawn through {node.name}"] = drawn["SecretID"]
            chosen = str(uuid.uuid4())
            await self.must(node, "PUT", "/v1/acl/token", {**body, "SecretID": chosen})
            secrets[f"a token chosen through {node.name}"] = chosen
            clone = await self.must(node, "PUT", f"/v1/acl/token/{drawn['AccessorID']}/clone", {"Description": "x"})
            secrets[f"a clone through {node.name}"] = clone["SecretID"]
            await self._log_in(node, number)
            for kind in ("default", "agent", "agent_recovery", "replication", "dns"):
                secrets[f"{kind} token of {node.name}"] = given = str(uuid.uuid4())
                await self.cluster.ask(
                    node,
                    "PUT",
                    f"/v1/agent/token/{kind}",
                    {"Token": given},
                    headers={"X-Consul-Token": self.root},
                )
            await self._be_refused(node, chosen)
            for token in (drawn["SecretID"], chosen, clone["SecretID"]):
                await self._sign(node, token)
        recovery = secrets[f"agent_recovery token of {self.nodes[0].name}"]
        await self.must(self.nodes[0], "GET", "/v1/agent/self", token=recovery)

    async def _log_in(self, node: Node, number: int) -> None:
        key, name = signer("ES256"), f"method-{number}"
        config = {
            "JWTValidationPubKeys": [public_pem(key)],
            "JWTSupportedAlgs": ["ES256"],
            "BoundAudiences": ["quorumca"],
        }
        await self.must(node, "PUT", "/v1/acl/auth-method", {"Name": name, "Type": "jwt", "Config": config})
        rule = {"AuthMethod": name, "BindType": "service", "BindName": "web"}
        await self.must(node, "PUT", "/v1/acl/binding-rule", rule)
        now = int(time.time())
        claims = {"aud": "quorumca", "iat": now, "exp": now + 300, "node": node.name}
        good = token_of(claims, key=key, algorithm="ES256")
        bad = token_of({**claims, "aud": "others"}, key=key, algorithm="ES256")
        texts = self.secrets.texts
        made = await self.must(node, "POST", "/v1/acl/login", {"AuthMethod": name, "BearerToken": good}, token="")
        for what, token in (("login", good), ("refused login", bad)):
            head, claimed, signature = token.split(".")
            assert head
            # The claims are no secret; what proves them is. Without either nobody can log in.
            texts[f"the signature of a {what} through {node.name}"] = signature
            texts[f"the bearer token of a {what} through {node.name}"] = f"{claimed}.{signature}"
        texts[f"the token of a login through {node.name}"] = made["SecretID"]
        await self.refused(node, "POST", "/v1/acl/login", {"AuthMethod": name, "BearerToken": bad}, headers={})
        await self.refused(node, "POST", "/v1/acl/login", {"AuthMethod": "none", "BearerToken": good}, headers={})
        await self.refused(node, "POST", "/v1/acl/login", {"AuthMethod": name, "BearerToken": [good]}, headers={})
        await self.refused(node, "POST", "/v1/acl/login", {"AuthMethod": name, good: "x"}, headers={})
        out = await self.must(node, "POST", "/v1/acl/login", {"AuthMethod": name, "BearerToken": good}, token="")
        texts[f"a token that has logged out through {node.name}"] = out["SecretID"]
        await self.must(node, "POST", "/v1/acl/logout", token=out["SecretID"])

    async def _be_refused(self, node: Node, known: str) -> None:
        """With a token that is known, one that is not, and in every place where somebody may put one."""
        unknown = self.secrets.texts[f"an unknown token at {node.name}"] = str(uuid.uuid4())
        tokens = "/v1/acl/tokens"
        for token in (known, unknown):
            for header in ({"X-Consul-Token": token}, {"Authorization": f"Bearer {token}"}):
                await self.refused(node, "GET", tokens, headers=header)
                await self.refused(node, "GET", f"{tokens}?filter={token}&token={uuid.uuid4()}", headers=header)
            for path in (f"{tokens}?token={token}", f"{tokens}?token={token}&pretty=1&policy=a&role=b"):
                await self.refused(node, "GET", path, headers={})
            await self.refused(node, "DELETE", f"{tokens}?token={token}", headers={})
            await self.refused(node, "GET", f"/v1/none?token={token}", headers={})
            body = {"ServiceIdentities": [{"ServiceName": "web"}]}
            await self.refused(node, "PUT", "/v1/acl/token", {**body, "SecretID": token, "AccessorID": "x"})
            await self.refused(node, "PUT", "/v1/acl/token", {**body, "SecretID": f"x{token}"})
            await self.refused(node, "PUT", "/v1/acl/token", {**body, "SecretID": [token]})
            await self.refused(node, "PUT", "/v1/acl/token", {**body, token: "x"})
            await self.refused(node, "PUT", "/v1/acl/token", json.dumps({"SecretID": token})[:-2].encode())
            await self.refused(node, "PUT", "/v1/acl/bootstrap", {"BootstrapSecret": f"{token}x"}, headers={})
            await self.refused(node, "PUT", "/v1/acl/bootstrap", {"BootstrapSecret": token}, headers={})
            await self.refused(node, "PUT", f"/v1/agent/token/{token}", {"Token": token})
            await self.refused(node, "PUT", "/v1/agent/token/agent", {"Token": [token]})
        await self.refused(node, "PUT", "/v1/acl/token", {"SecretID": known, **body})

    async def _sign(self, node: Node, token: str) -> None:
        csr_pem, _ = make_csr(await self.cluster.service_uri())
        for _ in range(3):
            await self.must(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}, token=token)
        await self.must(node, "GET", "/v1/agent/connect/ca/leaf/web", token=token)

    async def churn(self) -> None:
        """So many requests that memory which is free is used again, and everything is in a snapshot."""
        made = await self.must(self.nodes[0], "PUT", "/v1/acl/token", {"ServiceIdentities": [{"ServiceName": "web"}]})
        self.secrets.texts.setdefault("the token of all that follows", made["SecretID"])
        csr_pem, _ = make_csr(await self.cluster.service_uri())

        async def sign_through(node: Node) -> None:
            headers = {"X-Consul-Token": made["SecretID"]}
            for _ in range(_SIGNATURES):
                answer = await self.cluster.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}, headers=headers)
                assert answer.status in (200, 503, 504), answer  # a busy machine loses its leader now and then

        await asyncio.gather(*(sign_through(node) for node in self.nodes))

    async def answers(self) -> AsyncIterator[tuple[str, bytes]]:
        """Of every node, to every GET that the API's own description knows, with all rights, in every form."""
        node = self.nodes[0]
        paths = (await self.must(node, "GET", "/v1/openapi.json"))["paths"]
        getters = [path for path, operations in paths.items() if "get" in operations]
        assert "/v1/acl/tokens" in getters
        assert "/v1/snapshot" in getters
        known = await self._known(node)
        async with aiohttp.ClientSession(trust_env=False, headers={"X-Consul-Token": self.root}) as session:
            for node in self.nodes:
                for path in getters:
                    if path == "/v1/acl/token/self":
                        continue  # it says again what it was asked with
                    for filled in known.get(path, [path]):
                        for query in ("", "?pretty", "?stale", "?expanded=true", "?format=prometheus"):
                            async with session.get(f"{node.url}{filled}{query}") as response:
                                body = await response.read()
                                head = json.dumps(dict(response.headers)).encode()
                            yield f"{path}{query} of {node.name}", head + b"\n" + body
                            for name, part in _unpacked(body):
                                yield f"{name} of {path} of {node.name}", part

    async def _known(self, node: Node) -> dict[str, list[str]]:
        """Paths with a name in them, filled with what there is."""
        filled: dict[str, list[str]] = {}
        lists = (("token", "AccessorID"), ("policy", "ID"), ("role", "ID"), ("auth-method", "Name"))
        for kind, key in (*lists, ("binding-rule", "ID")):
            plural = "policies" if kind == "policy" else f"{kind}s"
            found = await self.must(node, "GET", f"/v1/acl/{plural}")
            name = "name" if kind == "auth-method" else "id"
            for parameter in (name, "id", "accessor", "accessor_id"):
                filled[f"/v1/acl/{kind}/{{{parameter}}}"] = [f"/v1/acl/{kind}/{one[key]}" for one in found]
        certs = (await self.must(node, "GET", "/v1/connect/ca/certs"))["Certs"]
        filled["/v1/connect/ca/certs/{serial}"] = [f"/v1/connect/ca/certs/{certs[0]['SerialNumber']}"]
        filled["/v1/agent/connect/ca/leaf/{service}"] = ["/v1/agent/connect/ca/leaf/web"]
        return filled


def _unpacked(body: bytes) -> Iterator[tuple[str, bytes]]:
    if not body.startswith(b"\x1f\x8b"):
        return
    yield "what is packed", gzip.decompress(body)
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, file.read()


def _process_facts(cluster: LocalCluster) -> Iterator[tuple[str, bytes]]:
    """What every user of the machine, or the same one, can read of a process."""
    for node in cluster.nodes:
        for process in (psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)):
            for name in ("cmdline", "environ"):
                try:
                    yield f"{name} of {process.pid}", Path(f"/proc/{process.pid}/{name}").read_bytes()
                except PermissionError:
                    continue  # as good


def _found(searches: Iterable[SecretSearch], seen: Iterable[tuple[str, bytes]]) -> list[str]:
    searches = list(searches)
    found = []
    for where, data in seen:
        prepared = prepared_for_secrets(data)
        found += [
            f"{search.what} in {where}: {forms}" for search in searches if (forms := search.found_in_prepared(prepared))
        ]
    return found


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield str(path.relative_to(root)), data
            for name, part in _unpacked(data):
                yield f"{name} in {path.relative_to(root)}", part


async def test_secrets_of_tokens_are_nowhere(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        made = Cluster(cluster)
        await made.bootstrap()
        await made.use()
        await made.churn()
        leader = await cluster.leader()
        await cluster.restart(leader)
        await cluster.wait_ready()
        await made.churn()
        searches = made.secrets.searches()
        assert len(searches) > 40
        seen = [one async for one in made.answers()]
        assert len(seen) > 300
        seen += made.secrets.answers
        seen += _process_facts(cluster)
        assert "\n".join(_found(searches, seen)) == ""
        # Not stopped in order: what a power failure leaves is what a thief finds.
        for node in cluster.nodes:
            await cluster.kill(node)
        assert all((node.data_dir / "snapshot").exists() for node in cluster.nodes)
        keys = {stored_token_key(node.data_dir) for node in cluster.nodes}
        assert len(keys) == 1
        searches.append(SecretSearch.of_key("the key of SecretIDs", keys.pop()))
        assert "\n".join(_found(searches, _files(tmp_path))) == ""
        assert _found(searches[-1:], seen) == []
        # The search can find something, there too.
        planted = cluster.nodes[1].data_dir / "wal" / "planted"
        planted.write_bytes(b"x" * 99 + uuid.UUID(made.root).bytes_le + b"x" * 99)
        assert _found(searches, _files(tmp_path)) != []


async def test_first_token_from_a_file_is_in_that_file_alone(tmp_path: Path) -> None:
    """The same for a node's own token."""
    secrets = {"the first token": str(uuid.uuid4()), "a node's own token": str(uuid.uuid4())}
    paths = {what: tmp_path / f"file-{number}" for number, what in enumerate(secrets)}
    for what, path in paths.items():
        path.touch(0o600)
        path.write_text(secrets[what] + "\n")
    first, own = paths.values()
    acl = {"default_policy": "deny", "initial_management_file": str(first), "agent_token_file": str(own)}
    async with LocalCluster(tmp_path, settings={**SETTINGS, "acl": acl}) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        made = Cluster(cluster)
        made.root = secrets["the first token"]

        async def is_known() -> bool:
            headers = {"X-Consul-Token": made.root}
            answers = [await cluster.ask(node, "GET", "/v1/acl/tokens", headers=headers) for node in cluster.nodes]
            return all(answer.status == 200 for answer in answers)

        await eventually("the first token is known", is_known)
        await made.churn()
        searches = [SecretSearch.of_text(what, text) for what, text in secrets.items()]
        seen = [one async for one in made.answers()]
        assert "\n".join(_found(searches, [*seen, *_process_facts(cluster)])) == ""
        for node in cluster.nodes:
            await cluster.kill(node)
        files = {where: data for where, data in _files(tmp_path) if where not in (first.name, own.name)}
        assert len(files) > 20
        assert "\n".join(_found(searches, files.items())) == ""


def _in_memory(text: str) -> list[bytes]:
    """As a request has it, as nodes send it to each other, and as a number."""
    number = uuid.UUID(text)
    sent = base64.urlsafe_b64encode(text.encode()).rstrip(b"=")
    return [text.encode(), number.bytes, number.bytes_le, sent, text.encode("utf-16-le")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read the memory of these processes")
async def test_token_is_in_the_memory_of_no_process_that_has_no_business_with_it(tmp_path: Path) -> None:
    """Never in those that sign, and in those that keep the seal; and not in a node that is not asked with it. (That the
    leader keeps none: tests/parts/node/test_tokens_forgotten.py.)
    """
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        made = Cluster(cluster)
        await made.bootstrap()
        leader = await cluster.leader()
        asked, other = (node for node in cluster.nodes if node is not leader)
        body = {"ServiceIdentities": [{"ServiceName": "web"}]}
        chosen = str(uuid.uuid4())
        await made.must(asked, "PUT", "/v1/acl/token", {**body, "SecretID": chosen})
        drawn = (await made.must(asked, "PUT", "/v1/acl/token", body))["SecretID"]
        used = {"chosen": chosen, "drawn": drawn}
        for token in used.values():
            await made._sign(asked, token)
        csr_pem, _ = make_csr(await cluster.service_uri())

        async def found() -> list[str]:
            return [
                f"{what} token in {name} of {node.name}"
                for what, token in used.items()
                for node in cluster.nodes
                for name, pid in (("the keeper", keeper_of(node)), *(("a worker", pid) for pid in workers_of(node)))
                if holds(pid, _in_memory(token))
            ]

        # While it is asked for, too.
        signing = asyncio.gather(
            *(made.must(asked, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}, token=chosen) for _ in range(20))
        )
        assert await found() == []
        await signing
        assert await found() == []
        # A node that only has the state knows none. The leader has been asked with them, by the other one.
        assert not [what for what, token in used.items() if holds(other.pid, _in_memory(token))]
