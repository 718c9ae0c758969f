"""What access control costs a signature: `python -m benchmarks.acl`, and a part of `make bench`.

Two clusters run side by side, and are measured in turn, each right after the other: one where everybody may do
everything, and one where nothing is allowed by default, with 1,000 tokens, each of a service of its own, and each
client signing as one of these services with its token. Which of the two comes first changes with every round, so that
what the machine does meanwhile touches both alike; the ratio of each round is what counts.

Alone it writes `acl.json` into --out, and prints the same.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.csrs import make_csrs
from benchmarks.load import LoadPlan, LoadResult, run_load, sign_plan
from benchmarks.nodes import LocalCluster, Settings, cpu_seconds, process_tree, running_cluster
from benchmarks.origin import describe_origin
from benchmarks.results import FOLLOWER, LEADER, AclPath, AclRound, WithAcls

TOKENS: Final = 1000
CLIENTS: Final = 64
_PATHS: Final = (LEADER, FOLLOWER)
_DENY: Final[Settings] = {"acl": {"default_policy": "deny"}}
#: Connections that make tokens.
_MAKERS: Final = 8


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two clusters, and what its clients send."""

    cluster: LocalCluster
    csrs: Sequence[str]
    tokens: Sequence[str]

    def plan(self, path: str, seconds: float) -> LoadPlan:
        node = self.cluster.leader() if path == LEADER else self.cluster.followers()[0]
        return sign_plan([node.http], CLIENTS, seconds, self.csrs, is_own=True, tokens=self.tokens)

    def measure(self, path: str, seconds: float) -> tuple[LoadResult, float]:
        """And microseconds of processor time, of all nodes together, for each signature."""
        plan = self.plan(path, seconds)
        trees = [process for node in self.cluster.nodes for process in process_tree(node.pid)]
        before = cpu_seconds(trees)
        load = run_load(plan)
        return load, 1e6 * (cpu_seconds(trees) - before) / max(1, load.successes)


def measure_with_acls(directory: Path, rounds: int, seconds: float, say: Callable[[str], None] = print) -> WithAcls:
    """Raises: BenchError."""
    with ExitStack() as stack:
        made = []
        for name, settings in (("open", None), ("guarded", _DENY)):
            (directory / name).mkdir(parents=True)
            made.append(stack.enter_context(running_cluster(directory / name, settings)))
        everybody, guarded = made
        guarded.bootstrap()
        say(f"making {TOKENS:,} tokens ...")
        tokens = _make_tokens(guarded)
        sides = (
            _Side(everybody, make_csrs(CLIENTS, everybody.configure()), ()),
            _Side(guarded, make_csrs(CLIENTS, guarded.configure()), tokens[:CLIENTS]),
        )
        return WithAcls(TOKENS, tuple(_measure_path(path, sides, rounds, seconds, say) for path in _PATHS))


def _measure_path(
    path: str, sides: tuple[_Side, _Side], rounds: int, seconds: float, say: Callable[[str], None]
) -> AclPath:
    found: list[AclRound] = []
    failures: Counter[str] = Counter()
    for number in range(rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        measured = {side: sides[side].measure(path, seconds) for side in order}
        for load, _ in measured.values():
            failures.update(load.failures)
        (without, open_us), (rated, guarded_us) = measured[0], measured[1]
        one = AclRound(*(round(value, 1) for value in (without.rate, rated.rate, open_us, guarded_us)))
        found.append(one)
        say(
            f"access control, {path:8} {CLIENTS} clients: {one.open_rate:7,.0f}/s without, {one.guarded_rate:7,.0f}/s"
            f" with, {one.guarded_rate / one.open_rate:.3f} of it; {open_us:,.0f} and {guarded_us:,.0f} us of CPU each"
        )
    return AclPath(path, CLIENTS, tuple(found), dict(failures))


def _make_tokens(cluster: LocalCluster) -> list[str]:
    """SecretIDs, the k-th of the service svc-k."""
    leader = cluster.leader()

    def make(number: int) -> str:
        body = {"ServiceIdentities": [{"ServiceName": f"svc-{number}"}]}
        secret_id: str = json.loads(leader.ask("PUT", "/v1/acl/token", body))["SecretID"]
        return secret_id

    with ThreadPoolExecutor(_MAKERS) as makers:
        return [*makers.map(make, range(TOKENS))]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.acl", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6, help="of both clusters (default: 6)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement (default: 4)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data-", dir=options.out) as data_dir:
        origin = describe_origin(Path(data_dir), seed=None)
        found = measure_with_acls(Path(data_dir), options.rounds, options.seconds, lambda text: print(text, flush=True))
    text = json.dumps({"origin": asdict(origin), **asdict(found)}, indent=1)
    (options.out / "acl.json").write_text(text + "\n")
    for path in found.paths:
        print(f"{path.path}: {path.ratio.text(3)} of the rate without; CPU {path.cpu_ratio.text(3)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
