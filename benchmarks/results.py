"""What a run of the bench found, as values; `bench.json` is these, field by field."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.origin import Origin
from benchmarks.stats import Spread

LEADER, FOLLOWER, SPREAD = PATHS = ("leader", "follower", "spread")


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of operation, path and number of clients, over all rounds."""

    operation: str  # "sign" | "roots"
    path: str
    clients: int
    rate: Spread  # per second
    p50_ms: Spread
    p99_ms: Spread
    failures: Mapping[str, int]
    cpu_us: Spread  # processor time per request of all nodes together; unlike the rate, hardly moved by other programs
    cores_elsewhere: float  # that other programs kept busy meanwhile, at the worst: 0 on a quiet machine
    generator_cpu_percent: float


@dataclass(frozen=True, slots=True)
class CommitPoint:
    """From proposal to applied entry on the leader, while so many clients sign through it."""

    clients: int
    mean_ms: Spread
    p50_ms: Spread
    p99_ms: Spread


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """All processes of one node together, while nobody asks anything. Megabytes are 10^6 bytes."""

    name: str
    is_leader: bool
    processes: int
    cpu_percent: float  # of one core
    rss_mb: float  # counts what the processes share once for each
    pss_mb: float  # counts what they share in parts


@dataclass(frozen=True, slots=True)
class Failover:
    """After kill -9 of the leader under light load."""

    seconds: Spread  # until the next signature through a survivor
    rejoin_seconds: Spread  # from starting the dead node until it answers with proof that it is up to date


@dataclass(frozen=True, slots=True)
class Level:
    """What may depend on the size of the ledger."""

    records: int  # asked for
    records_at_start: int
    baseline: Spread
    leader: Point
    spread: Point
    idle: tuple[NodeUsage, ...]
    failover: Failover


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every path at every number of clients."""

    baseline: Spread
    points: tuple[Point, ...]
    commits: tuple[CommitPoint, ...]

    def point(self, operation: str, path: str, clients: int) -> Point:
        """Raises: KeyError."""
        for point in self.points:
            if (point.operation, point.path, point.clients) == (operation, path, clients):
                return point
        raise KeyError((operation, path, clients))


@dataclass(frozen=True, slots=True)
class VaultPoint:
    """Signing while the keys are in Vault. The processor time of `signing` is that of our nodes alone."""

    signing: Point
    server_cpu_us: Spread  # of Vault, per request


@dataclass(frozen=True, slots=True)
class ThroughVault:
    """Every number of clients, through the leader of a cluster of its own, with Vault on the same machine."""

    server: str  # name and version
    baseline: Spread
    points: tuple[VaultPoint, ...]


@dataclass(frozen=True, slots=True)
class AclRound:
    """One measurement of each of two clusters, one right after the other: signatures per second, and the processor time
    of all nodes together for each.
    """

    open_rate: float
    guarded_rate: float
    open_cpu_us: float
    guarded_cpu_us: float


@dataclass(frozen=True, slots=True)
class AclPath:
    """Signing through one path, each client as a service of its own: on a cluster where everybody may do everything,
    and on one where nothing is allowed by default and each client has its service's token.
    """

    path: str
    clients: int
    rounds: tuple[AclRound, ...]
    failures: Mapping[str, int]

    @property
    def ratio(self) -> Spread:
        """Of the rates."""
        return Spread.of([one.guarded_rate / one.open_rate for one in self.rounds])

    @property
    def cpu_ratio(self) -> Spread:
        """Of the processor times, which other programs hardly move."""
        return Spread.of([one.guarded_cpu_us / one.open_cpu_us for one in self.rounds])


@dataclass(frozen=True, slots=True)
class WithAcls:
    """What access control costs, with so many tokens."""

    tokens: int
    paths: tuple[AclPath, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """One run of the bench."""

    origin: Origin
    rounds: int
    seconds: float  # of one measurement
    stolen_percent: float  # of the machine's time, taken by its host while the bench ran
    baseline: Spread
    sweep: Sweep
    levels: tuple[Level, ...]
    vault: ThroughVault | None  # None where no server is installed
    acl: WithAcls | None = None
