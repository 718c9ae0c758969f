"""How a node catches up with a large ledger, and what the others notice of it: `python -m benchmarks.catchup`.

One follower lags beyond the log and comes back; then its disk is lost, and it is replaced the documented way: removed,
and added under a new name with an empty directory. Clients sign meanwhile. Writes `catchup.json` and `catchup.md` into
--out. What must hold while a node catches up: the same leader in the same term, no silence between leader and follower
as long as an election time-out, no round of the leader's Raft thread either, equal digests at the end; and a restart
costs no more with a full ledger than with a small one and as long a log.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.contact import Contact, watching
from benchmarks.csrs import make_csrs
from benchmarks.fill import fill_ledger
from benchmarks.load import LoadResult, run_load, sign_plan
from benchmarks.nodes import BenchError, LocalCluster, Node, cpu_seconds, kill, process_tree, running_cluster
from benchmarks.origin import describe_origin
from benchmarks.stats import Spread
from cluster.cli.dev.cluster_file import ClusterFile
from cluster.cli.dev.local_cluster import HTTP_PORT, MAX_NODES, LocalNode, load_local, make_node, node_at
from cluster.raft.node import CompactionPolicy

_POOL: Final = 64
_RESTARTS: Final = 5
#: About 150 signatures per second, in slices: the slowest of several says more than one over all of them.
_CLIENTS: Final = 9
_THINK_SECONDS: Final = 0.05
_SLICE_SECONDS: Final = 5.0
_BASELINE_SLICES: Final = 4
#: The product's defaults; what stays in the log is a quarter of what triggers a compaction.
_LOG_BYTES: Final = CompactionPolicy().trigger_bytes
_KEPT: Final = 4
#: Of a record in the log: at least, and about.
_RECORD_BYTES: Final = 100
_ENTRY_BYTES: Final = 150
_LAG_CLIENTS: Final = 384
_LAG_PORTION: Final = 4000
_LAG_SECONDS: Final = 60.0
_CATCH_UP_SECONDS: Final = 1800.0
_CLOSE_ENTRIES: Final = 64
_ELECTION_SECONDS: Final = 0.5
_RESTART_SLACK: Final = 0.2
_SEAL_KEY: Final = "seal.key"
_COMPACTIONS: Final = "quorumca_compactions"

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Signing:
    """What clients saw at the two nodes that were there all the time."""

    requests: int
    p50_ms: float  # median of the slices
    p99_ms: float  # median of the slices
    worst_p99_ms: float  # of a slice
    failures: dict[str, int]

    @classmethod
    def of(cls, slices: Sequence[LoadResult]) -> "Signing":
        failures: dict[str, int] = {}
        for one in slices:
            for kind, count in one.failures.items():
                failures[kind] = failures.get(kind, 0) + count
        p99 = [one.p99_ms for one in slices]
        return cls(
            requests=sum(one.requests for one in slices),
            p50_ms=Spread.of([one.p50_ms for one in slices]).median,
            p99_ms=Spread.of(p99).median,
            worst_p99_ms=round(max(p99), 2),
            failures=failures,
        )


@dataclass(frozen=True, slots=True)
class CatchUp:
    """One node that caught up."""

    what: str
    records: int  # on the leader's record when it began
    had_records: int
    seconds: float  # from the start of the process to a vote and no more lag than that of a follower
    rows: int  # copied in bulk; what came after it came as log entries
    copy_seconds: float  # from the offer of a snapshot to the last row
    parts: int
    contact: Contact
    signing: Signing

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.copy_seconds if self.copy_seconds else 0.0


@dataclass(frozen=True, slots=True)
class Restart:
    """kill -9 of a follower, and the time until it answers with proof that it is up to date."""

    records: int
    journal_bytes: int  # commands in the log, which a restart reads and applies again
    seconds: Spread
    cpu_seconds: Spread  # of node and workers: what else runs on the machine counts less


@dataclass(frozen=True, slots=True)
class Result:
    log_bytes: int
    restarts: tuple[Restart, Restart, Restart]  # nothing on record, little, everything
    before: Signing
    catch_ups: tuple[CatchUp, ...]


@dataclass(frozen=True, slots=True)
class _Present:
    """The two that are there while a third one is not."""

    leader: Node
    follower: Node
    records: int

    @classmethod
    def of(cls, cluster: LocalCluster) -> "_Present":
        leader = cluster.leader()
        (follower,) = (node for node in cluster.nodes if node.name != leader.name)
        return cls(leader, follower, cluster.ledger_records())

    @property
    def targets(self) -> list[str]:
        return [self.leader.http, self.follower.http]


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["QUORUMCA_RAFT__COMPACT_BYTES"] = str(options.log_bytes)
    os.environ["QUORUMCA_RAFT__KEEP_BYTES"] = str(options.log_bytes // _KEPT)
    with ExitStack() as stack:
        # Absolute: nodes that are added find each other by the paths in their files.
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="data-", dir=options.out.resolve())))
        origin = describe_origin(data_dir, seed=None)
        result = _measure(data_dir, options.records, options.log_bytes)
    failures = judge(result)
    values = {"origin": asdict(origin), **asdict(result), "failures": failures}
    (options.out / "catchup.json").write_text(json.dumps(values, indent=1) + "\n")
    text = _markdown(origin.began_at, result, failures)
    (options.out / "catchup.md").write_text(text)
    print(text)
    return 1 if failures else 0


def _measure(data_dir: Path, records: int, log_bytes: int) -> Result:
    with running_cluster(data_dir) as cluster:
        csrs = make_csrs(_POOL, cluster.configure())
        empty = _measure_restarts(cluster)
        fill_ledger(cluster, csrs, min(records, log_bytes // _KEPT // _ENTRY_BYTES), _say)
        little = _measure_restarts(cluster)
        fill_ledger(cluster, csrs, records, _say)
        victim = cluster.followers()[0]
        with _left_out(data_dir, victim):
            kill(victim)
            _sign_beyond_the_log(cluster, csrs, log_bytes)
            present = _Present.of(cluster)
        before = Signing.of([_sign(present.targets, csrs) for _ in range(_BASELINE_SLICES)])
        lagging = _catch_up("came back behind the log", cluster, present, victim, csrs)
        cluster.wait_until_alike()
        kill(next(node for node in cluster.nodes if node.name == victim.name))
        _wipe(data_dir / victim.name / "data")
        ClusterFile(data_dir).update(lambda old: [entry for entry in old if entry.name != victim.name])
        present = _Present.of(cluster)
        new = _replace(data_dir, present.leader, victim)
        wiped = _catch_up("disk lost, replaced by a new server", cluster, present, new, csrs)
        full = _measure_restarts(cluster)
    return Result(log_bytes, (empty, little, full), before, (lagging, wiped))


def _say(text: str) -> None:
    print(text, flush=True)


def _measure_restarts(cluster: LocalCluster) -> Restart:
    seconds, cpu, journal_bytes = list[float](), list[float](), 0.0
    for number in range(_RESTARTS):
        cluster.wait_until_alike()
        follower = cluster.followers()[number % 2]
        journal_bytes = max(journal_bytes, follower.metric("quorumca_journal_bytes"))
        kill(follower)
        seconds.append(cluster.restart(follower))
        (again,) = (node for node in cluster.nodes if node.name == follower.name)
        cpu.append(cpu_seconds(process_tree(again.pid)))
    cluster.wait_until_alike()
    restart = Restart(cluster.ledger_records(), int(journal_bytes), Spread.of(seconds), Spread.of(cpu))
    _say(f"restart with {restart.records:,} records: {restart.seconds.text(2)} s, {restart.cpu_seconds.text(2)} s CPU")
    return restart


def _sign_beyond_the_log(cluster: LocalCluster, csrs: Sequence[str], log_bytes: int) -> None:
    """Until the entries that the absent node needs are gone from the leader's log."""
    leader, first = cluster.leader(), cluster.ledger_records()
    # What a compaction leaves in the log must all be newer: only one behind so many records will do.
    least = first + log_bytes // _KEPT // _RECORD_BYTES
    compactions = None
    while compactions is None or leader.metric(_COMPACTIONS) == compactions:
        run_load(sign_plan([leader.http], _LAG_CLIENTS, _LAG_SECONDS, csrs, warmup_seconds=0.0, count=_LAG_PORTION))
        records = cluster.ledger_records()
        _say(f"the absent node lags by {records - first:,} records")
        if compactions is None and records >= least:
            compactions = leader.metric(_COMPACTIONS)


def _catch_up(what: str, cluster: LocalCluster, present: _Present, node: Node, csrs: Sequence[str]) -> CatchUp:
    """Start the node; those that are there all the time are watched until it has what the leader has."""
    leader = present.leader
    done, slices = threading.Event(), list[LoadResult]()

    def sign() -> None:
        while not done.is_set() or not slices:
            slices.append(_sign(present.targets, csrs))

    clients = threading.Thread(target=sign)
    log = cluster.log_of(node)
    log_start = log.stat().st_size if log.exists() else 0
    with watching(leader, present.follower) as watch:
        clients.start()
        try:
            cluster.start(node)
            seconds = watch.until(f"{node.name} to catch up", lambda: _is_close(leader, node), _CATCH_UP_SECONDS)
        finally:
            done.set()
            clients.join()
    wanted, copied = _copy_events(log, log_start)
    result = CatchUp(
        what=what,
        records=present.records,
        had_records=wanted["bulk_position"],
        seconds=round(seconds, 2),
        rows=copied["position"] - wanted["bulk_position"],
        copy_seconds=round((_time(copied) - _time(wanted)).total_seconds(), 2),
        parts=copied["parts"],
        contact=watch.contact(),
        signing=Signing.of(slices),
    )
    _say(f"{what}: {result.seconds:.1f} s, {result.rows:,} rows at {result.rows_per_second:,.0f}/s")
    return result


def _is_close(leader: Node, node: Node) -> bool:
    servers = {server["ID"]: server for server in leader.get("/v1/operator/raft/configuration")["Servers"]}
    own = servers[node.name]
    return bool(own["Voter"] and own["LastIndex"] >= servers[leader.name]["LastIndex"] - _CLOSE_ENTRIES)


def _copy_events(log: Path, start: int) -> tuple[Event, Event]:
    """The first offer and the last copy of this run."""
    with log.open("rb") as file:
        file.seek(start)
        events = [json.loads(line) for line in file if line.startswith(b"{")]
    wanted = [event for event in events if event["event"] == "snapshot.wanted"]
    copied = [event for event in events if event["event"] == "bulk.copied"]
    if not copied:
        raise BenchError(f"{log.name}: caught up without a snapshot: it did not lag beyond the log")
    return wanted[0], copied[-1]


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


def _sign(targets: Sequence[str], csrs: Sequence[str]) -> LoadResult:
    return run_load(
        sign_plan(targets, _CLIENTS, _SLICE_SECONDS, csrs, warmup_seconds=0.0, think_seconds=_THINK_SECONDS)
    )


# -- changing the cluster


@contextmanager
def _left_out(data_dir: Path, node: Node) -> Iterator[None]:
    """Who asks all nodes does not ask this one."""
    file = ClusterFile(data_dir)
    (entry,) = (entry for entry in file.read() if entry.name == node.name)
    file.update(lambda old: [other for other in old if other.name != node.name])
    try:
        yield
    finally:
        file.put(entry)


def _wipe(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _SEAL_KEY:
            path.unlink()


def _replace(data_dir: Path, leader: Node, dead: Node) -> Node:
    """Remove the dead server, and add one under a new name, with an empty directory and not started yet."""
    leader.ask("DELETE", f"/v1/operator/raft/peer?id={dead.name}")
    first, config = load_local(data_dir / "node-1")
    number = next(k for k in range(1, MAX_NODES + 1) if not (data_dir / f"node-{k}").exists())
    new = node_at(data_dir, number, int(first.http.rpartition(":")[2]) - HTTP_PORT)
    founders = [LocalNode(one.name, data_dir / one.name, "", one.rpc, one.raft) for one in config.servers]
    make_node(data_dir, new, founders)
    leader.ask("PUT", "/v1/operator/raft/peer", {"ID": new.name, "Address": new.raft, "RPC": new.rpc})
    # It notes its own process id there once it runs.
    ClusterFile(data_dir).put(new.entry(dead.pid))
    return Node(new.name, dead.pid, new.http, new.raft, str(new.config))


# -- what came of it


def judge(result: Result) -> list[str]:
    """What does not hold, in words."""
    failures = [text for catch_up in result.catch_ups for text in _disturbances(catch_up)]
    _, little, full = (restart.cpu_seconds.median for restart in result.restarts)
    if full > (1 + _RESTART_SLACK) * little:
        failures.append(
            f"a restart costs {full:.2f} s of CPU with the full ledger, and {little:.2f} s with a small one"
        )
    return failures


def _disturbances(catch_up: CatchUp) -> Iterator[str]:
    contact = catch_up.contact
    if len(contact.leaders) != 1 or len(contact.terms) != 1:
        yield f"{catch_up.what}: leaders {contact.leaders} in terms {contact.terms}"
    longest_pump = contact.pump_seconds_after if contact.pump_seconds_after > contact.pump_seconds_before else 0.0
    for what, seconds in (
        ("the leader was silent for", contact.leader_silence_seconds),
        ("the follower was silent for", contact.follower_silence_seconds),
        ("a round of the leader's Raft thread took", longest_pump),
    ):
        if seconds >= _ELECTION_SECONDS:
            yield f"{catch_up.what}: {what} {seconds:.3f} s"
    if catch_up.signing.failures:
        yield f"{catch_up.what}: clients were answered {catch_up.signing.failures}"


def _markdown(began_at: str, result: Result, failures: Sequence[str]) -> str:
    copies = "\n".join(
        f"| {one.what} | {one.had_records:,} of {one.records:,} | {one.seconds:.1f} | {one.rows:,} | {one.parts} |"
        f" {one.rows_per_second:,.0f} |"
        for one in result.catch_ups
    )
    others = "\n".join(
        f"| {one.what} | {one.contact.samples} | {_joined(one.contact.leaders)}, {_joined(one.contact.terms)} |"
        f" {one.contact.leader_silence_seconds:.3f} | {one.contact.follower_silence_seconds:.3f} |"
        f" {one.contact.pump_seconds_before:.3f} / {one.contact.pump_seconds_after:.3f} |"
        for one in result.catch_ups
    )
    clients = "\n".join(
        f"| {what} | {one.requests:,} | {one.p50_ms:.1f} | {one.p99_ms:.1f} | {one.worst_p99_ms:.1f} |"
        f" {one.failures or 'none'} |"
        for what, one in (("before", result.before), *((one.what, one.signing) for one in result.catch_ups))
    )
    restarts = "\n".join(
        f"| {one.records:,} | {one.journal_bytes / 1e6:.1f} | {one.seconds.text(2)} | {one.cpu_seconds.text(2)} |"
        for one in result.restarts
    )
    verdict = "All limits hold." if not failures else "Does not hold: " + "; ".join(failures) + "."
    return (
        "# Catching up with a large ledger\n\n"
        f"{began_at}; three nodes and their clients on one machine, about 150 signatures per second all the while; the"
        f" log is compacted every {result.log_bytes / 1e6:.1f} MB.\n\n"
        "| node | records it had | seconds to a vote without lag | rows copied | parts | rows/s |\n"
        "|---|---|---|---|---|---|\n"
        f"{copies}\n\nThe other two meanwhile. A follower campaigns when it has not heard from the leader for"
        f" {_ELECTION_SECONDS} s or more; the last column is the longest round of the leader's Raft thread since the"
        " leader was started, as of before and after.\n\n"
        "| node | samples | leader, term | longest silence of the leader, s | of the follower, s | round, s |\n"
        "|---|---|---|---|---|---|\n"
        f"{others}\n\nTheir clients, in slices of {_SLICE_SECONDS:.0f} s.\n\n"
        "| while | signed | p50, ms | p99, ms | p99 of the worst slice | other answers |\n"
        "|---|---|---|---|---|---|\n"
        f"{clients}\n\nkill -9 of a follower, to its first answer that is proved to be current. What the log holds is"
        " applied again; its length is bounded, whatever the size of the ledger.\n\n"
        "| certificates on record | log, MB | seconds, median (range) | of CPU |\n|---|---|---|---|\n"
        f"{restarts}\n\n{verdict}\n"
    )


def _joined(values: Sequence[object]) -> str:
    return " and ".join(map(str, values))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catchup", description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=300_000, help="size of the ledger (default: 300000)")
    parser.add_argument(
        "--log-bytes", type=int, default=_LOG_BYTES, help=f"that trigger a compaction (default: {_LOG_BYTES})"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/evidence"), help="default: docs/evidence")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
