"""What a leader does to a CA in several commits, step by step, on real nodes: each step can be made the leader's last.

A procedure says which commands it commits, in order. That is checked at every run, whoever is killed: nothing is
committed twice, nothing is left out, and nothing comes that is not listed here.
"""

import asyncio
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fsm.acl import (
    BootstrapAcl,
    DeleteAuthMethod,
    DeleteBindingRule,
    DeletePolicy,
    DeleteRole,
    DeleteTokens,
    InitAcl,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetRole,
    SetToken,
)
from fsm.ca import (
    AbortRotation,
    AdvanceRotation,
    BeginRotation,
    FinishRotation,
    InitConfig,
    InitSeal,
    RenewSigning,
    Reseal,
    RotationPhase,
    SetConfig,
    SetProviderState,
    SetRoots,
    SetRootsConfig,
)
from fsm.commands import RestoreCA
from fsm.duties import Duty
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.nodes import AddJoinToken, SetAgentCA, TakeJoinToken
from tests.integration.killer import Desk, Moment, Order, Step
from tests.kit import pki
from tests.kit.real_cluster import Answer, LocalCluster, Node, Settings, make_csr
from tests.kit.vault_server import Refused, VaultServer
from tests.kit.wait import eventually

#: Set, every step of every procedure is tried, also where it is the same in several: twice as many.
ALL_STEPS: Final = "QUORUMCA_ALL_STEPS" in os.environ
CONFIGURATION: Final = "/v1/connect/ca/configuration"
ROTATION: Final = "/v1/connect/ca/rotation"
ROOTS: Final = "/v1/connect/ca/roots"
SNAPSHOT: Final = "/v1/snapshot"
SEAL_KEY: Final = "/v1/operator/seal"
#: So short that the clock need not be turned far; retired roots are trusted for two hours.
BUILTIN: Final[dict[str, object]] = {
    "LeafCertTTL": "1h",
    "IntermediateCertTTL": "24h",
    "RootCertTTL": "48h",
    "CSRMaxPerSecond": 0,
    "SkipValidate": True,
}
_ONE_ENTRY: Final = "all that was asked for, in one entry: there is nothing behind it that a next leader could end"
#: Commands that are steps of no procedure, and why. None has a duty that others wait for.
NO_STEPS: Final[Mapping[type, str]] = {
    RecordLeaves: "one leaf, not the CA; test_failover.py kills leaders under a load of them",
    TidyLedger: "drops records of expired leaves: done again in full by the next look, and decides nothing",
    **dict.fromkeys((BootstrapAcl, SetToken, SetPolicy, SetRole, SetAuthMethod, SetBindingRule), _ONE_ENTRY),
    **dict.fromkeys((DeletePolicy, DeleteRole, DeleteAuthMethod, DeleteBindingRule), _ONE_ENTRY),
    **dict.fromkeys((SetAgentCA, AddJoinToken, TakeJoinToken), _ONE_ENTRY),
}
#: Comes as soon as the servers know each other, so between any two of a bootstrap's steps; once all the same.
WHENEVER: Final = InitAcl.__name__
VAULT: Final[dict[str, object]] = {"LeafCertTTL": "1h", "IntermediateCertTTL": "72h", "CSRMaxPerSecond": 0}
_HOUR: Final = 3600.0
_END_SECONDS: Final = 40.0
_LOOK_SECONDS: Final = 0.05
_WATCH_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """The roots as every node shows them; nothing before there is a CA."""

    roots: tuple[dict[str, Any], ...] = ()
    active_id: str = ""

    @property
    def ids(self) -> set[str]:
        return {root["ID"] for root in self.roots}

    @property
    def active(self) -> dict[str, Any]:
        return next(root for root in self.roots if root["ID"] == self.active_id)


Begin = Callable[["Stage"], Awaitable[Answer | None]]
Judge = Callable[[Seen, Seen], None]


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody does, or time brings, and what the leaders then commit. A write answers; the rest needs nothing
    more, whoever dies.
    """

    begin: Begin
    steps: tuple[Step, ...]


async def _nothing(_stage: "Stage") -> None:
    return None


@dataclass(frozen=True)
class Procedure:
    name: str
    acts: tuple[Act, ...]
    judge: Judge
    prepare: Begin = _nothing
    is_forced: bool = False  # who trusts older roots alone is left out
    tried: tuple[Step, ...] = ()  # where leaders are killed: the others are as in another procedure; empty: at all

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for act in self.acts for step in act.steps)

    def orders(self) -> list[Order]:
        tried = self.steps if ALL_STEPS else self.tried or self.steps
        return [Order(step, moment) for step in tried for moment in Moment]

    def __str__(self) -> str:
        return self.name


@dataclass
class _Watch:
    """What clients that ask all the time have seen on any node."""

    active_ids: set[str] = field(default_factory=set)
    wrong: list[object] = field(default_factory=list)

    def look_at(self, roots: dict[str, Any]) -> None:
        active = [root["ID"] for root in roots["Roots"] or [] if root["Active"]]
        ids = [root["ID"] for root in roots["Roots"] or []]
        self.active_ids |= {*active}
        if len(active) != bool(ids) or len(set(ids)) != len(ids):
            self.wrong.append(roots)


class Stage:
    """Three nodes that obey a desk. Made with `async with`; nothing is left running behind it."""

    def __init__(self, root: Path, config: dict[str, object], vault: VaultServer | None = None) -> None:
        """`config` is what the first CA starts from: in Vault, if there is one."""
        settings: Settings = {
            "connect": {"ca_provider": "consul" if vault is None else "vault", "ca_config": config},
            "limits": {"signing_workers": 1},
        }
        (root / "desk").mkdir(parents=True)
        self.desk = Desk(root / "desk")
        self._directory = root
        (root / "nodes").mkdir()
        self.cluster = LocalCluster(root / "nodes", settings=settings)
        self.nodes = self.cluster.nodes
        self.saved = b""  # a snapshot
        self.config = config  # what is to be put next, or is in force
        self._vault = vault
        self._exit = AsyncExitStack()
        self._numbers = 0
        self._leaf_serials: set[str] = set()
        self._ca_serials: dict[int, bytes] = {}

    async def __aenter__(self) -> "Stage":
        await self._exit.enter_async_context(self.cluster)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    # -- processes

    def start(self, node: Node) -> None:
        self.cluster.start_through(node, "tests.integration.killer", self._directory / "desk")

    async def start_all(self) -> None:
        for node in self.nodes:
            if not node.is_running:
                self.start(node)

    async def follower(self) -> Node:
        leader = await self.cluster.leader()
        return next(node for node in self.nodes if node is not leader and node.is_running)

    async def _dead(self) -> Node | None:
        return next((node for node in self.nodes if node.started is not None and not node.is_running), None)

    # -- asking

    async def put(self, path: str, body: object) -> Answer:
        """Through a node that does not lead: the leader may die of it."""
        return await self.cluster.ask(await self.follower(), "PUT", path, body)

    async def configure(self, provider: str, config: Mapping[str, object]) -> Answer:
        return await self.put(CONFIGURATION, {"Provider": provider, "Config": config})

    async def must_put(self, path: str, body: object) -> Answer:
        answer = await self.put(path, body)
        assert answer.status == 200, answer.text
        return answer

    @property
    def vault(self) -> VaultServer:
        assert self._vault is not None
        return self._vault

    def mount(self, name: str) -> str:
        return str(self.config[name]).strip("/")

    async def snapshot(self) -> bytes:
        url = f"{(await self.follower()).url}{SNAPSHOT}"

        def read() -> bytes:
            with urllib.request.urlopen(url, timeout=_END_SECONDS) as answer:
                return bytes(answer.read())

        return await asyncio.to_thread(read)

    async def rotation(self) -> dict[str, Any]:
        return dict((await self.cluster.ask(await self.follower(), "GET", ROTATION)).json())

    async def try_sign(self, node: Node) -> Answer:
        csr_pem, _ = make_csr(await self.cluster.service_uri())
        return await self.cluster.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem})

    async def signed(self, node: Node) -> str:
        """A chain, once the leader can; what refuses meanwhile is said to be for now."""

        async def look() -> dict[str, Any] | None:
            answer = await self.try_sign(node)
            assert answer.status in (200, 503, 504), answer
            return dict(answer.json()) if answer.status == 200 else None

        issued = await eventually(f"{node.name} signs", look, _END_SECONDS)
        assert issued["SerialNumber"] not in self._leaf_serials, "a serial came twice"
        self._leaf_serials.add(issued["SerialNumber"])
        return str(issued["CertPEM"])

    async def seen(self) -> Seen:
        """Once all nodes run and have applied the same."""
        await self.cluster.wait_ready(_END_SECONDS)
        await self.cluster.wait_same_digest(_END_SECONDS)
        shown = [await self.cluster.roots(node) for node in self.nodes]
        assert shown == [shown[0]] * len(self.nodes)
        roots = tuple(shown[0]["Roots"])
        (active,) = [root["ID"] for root in roots if root["Active"]]
        assert shown[0]["ActiveRootID"] == active
        assert len({root["ID"] for root in roots}) == len(roots)
        assert len({pki.spki(pki.load(root["RootCert"]).public_key()) for root in roots}) == len(roots)
        return Seen(roots, active)

    def committed(self, since: int) -> list[str]:
        """What of steps is in the log behind this index, but for what comes whenever it can."""
        others = {WHENEVER, *(kind.__name__ for kind in NO_STEPS)}
        return [what for index, what in self.desk.applied().items() if index > since and what not in others]

    def times_in_log(self, what: str, since: int) -> int:
        return sum(applied == what for index, applied in self.desk.applied().items() if index > since)

    @property
    def index(self) -> int:
        return max(self.desk.applied(), default=0)

    @property
    def now(self) -> float:
        return time.time() + self.desk.clock_seconds

    def number(self) -> int:
        """Another one each time."""
        self._numbers += 1
        return self._numbers

    # -- playing

    async def tidy_up(self) -> None:
        """Everything runs, nothing is ordered, and only the active root is left: chains do not grow."""
        self.desk.order(None)
        await self.start_all()
        await self.cluster.wait_ready()
        if (await self.rotation())["Rotation"]:
            await self.must_put(ROTATION, {"Action": "abort"})
        if self._vault is None:
            assert (await self.configure("consul", BUILTIN)).status == 200
        node = await self.follower()
        for root in (await self.cluster.roots(node))["Roots"]:
            if not root["Active"]:
                assert (await self.cluster.ask(node, "DELETE", f"{ROOTS}/{root['ID']}")).status == 200

    async def play(self, procedure: Procedure, order: Order) -> tuple[Seen, Seen]:
        """The whole of it, with one leader killed; what there was before and is behind it, after all checks."""
        await procedure.prepare(self)
        before = await self.seen() if all(node.is_running for node in self.nodes) else Seen()
        since, wanted = self.index, _in_order(procedure.steps)
        self.desk.order(order)
        async with self._watched() as watch:
            for act in procedure.acts:
                await self._perform(act, order, since)
            await self._wait_whenever(procedure, since)
            after = await self.seen()
        assert self.committed(since) == wanted
        assert self.times_in_log(WHENEVER, since) == sum(step.what == WHENEVER for step in procedure.steps)
        assert watch.wrong == []
        assert watch.active_ids <= {before.active_id, after.active_id}
        procedure.judge(before, after)
        await self._assert_usable(after, is_forced=procedure.is_forced)
        return before, after

    async def _wait_whenever(self, procedure: Procedure, since: int) -> None:
        wanted = sum(step.what == WHENEVER for step in procedure.steps)

        async def is_committed() -> bool:
            return self.times_in_log(WHENEVER, since) >= wanted

        await eventually(f"{WHENEVER} is committed", is_committed, _END_SECONDS, _LOOK_SECONDS)

    async def _perform(self, act: Act, order: Order, since: int) -> None:
        before = self.committed(since)
        wanted = [*before, *_in_order(act.steps)]
        asked = asyncio.ensure_future(act.begin(self))
        if order.step in act.steps:
            try:
                victim = await eventually(f"a leader dies at {order.step}", self._dead, _END_SECONDS, _LOOK_SECONDS)
            except AssertionError as error:
                raise AssertionError(f"{error}; committed: {self.committed(since)}; {asked}") from error
            assert self.desk.is_carried_out
            assert victim.started is not None
            assert victim.started.process.poll() == -signal.SIGKILL
            self.start(victim)
        answer = await asked
        assert answer is None or answer.status in ((200, 503, 504) if self.desk.is_carried_out else (200,)), answer
        # The outcome is not known: it is looked up, and asked for again only if nothing was done.
        if answer is not None and answer.status != 200 and not await self._is_begun(before, since, answer):
            answer = await act.begin(self)
            assert answer is not None
            assert answer.status == 200, answer

        async def ended() -> list[str] | None:
            committed = self.committed(since)
            return committed if committed == wanted or committed != wanted[: len(committed)] else None

        assert await eventually(f"{wanted} are committed", ended, _END_SECONDS, _LOOK_SECONDS) == wanted

    async def _is_begun(self, before: list[str], since: int, answer: Answer) -> bool:
        """Once a new leader has applied what the old one has left."""
        await self.cluster.leader()
        (await self.cluster.ask(await self.follower(), "GET", ROTATION, query={"consistent": ""})).json()
        is_begun = self.committed(since) != before
        assert not (is_begun and answer.status == 503), f"it was done, although it was said not to be: {answer}"
        return is_begun

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[_Watch]:
        watch = _Watch()

        async def look(node: Node) -> None:
            while True:
                with suppress(aiohttp.ClientError, TimeoutError):
                    answer = await self.cluster.ask(node, "GET", ROOTS, query={"stale": ""})
                    if answer.status == 200:
                        watch.look_at(answer.json())
                await asyncio.sleep(_WATCH_SECONDS)

        tasks = [asyncio.ensure_future(look(node)) for node in self.nodes]
        try:
            yield watch
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            watch.wrong += [task.exception() for task in tasks if not task.cancelled()]

    # -- judging

    async def _assert_usable(self, seen: Seen, *, is_forced: bool) -> None:
        """Through each node, the active root's key signs what clients of any listed root accept, under new serials."""
        now = int(self.now)
        trusted = [seen.active] if is_forced else [root for root in seen.roots if _not_after(root) > now]
        for node in self.nodes:
            chain_pem = await self.signed(node)
            issuer = pki.value_of(pki.load(chain_pem), x509.AuthorityKeyIdentifier).key_identifier
            assert issuer is not None
            assert issuer.hex(":") == seen.active["SigningKeyID"]
            for root in trusted:
                pki.openssl_verify(self._directory, chain_pem, [root["RootCert"]], now=now)
        for root in seen.roots:
            for pem in (root["RootCert"], *(root["IntermediateCerts"] or [])):
                cert = pki.load(pem)
                made = cert.public_bytes(Encoding.DER)
                assert self._ca_serials.setdefault(cert.serial_number, made) == made, "a CA's serial came twice"


def _in_order(steps: tuple[Step, ...]) -> list[str]:
    return [step.what for step in steps if step.what != WHENEVER]


def _not_after(root: dict[str, Any]) -> float:
    return pki.load(root["RootCert"]).not_valid_after_utc.timestamp()


# -- how the CA must be behind it


def is_made(_before: Seen, after: Seen) -> None:
    assert len(after.roots) == 1


def is_rotated(before: Seen, after: Seen) -> None:
    assert after.ids - before.ids == {after.active_id}
    assert before.ids < after.ids


def is_activated(before: Seen, after: Seen) -> None:
    assert after.ids == before.ids
    assert before.ids == {before.active_id, after.active_id}


def is_kept(before: Seen, after: Seen) -> None:
    assert (after.ids, after.active_id) == (before.ids, before.active_id)
    assert after.active["SigningKeyID"] == before.active["SigningKeyID"]


def is_renewed(before: Seen, after: Seen) -> None:
    assert (after.ids, after.active_id) == (before.ids, before.active_id)
    assert after.active["SigningKeyID"] != before.active["SigningKeyID"]


def is_pruned(before: Seen, after: Seen) -> None:
    assert len(before.ids) == 2
    assert after.ids == {before.active_id} == {after.active_id}


def is_restored(before: Seen, after: Seen) -> None:
    assert after.ids == {after.active_id} == before.ids - {before.active_id}


# -- steps


def _duty(command: type, duty: Duty) -> Step:
    return Step(command.__name__, duty.name)


def _asked(command: type) -> Step:
    return Step(command.__name__)


def _advance(begin: RotationPhase, end: RotationPhase, duty: Duty | None = None, more: str = "") -> Step:
    return Step(f"{AdvanceRotation.__name__} {begin} to {end}{more}", duty.name if duty else "")


SEAL = _duty(InitSeal, Duty.INIT_SEAL)
FIRST_ACL = _duty(InitAcl, Duty.INIT_ACL)
FIRST_CONFIG = _duty(InitConfig, Duty.INIT_CONFIG)
PREPARE = _duty(SetProviderState, Duty.PREPARE_ROOT)
FIRST_ROOT = _duty(SetRootsConfig, Duty.GENERATE_ROOT)
GENERATE = _advance(RotationPhase.GENERATE, RotationPhase.CROSS_SIGN, Duty.ROTATE_GENERATE)
CROSS_SIGN = _advance(RotationPhase.CROSS_SIGN, RotationPhase.ACTIVATE, Duty.ROTATE_CROSS_SIGN)
CROSS_SIGN_STAGED = _advance(RotationPhase.CROSS_SIGN, RotationPhase.PUBLISH, Duty.ROTATE_CROSS_SIGN)
PUBLISH = _advance(RotationPhase.PUBLISH, RotationPhase.WAIT, Duty.ROTATE_PUBLISH)
PAUSE = _advance(RotationPhase.WAIT, RotationPhase.WAIT, more=", paused")
RESUME = _advance(RotationPhase.WAIT, RotationPhase.WAIT)
END_WAIT = _advance(RotationPhase.WAIT, RotationPhase.ACTIVATE)
FINISH = _duty(FinishRotation, Duty.ROTATE_ACTIVATE)
BEHIND_BEGIN = (GENERATE, CROSS_SIGN, FINISH)
ROTATE = (_asked(BeginRotation), *BEHIND_BEGIN)


# -- what begins them


def _turn(hours: float) -> Begin:
    async def begin(stage: Stage) -> None:
        stage.desk.turn_clock(hours * _HOUR)

    return begin


def _rotation(**options: object) -> Begin:
    async def begin(stage: Stage) -> Answer:
        return await stage.put(ROTATION, {"Action": "rotate", "PrivateKeyType": "ec", **options})

    return begin


def _steer(action: str) -> Begin:
    async def begin(stage: Stage) -> Answer:
        return await stage.put(ROTATION, {"Action": action})

    return begin


async def _rotated(stage: Stage) -> None:
    assert (answer := await _rotation()(stage)) is not None
    assert answer.status == 200, answer


async def _published(stage: Stage) -> None:
    """Somebody holds a leaf of the old root and does not come back: nothing is activated by itself."""
    await stage.signed(await stage.follower())
    await stage.must_put(ROTATION, {"Action": "rotate", "Staged": True, "Wait": "1h"})
    assert (await stage.rotation())["Rotation"]["Phase"] == RotationPhase.WAIT


async def _begin_staged(stage: Stage) -> Answer:
    await stage.signed(await stage.follower())
    return await stage.put(ROTATION, {"Action": "rotate", "Staged": True, "Wait": "1h"})


async def _rotates_itself(stage: Stage) -> None:
    assert (await stage.configure("consul", {**BUILTIN, "AutoRotateRoot": True})).status == 200


async def _expired(stage: Stage) -> None:
    stage.desk.turn_clock(49 * _HOUR)
    answer = await stage.try_sign(await stage.follower())
    assert answer.status == 500, answer
    assert "root expired" in answer.text


async def _change_limit(stage: Stage) -> Answer:
    return await stage.configure("consul", {**BUILTIN, "CSRMaxPerSecond": 10_000 + stage.number()})


async def _reseal(stage: Stage) -> Answer:
    return await stage.put(SEAL_KEY, {"KeepKey": True})


async def _distrust(stage: Stage) -> Answer:
    node = await stage.follower()
    (retired,) = [root["ID"] for root in (await stage.cluster.roots(node))["Roots"] if not root["Active"]]
    return await stage.cluster.ask(node, "DELETE", f"{ROOTS}/{retired}")


async def _saved_and_rotated(stage: Stage) -> None:
    stage.saved = await stage.snapshot()
    await _rotated(stage)


async def _restore(stage: Stage) -> Answer:
    return await stage.put(SNAPSHOT, stage.saved)


async def _short_token(stage: Stage) -> None:
    """Of two hours, made by the first token, as which nobody asks from then on: by default all is allowed."""
    node = await stage.follower()

    async def bootstrap() -> Any:
        answer = await stage.cluster.ask(node, "PUT", "/v1/acl/bootstrap", {})
        return answer.json() if answer.status == 200 else None

    first = await eventually("there is access control", bootstrap, _END_SECONDS)
    made = await stage.cluster.ask(
        node,
        "PUT",
        "/v1/acl/token",
        {"ExpirationTTL": "2h"},
        headers={"X-Consul-Token": str(first["SecretID"])},
    )
    assert made.status == 200, made


async def _start(stage: Stage) -> None:
    await stage.start_all()


async def _repair(stage: Stage) -> Answer:
    return await stage.configure("consul", BUILTIN)


#: On a cluster of its own: whose tokens are in use asks for one where another does not.
REAP = Procedure(
    "tokens that expire", (Act(_turn(3), (_duty(DeleteTokens, Duty.REAP_TOKENS),)),), is_kept, _short_token
)


# -- the procedures of the built-in provider

BOOTSTRAP = Procedure("bootstrap", (Act(_start, (SEAL, FIRST_ACL, FIRST_CONFIG, PREPARE, FIRST_ROOT)),), is_made)
#: What the nodes' files say is of no use: the CA comes up with what an operator writes.
REPAIR = Procedure(
    "repaired bootstrap",
    (Act(_start, (SEAL, FIRST_ACL, FIRST_CONFIG)), Act(_repair, (_asked(SetConfig), FIRST_ROOT))),
    is_made,
    tried=(_asked(SetConfig),),
)
PROCEDURES = (
    Procedure("rotation", (Act(_rotation(), ROTATE),), is_rotated),
    Procedure("forced rotation", (Act(_rotation(ForceWithoutCrossSigning=True), ROTATE),), is_rotated, is_forced=True),
    Procedure(
        "staged rotation",
        (
            Act(_begin_staged, (_asked(BeginRotation), GENERATE, CROSS_SIGN_STAGED, PUBLISH)),
            Act(_turn(1.1), (FINISH,)),
        ),
        is_rotated,
        tried=(CROSS_SIGN_STAGED, PUBLISH, FINISH),
    ),
    Procedure(
        "steered rotation",
        (
            Act(_steer("pause"), (PAUSE,)),
            Act(_steer("resume"), (RESUME,)),
            Act(_steer("activate"), (END_WAIT, FINISH)),
        ),
        is_activated,
        _published,
        tried=(PAUSE, RESUME, END_WAIT),
    ),
    Procedure("aborted rotation", (Act(_steer("abort"), (_asked(AbortRotation),)),), is_pruned, _published),
    Procedure(
        "rotation by itself",
        (Act(_turn(39), (_duty(BeginRotation, Duty.ROTATE_BEGIN), *BEHIND_BEGIN)),),
        is_rotated,
        _rotates_itself,
        tried=(_duty(BeginRotation, Duty.ROTATE_BEGIN),),
    ),
    Procedure(
        "recovery of an expired root",
        (Act(_rotation(), ROTATE),),
        is_rotated,
        _expired,
        tried=(GENERATE, CROSS_SIGN),
    ),
    Procedure("pruning", (Act(_turn(3), (_duty(SetRoots, Duty.PRUNE_ROOTS),)),), is_pruned, _rotated),
    Procedure("distrust", (Act(_distrust, (_asked(SetRoots),)),), is_pruned, _rotated),
    Procedure("change of configuration", (Act(_change_limit, (_asked(SetConfig),)),), is_kept),
    Procedure("other data key", (Act(_reseal, (_asked(Reseal),)),), is_kept),
    Procedure("restore", (Act(_restore, (_asked(RestoreCA),)),), is_restored, _saved_and_rotated),
)


# -- and with keys in Vault


async def _fresh_mounts(stage: Stage) -> None:
    stage.config = stage.vault.config(**VAULT)


async def _other_path(stage: Stage) -> None:
    stage.config = {**stage.config, "IntermediatePKIPath": f"{stage.mount('RootPKIPath')}-{stage.number()}"}


async def _configure_vault(stage: Stage) -> Answer:
    return await stage.configure("vault", stage.config)


async def _lose_issuer(stage: Stage) -> None:
    """Whoever wants a leaf finds out."""
    with suppress(Refused):
        stage.vault.call("DELETE", f"{stage.mount('IntermediatePKIPath')}/issuer/default")
    await stage.signed(await stage.follower())


RENEW = _duty(RenewSigning, Duty.RENEW_SIGNING)
VAULT_BOOTSTRAP = Procedure("bootstrap in Vault", BOOTSTRAP.acts, is_made, tried=(PREPARE, FIRST_ROOT))
VAULT_PROCEDURES = (
    Procedure("other path in Vault", (Act(_configure_vault, (_asked(SetConfig), RENEW)),), is_renewed, _other_path),
    Procedure("lost issuer in Vault", (Act(_lose_issuer, (RENEW,)),), is_renewed),
    Procedure("other root in Vault", (Act(_configure_vault, ROTATE),), is_rotated, _fresh_mounts),
)
