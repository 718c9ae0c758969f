"""A cluster, a mesh that lives off it, a load of signatures, and one rotation after another."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.continuity.judges import ChainJudges, GoEnd, start_go
from tests.continuity.listing import Api, Listings
from tests.continuity.mesh import Mesh, Tally, running_mesh
from tests.continuity.places import CONSTRAINED, ROOMY, SHORT, Goal, Places
from tests.continuity.rotations import KINDS, Rotation, Rotator, walk
from tests.integration.load import Load, assert_all_on_record, signing_load
from tests.kit.real_cluster import LocalCluster, Settings
from tests.kit.vault_server import VaultServer, running_vault

_LOAD_CLIENTS: Final = 3
_PAUSE_SECONDS: Final = 2.0
#: No kill is due in the last rotations: they make up for those that were left out before.
LAST_WITHOUT_KILL: Final = 2
_MOST_MORE: Final = 8
#: Behind the last rotation, too.
_LAST_HANDSHAKES: Final = 100
_LAST_SECONDS: Final = 120.0
#: Between the end of a window that is reported in whole seconds, and everybody having seen it.
_LATE_SECONDS: Final = 3.0
_SETTINGS: Final = {"limits": {"signing_workers": 1}}
#: The first of the goals is what a cluster has before anybody configures it.
PLAIN_GOALS: Final = tuple(Goal(kind) for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen."""

    rotations: int
    kills: int
    seed: int
    leaf_ttl_seconds: int = 30
    nodes: int = 3
    services: int = 12
    is_forced: bool = False  # without cross-signing: to see that this is noticed
    is_watched_after: bool = False  # each, until nobody may fail any more because it was forced
    staged: int = 0
    goals: tuple[Goal, ...] = PLAIN_GOALS
    route: tuple[Goal, ...] = ()  # instead of from every goal to every other
    #: Seconds by which clocks of verifiers are ahead, of those whose clock can be set.
    offsets: tuple[int, ...] = (0,)

    @property
    def has_expiry(self) -> bool:
        return any(goal.own == SHORT for goal in self.route)

    @property
    def has_vault(self) -> bool:
        return any(goal.is_in_vault for goal in self.goals)

    @property
    def config(self) -> dict[str, object]:
        return {
            "LeafCertTTL": f"{self.leaf_ttl_seconds}s",
            "IntermediateCertTTL": "8760h",
            "CSRMaxPerSecond": 0,
            "SkipValidate": True,
        }


#: Each root is one that a mesh may meet, and each change of root is possible, at any moment.
_BROKEN: Final = (
    Goal("ec 384"),
    Goal("ec 256", own=CONSTRAINED),
    Goal("ec 384"),
    Goal("ec 256", is_forced=True),
    Goal("ec 384"),
    Goal("ec 256", own=ROOMY),
    Goal("ec 384"),
    Goal("ec 256", own=SHORT),  # has ended when the next one comes
    Goal("ec 384"),
    Goal("ec 256"),
)
_CLOCKS: Final = (
    Goal("ec 384"),
    Goal("ec 256", own=CONSTRAINED),
    Goal("ec 384", is_forced=True),
    Goal("ec 256", own=ROOMY),
    Goal("ec 384"),
)


def broken_plan(seed: int) -> Plan:
    """Forced rotations in between, constrained roots, roots with little room, an expired root and its recovery."""
    return Plan(len(_BROKEN), 2, seed, route=_BROKEN)


def clocks_plan(seed: int) -> Plan:
    """Verifiers whose clocks are 50 s behind and ahead; leaves of seconds would be too short for them."""
    return Plan(len(_CLOCKS), 0, seed, leaf_ttl_seconds=3600, route=_CLOCKS, offsets=(0, -50, 50))


@dataclass(slots=True)
class Outcome:
    """What has happened."""

    plan: Plan
    rotations: list[Rotation] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    verified: dict[str, int] = field(default_factory=dict)
    longest_path: int = 0
    most_listed: int = 0
    signed_by_load: int = 0
    load_answers: dict[int, int] = field(default_factory=dict)
    digest: dict[str, Any] = field(default_factory=dict)
    go: str = ""
    vault: str = ""
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        return sum(bool(rotation.killed_in) for rotation in self.rotations)

    @property
    def most_in_one_lifetime(self) -> int:
        """Rotations in one leaf lifetime."""
        ends = [rotation.ended for rotation in self.rotations]
        return max(sum(begin <= end < begin + self.plan.leaf_ttl_seconds for end in ends) for begin in ends)

    @property
    def outside_of_windows(self) -> int:
        """Failed handshakes and rejected chains, but for those in the time in which it was said that clients may
        fail, because the root was replaced by force.
        """
        windows = [
            (rotation.began_at, rotation.may_fail_until + _LATE_SECONDS)
            for rotation in self.rotations
            if rotation.is_forced
        ]
        moments = [*self.tally.failed_at, *self.tally.rejected_at]
        return sum(not any(begin <= moment <= end for begin, end in windows) for moment in moments)

    @property
    def is_good(self) -> bool:
        is_nothing_else = len(self.tally.violations) == len(self.tally.rejected_at)
        return is_nothing_else and not self.outside_of_windows


async def run(root: Path, plan: Plan, report: Callable[[str], None] = print) -> Outcome:
    """`report` gets a line for every rotation.

    Raises: AssertionError when the cluster does not do its work at all, or loses what it has signed.
    """
    started = time.monotonic()
    for name in ("cluster", "mesh", "chains"):
        _made(root / name)
    async with AsyncExitStack() as exits:
        outcome = Outcome(plan)
        # What a CA starts with decides for how long its first root stays listed: a PUT would come too late.
        config = {"leaf_cert_ttl": f"{plan.leaf_ttl_seconds}s", "skip_validate": True, "csr_max_per_second": 0}
        settings: Settings = {**_SETTINGS, "connect": {"ca_config": config}}
        cluster = await exits.enter_async_context(LocalCluster(root / "cluster", plan.nodes, settings))
        await cluster.start_all()
        await cluster.wait_ready()
        vault = exits.enter_context(running_vault(_made(root / "vault"))) if plan.has_vault else None
        if vault is not None:
            outcome.vault = str(vault.call("GET", "sys/health")["version"])
        go = await start_go(root)
        outcome.go = go if isinstance(go, str) else go.version
        if isinstance(go, str):
            report(f"no handshakes in Go: {go}")
        else:
            exits.push_async_callback(go.close)
        await _play(root, cluster, vault, None if isinstance(go, str) else go, outcome, report)
        outcome.seconds = round(time.monotonic() - started, 1)
    return outcome


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


async def _play(
    root: Path,
    cluster: LocalCluster,
    vault: VaultServer | None,
    go: GoEnd | None,
    outcome: Outcome,
    report: Callable[[str], None],
) -> None:
    plan = outcome.plan
    rng = random.Random(f"{plan.seed}/rotations")
    api = Api(cluster, random.Random(f"{plan.seed}/nodes"))
    listings, judges = Listings(api), ChainJudges(root / "chains")
    mesh = Mesh(
        api, listings, judges, go, root / "mesh", random.Random(f"{plan.seed}/mesh"), plan.services, plan.offsets
    )
    outcome.tally = mesh.tally
    # Without a root that is valid nothing is signed, which a load would not understand.
    clients = 0 if plan.has_expiry else _LOAD_CLIENTS
    if plan.has_expiry:
        listings.expect_expiry()
    async with running_mesh(mesh), signing_load(cluster, clients) as load:
        places = Places(plan.config, vault)
        rotator = Rotator(cluster, api, listings, rng, places, plan.goals[0], mesh.tally.violations)
        await _rotate(rotator, mesh, outcome, rng, report)
        await mesh.tally.shakes(_LAST_HANDSHAKES, _LAST_SECONDS)
    outcome.verified = dict(judges.verified)
    outcome.longest_path, outcome.most_listed = judges.longest_path, listings.most_listed
    mesh.tally.violations += api.unexpected
    await _check_ledger(cluster, load, outcome)


async def _rotate(
    rotator: Rotator, mesh: Mesh, outcome: Outcome, rng: random.Random, report: Callable[[str], None]
) -> None:
    plan = outcome.plan
    goals = iter(plan.route) if plan.route else walk(rng, plan.goals)
    due_kills = rng.sample(range(plan.rotations - LAST_WITHOUT_KILL), plan.kills)
    staged = rng.sample(range(plan.rotations), plan.staged)
    try:
        for number in range(plan.rotations + _MOST_MORE):
            if number >= plan.rotations and (outcome.kills == plan.kills or plan.route):
                return
            await asyncio.sleep(max(0.0, _seconds_left(mesh, plan, number)))
            # A kill that would come behind the answer is left out: then the next rotation gets it, and if it was the
            # last, there is one more.
            has_kill = outcome.kills < sum(due <= number for due in due_kills)
            rotation = await rotator.rotate(
                next(goals), has_kill=has_kill, is_forced=plan.is_forced, is_staged=number in staged
            )
            outcome.rotations.append(rotation)
            await mesh.judge(await mesh.new_identity("fresh"))
            report(_line(rotation, mesh.tally))
            if plan.is_watched_after:
                await asyncio.sleep(rotation.may_fail_until + _LATE_SECONDS - time.time())
                await mesh.tally.shakes(_LAST_HANDSHAKES, _LAST_SECONDS)
            await asyncio.sleep(rng.uniform(0, _PAUSE_SECONDS))
    finally:
        await rotator.close()


def _seconds_left(mesh: Mesh, plan: Plan, number: int) -> float:
    """Until the active root has expired, where a recovery from that is what comes next."""
    if not plan.route or number == 0 or plan.route[number - 1].own != SHORT:
        return 0.0
    return mesh.listings.latest.active.not_after + _LATE_SECONDS - time.time()


async def _check_ledger(cluster: LocalCluster, load: Load, outcome: Outcome) -> None:
    """Everything that anybody got is on record on every node."""
    outcome.signed_by_load = len(load.serials)
    outcome.load_answers = dict(sorted(load.answers.items()))
    load.assert_only_allowed_answers()
    load.acknowledged += [(time.monotonic(), serial) for serial in sorted(outcome.tally.serials)]
    await assert_all_on_record(cluster, load)
    outcome.digest = await cluster.wait_same_digest()


def _line(rotation: Rotation, tally: Tally) -> str:
    killed = f", leader killed in {rotation.killed_in}" if rotation.killed_in else ""
    staged = ", staged" if rotation.is_staged else ""
    waited = f", {rotation.waited} s too early" if rotation.refused else ""
    return (
        f"{rotation.number:4} {rotation.before:8} -> {rotation.after:8} by {rotation.way:13}"
        f" {rotation.seconds:6.2f} s{staged}{waited}{killed}; {rotation.listed} roots, {tally.total} handshakes,"
        f" {len(tally.failures)} failed, {len(tally.violations)} violations"
    )
