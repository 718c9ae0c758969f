"""A node in memory: the `Service` that the HTTP API is tested over. Honest about indexes, waiting and refusals."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.api.access import Caller
from cluster.api.backups import Meta
from cluster.api.ca import ConfigUpdate, RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.facts import Digest
from cluster.api.joining import AgentCAInfo, Founder, JoinAsk, Joined, JoinTokenWanted, NewJoinToken
from cluster.api.leaves import IssuedCert, LocalLeaf
from cluster.api.reads import WATCHED, ReadLevel, ReadPoint, Watch
from cluster.api.seals import NodeSeal
from cluster.api.servers import ClusterInfo, ServerInfo
from cluster.api.service import Service
from cluster.backup.file import SnapshotInvalid
from cluster.base.config import NodeConfig, parse_config
from cluster.base.errors import (
    BadRequest,
    ChangeUnderWay,
    NoLeader,
    NotFound,
    NotReady,
    Refused,
    StaleIndex,
    TokenUnknown,
)
from cluster.base.telemetry import Metrics
from fsm.apply import apply
from fsm.ca import CAConfig, CARoot, Intermediate, Rotation, RotationOutcome, RotationPhase
from fsm.commands import Applied, Command
from fsm.leaves import LeafKind, LeafRecord
from fsm.ledger import LedgerQuery, LedgerRow
from fsm.state import State
from providers.errors import CSRRejected
from tests.kit import acl_samples
from tests.kit.callers import ANYBODY, MANAGER
from tests.kit.fake_acl import FakeAcl

CLUSTER_ID = "11111111-2222-3333-4444-555555555555"
TRUST_DOMAIN = f"{CLUSTER_ID}.consul"
NOW = 1_800_000_000
ISSUER = bytes(range(32))
CSR = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"


def node_config(port: int = 8500, **changes: Any) -> NodeConfig:
    servers = [{"name": f"n{k}", "raft": f"127.0.0.1:{8299 + k}", "rpc": f"127.0.0.1:{8399 + k}"} for k in range(1, 4)]
    values = {
        "node_name": "n1",
        "data_dir": Path("data"),
        "servers": servers,
        "tls": {"ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "key.pem"},
        "http": {"address": f"127.0.0.1:{port}"},
    }
    return parse_config(values | changes, source="test")


def root(name: str, *, is_active: bool = True, **changes: Any) -> CARoot:
    base = CARoot(
        root_id=f"aa:{name}",
        name="Consul CA Primary Cert",
        serial_number=(1 << 64) - 1,
        key_id=f"{name}-key",
        signing_key_id=f"{name}-key",
        external_trust_domain=CLUSTER_ID,
        not_before=NOW,
        not_after=NOW + 86_400,
        root_pem=f"-----{name}-----\n",
        intermediates=(),
        is_active=is_active,
        private_key_type="ec",
        private_key_bits=256,
        create_index=5,
        modify_index=5,
    )
    return replace(base, **changes)


def initial_state() -> State:
    config = CAConfig(
        cluster_id=CLUSTER_ID,
        provider="consul",
        provider_id="p1",
        config_json='{"LeafCertTTL":"72h","IntermediateCertTTL":"8760h","Nested":{"b":1,"a":[{"d":1,"c":2}]}}',
        create_index=3,
        modify_index=3,
    )
    return State(index=5, roots_index=5, config=config, roots=(root("r1"),))


def intermediate(name: str) -> Intermediate:
    return Intermediate(cert_pem=f"-----{name}-----", key_id=name, issuer_key_id="r1-key", not_after=NOW)


def ledger_row(number: int, **changes: Any) -> LedgerRow:
    base = LeafRecord(
        serial=number.to_bytes(2, "big").lstrip(b"\0"),
        kind=LeafKind.SERVICE if number % 2 else LeafKind.AGENT,
        name=f"name-{number % 3}",
        spiffe_id=f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/name-{number % 3}",
        public_key_sha256=bytes([number % 256]) * 32,
        not_before=NOW,
        not_after=NOW + number,
        requested_by="127.0.0.1",
    )
    return LedgerRow(index=number, record=replace(base, **changes), issuer_key_id=ISSUER, log_index=number)


class FakeService:
    """`fail_with`: raised by the next calls of this name. `calls`: what was asked, in order."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.metrics = Metrics()
        self.state = acl_samples.with_one_of_each(initial_state())
        self.has_leader = True
        self.last_contact_ms = 0
        self.fail_with: dict[str, Exception] = {}
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self.certs: list[LedgerRow] = []
        self.leaf_answer: LocalLeaf | None = None
        self.uptake = Uptake(watchers=4, watchers_seen=3, identities=10, identities_renewed=2)
        self.is_healthy = True
        self.seal_key = "old-key"
        self.agent_ca_info: AgentCAInfo | None = None
        self.not_restorable = ""  # of what is saved
        self.snapshot = b"snapshot"  # what is saved, and the only one that can be restored
        self.restore_notes: tuple[str, ...] = ()
        self.gate: asyncio.Event | None = None  # `sign` waits for it
        self.read_gate: asyncio.Event | None = None  # `read` does
        self.callers = {"": ANYBODY, MANAGER.secret_id: MANAGER}  # by SecretID
        self.is_open = True  # nobody has bootstrapped access control
        self.acl = FakeAcl(self._called, acl_samples.uuid(1))
        self._news = asyncio.Condition()

    @property
    def service(self) -> Service:
        return Service(self.config, self.metrics, self, self, self, self, self, self, self, self, self, self.acl, self)

    def _called(self, name: str, *args: object) -> None:
        self.calls.append((name, args))
        if name in self.fail_with:
            raise self.fail_with[name]

    async def change(self, **changes: Any) -> None:
        """The state moves by one index."""
        self.state = replace(self.state, index=self.state.index + 1, **changes)
        async with self._news:
            self._news.notify_all()

    async def commit(self, command: Command) -> None:
        state, result = apply(self.state, command)
        assert isinstance(result, Applied), result
        async with self._news:
            self.state = state
            self._news.notify_all()

    # -- who may

    @property
    def allows_by_default(self) -> bool:
        return True

    async def caller(self, secret_id: str) -> Caller:
        self._called("caller")  # whoever leads is asked
        return self.caller_here(secret_id)

    def caller_here(self, secret_id: str) -> Caller:
        if secret_id in self.callers:
            return self.callers[secret_id]
        if self.is_open:
            return ANYBODY
        raise TokenUnknown("ACL not found")

    def judged_again(self, caller: Caller) -> Caller:
        if caller.secret_id not in self.callers:
            raise TokenUnknown("ACL not found")
        return self.callers[caller.secret_id]

    has_recovery_token = False

    def put_agent_token(self, kind: str, secret_id: str, caller: Caller) -> None:
        self._called("put_agent_token", kind, secret_id)

    # -- reading the state

    async def read(self, level: ReadLevel) -> ReadPoint:
        self._called("read", level)
        if self.read_gate is not None:
            await self.read_gate.wait()
        if level is ReadLevel.LINEARIZABLE and not self.has_leader:
            raise NoLeader("no leader is known")
        return ReadPoint(self.state, self.has_leader, self.last_contact_ms)

    async def watch(self, level: ReadLevel, index: int, what: Watch, timeout_seconds: float) -> ReadPoint:
        self._called("watch", level, index, timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds), self._news:
                await self._news.wait_for(lambda: WATCHED[what].index_of(self.state) > index)
        except TimeoutError:
            pass
        return ReadPoint(self.state, self.has_leader, self.last_contact_ms)

    # -- the CA

    def issued(self, kind: str = "service", name: str = "web") -> IssuedCert:
        return IssuedCert(
            serial=0x012F,
            cert_pem="-----leaf-----\n",
            kind=kind,
            name=name,
            spiffe_id=f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{name}",
            not_before=NOW,
            not_after=NOW + 3600,
            index=7,
        )

    async def sign(self, caller: Caller, csr_pem: str, requested_by: str) -> IssuedCert:
        self._called("sign", csr_pem, requested_by)
        if self.gate is not None:
            await self.gate.wait()
        if "BEGIN CERTIFICATE REQUEST" not in csr_pem:
            raise CSRRejected("no PEM-encoded data found")
        return self.issued()

    async def configure(self, caller: Caller, update: ConfigUpdate) -> None:
        self._called("configure", update)
        config = self.state.config
        if config is None:
            raise NotReady("CA has not finished initializing")
        if update.modify_index not in (0, config.modify_index):
            raise StaleIndex(f"the configuration has changed: its ModifyIndex is {config.modify_index}")
        if update.state and dict(update.state) != dict(config.public_state):
            text = "Provider State is read-only. It must be omitted or identical to the current value"
            raise BadRequest(text)
        index = self.state.index + 1
        await self.change(
            config=replace(
                config,
                provider=update.provider or config.provider,
                config_json=json.dumps(dict(update.config)),
                force_without_cross_signing=update.force_without_cross_signing,
                modify_index=index,
            )
        )

    # -- rotation

    def _rotatable(self) -> tuple[CAConfig, CARoot]:
        config, active = self.state.config, self.state.active_root
        if config is None or active is None:
            raise NotReady("CA has not finished initializing")
        if self.state.rotation is not None:
            raise ChangeUnderWay("the CA is being changed already: a rotation is under way")
        return config, active

    async def plan_rotation(self, caller: Caller, request: RotateRequest) -> RotationPlan:
        self._called("plan_rotation", request)
        config, active = self._rotatable()
        return RotationPlan(
            active_root_id=active.root_id,
            provider=config.provider,
            key_type=request.key_type or active.private_key_type,
            key_bits=request.key_bits or active.private_key_bits,
            is_forced=request.is_forced,
            is_staged=request.is_staged,
            chain_bytes=5000,
            max_chain_bytes=32768,
            links=0 if request.is_forced else 1,
            trusted_roots=len(self.state.roots) + 1,
            affected_leaves=len(self.certs),
            retired_until=NOW + 7200,
            risks=("leaves change",),
        )

    async def rotate(self, caller: Caller, request: RotateRequest) -> None:
        """At once; staged: until the new root is listed and waits."""
        self._called("rotate", request)
        config, _ = self._rotatable()
        new = root(f"r{len(self.state.roots) + 1}", is_active=False)
        rotation = Rotation(
            rotation_id="rotation-1",
            phase=RotationPhase.WAIT,
            started_at=NOW,
            phase_since=NOW,
            config=config,
            is_forced=request.is_forced,
            is_staged=request.is_staged,
            wait_seconds=request.wait_seconds,
            root=new,
        )
        await self.change(rotation=rotation, roots=(*self.state.roots, new))
        if not request.is_staged:
            await self._activate(rotation)

    async def _activate(self, rotation: Rotation) -> None:
        assert rotation.root is not None
        new_id = rotation.root.root_id
        roots = tuple(
            replace(one, is_active=False, rotated_out_at=NOW, prune_at=NOW + 7200)
            if one.is_active
            else replace(one, is_active=one.root_id == new_id)
            for one in self.state.roots
        )
        outcome = RotationOutcome(rotation.rotation_id, b"", NOW, new_id, is_forced=rotation.is_forced)
        await self.change(rotation=None, roots=roots, last_rotation=outcome)

    async def steer_rotation(self, caller: Caller, steering: Steering) -> None:
        self._called("steer_rotation", steering)
        rotation = self.state.rotation
        if rotation is None:
            raise Refused("no rotation is under way")
        match steering:
            case Steering.ABORT:
                reason = "given up by an operator"
                outcome = RotationOutcome(rotation.rotation_id, b"", NOW, "", reason)
                roots = tuple(one for one in self.state.roots if one != rotation.root)
                await self.change(rotation=None, roots=roots, last_rotation=outcome)
            case _ if rotation.phase is not RotationPhase.WAIT:
                raise Refused(f"the rotation is in phase {rotation.phase}")
            case Steering.ACTIVATE:
                await self._activate(rotation)
            case Steering.PAUSE | Steering.RESUME:
                await self.change(rotation=replace(rotation, is_paused=steering is Steering.PAUSE))

    async def rotation_uptake(self, caller: Caller) -> Uptake | None:
        self._called("rotation_uptake")
        rotation = self.state.rotation
        return self.uptake if rotation is not None and rotation.phase is RotationPhase.WAIT else None

    async def distrust_root(self, caller: Caller, root_id: str) -> None:
        self._called("distrust_root", root_id)
        found = next((one for one in self.state.roots if one.root_id == root_id.lower()), None)
        if found is None:
            raise NotFound(f"root {root_id!r:.100} is not listed")
        if found.is_active:
            raise Refused(f"root {root_id} is active")
        await self.change(roots=tuple(one for one in self.state.roots if one != found))

    # -- the seal

    async def seal_status(self) -> list[NodeSeal]:
        self._called("seal_status")
        return [NodeSeal(server.name, "file", self.seal_key, "5ea1", is_settled=True) for server in self.config.servers]

    async def rotate_seal(self, caller: Caller, *, keeps_key: bool) -> None:
        self._called("rotate_seal", keeps_key)
        if not keeps_key:
            self.seal_key = "new-key"

    # -- servers and their certificates

    async def agent_ca(self) -> AgentCAInfo | None:
        return self.agent_ca_info

    async def set_agent_ca(self, caller: Caller, cert_pem: str, key_pem: str, cert_ttl_seconds: int) -> None:
        self._called("set_agent_ca", cert_pem, key_pem, cert_ttl_seconds)
        self.agent_ca_info = AgentCAInfo(cert_pem, "ab" * 32, cert_ttl_seconds, NOW) if cert_pem else None

    async def new_join_token(self, caller: Caller, wanted: JoinTokenWanted) -> NewJoinToken:
        self._called("new_join_token", wanted)
        return NewJoinToken("s3cret", NOW + wanted.ttl_seconds, "ab" * 32)

    def ca_pem(self) -> str:
        return "a CA"

    async def join(self, ask: JoinAsk) -> Joined:
        self._called("join", ask)
        founders = [Founder(server.name, server.raft, server.rpc) for server in self.config.servers]
        return Joined("a certificate", "a CA", founders, founders, "allow")

    # -- snapshots

    async def save_snapshot(self, path: Path, level: ReadLevel) -> Meta:
        await self.read(level)
        self._called("save_snapshot", level)
        if self.gate is not None:
            await self.gate.wait()
        path.write_bytes(self.snapshot)
        return Meta(
            *(1, 7, 99, NOW, "dc1", "n1", TRUST_DOMAIN, "aa:r1", 1, 0, "file", "0123456789abcdef"), self.not_restorable
        )

    async def restore_snapshot(self, caller: Caller, path: Path, *, is_forced: bool) -> tuple[str, ...]:
        self._called("restore_snapshot", path, is_forced)
        if self.gate is not None:
            await self.gate.wait()
        if path.read_bytes() != self.snapshot:
            raise SnapshotInvalid("the snapshot is damaged, or none: it is")
        return self.restore_notes

    async def find_cert(self, serial: bytes, level: ReadLevel) -> LedgerRow | None:
        self._called("find_cert", serial, level)
        return next((row for row in self.certs if row.record.serial == serial), None)

    async def search_certs(self, query: LedgerQuery, level: ReadLevel) -> list[LedgerRow]:
        self._called("search_certs", query, level)
        return [
            row
            for row in self.certs
            if row.index > query.after
            and (not query.services or (row.record.kind == LeafKind.SERVICE and row.record.name in query.services))
            and query.service in (None, row.record.name)
            and query.kind in (None, row.record.kind)
            and query.spiffe_id in (None, row.record.spiffe_id)
            and query.issuer_key_id in (None, row.issuer_key_id)
            and row.record.requested_by.startswith(query.requested_by or "")
            and (query.expires_before is None or row.record.not_after < query.expires_before)
        ][: query.limit]

    async def service_names(self, prefixes: Sequence[str], at_most: int, level: ReadLevel) -> list[str]:
        self._called("service_names", tuple(prefixes), at_most, level)
        services = {row.record.name for row in self.certs if row.record.kind == LeafKind.SERVICE}
        return sorted(name for name in services if name.startswith(tuple(prefixes)))[: at_most + 1]

    # -- local services

    async def leaf(
        self, caller: Caller, service: str, requested_by: str, *, index: int = 0, timeout_seconds: float = 0.0
    ) -> LocalLeaf:
        self._called("leaf", service, requested_by, index, timeout_seconds)
        if len(service) > 200 or not service.isprintable():
            raise BadRequest("Invalid service")
        answer = self.leaf_answer or LocalLeaf(self.issued(name=service), "-----key-----\n", False, 0)
        if index >= answer.cert.index:
            await asyncio.sleep(timeout_seconds)
        return answer

    # -- the cluster

    def leader_address(self) -> str:
        return "127.0.0.1:8301" if self.has_leader else ""

    def peer_addresses(self) -> list[str]:
        return [server.raft for server in self.config.servers]

    async def cluster(self, level: ReadLevel) -> ClusterInfo:
        self._called("cluster", level)
        if level is ReadLevel.LINEARIZABLE and not self.has_leader:
            raise NoLeader("no leader is known")
        servers = tuple(
            ServerInfo(
                name=server.name,
                raft_address=server.raft,
                rpc_address=server.rpc,
                is_leader=server.name == "n2",
                is_voter=True,
                is_healthy=self.is_healthy or server.name != "n3",
                last_contact_ms=None if server.name == "n3" else 20,
                last_term=2,
                last_index=99,
                stable_since=NOW,
            )
            for server in self.config.servers
        )
        return ClusterInfo(servers, log_index=99)

    async def transfer_leader(self, caller: Caller, name: str | None) -> None:
        self._called("transfer_leader", name)
        if name is not None and name not in {server.name for server in self.config.servers}:
            raise BadRequest(f"unknown server {name[:80]!r}")

    async def add_peer(self, caller: Caller, name: str, raft_address: str, rpc_address: str) -> None:
        self._called("add_peer", name, raft_address, rpc_address)

    async def remove_peer(self, caller: Caller, name: str | None, raft_address: str | None) -> None:
        self._called("remove_peer", name, raft_address)
        known = {server.name for server in self.config.servers} | {server.raft for server in self.config.servers}
        if (name or raft_address) not in known:
            raise NotFound("no such server")

    async def digest(self) -> Digest:
        self._called("digest")
        return Digest(self.state.index, "ab" * 32, len(self.certs), "cd" * 32)

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        return {"raft": {"state": "Follower", "term": "2"}}
