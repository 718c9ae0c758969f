"""One page over everything that was proved and measured: `python -m benchmarks.evidence`.

Reads what the campaigns left in docs/evidence/ and writes docs/evidence/README.md. A campaign that has not been run is
listed as that. The exit code is 1 if any of them found a violation.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.origin import code_text

DIRECTORY: Final = Path("docs/evidence")
_NOT_RECORDED: Final = "not recorded"

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign; `say` puts its document into a sentence, `violations` counts what it found against the product.

    `table` is for one that leaves no page of its own.
    """

    name: str
    file: str
    command: str
    say: Callable[[Any], str]
    violations: Callable[[Any], int]
    table: Callable[[Any], str] | None = None


def _crash_points(found: Document) -> str:
    points = found["crash_points"]
    return (
        f"{points['crash_points']} crash points of the standard workload, {points['images']:,} disk images"
        f" ({points['different_restarts']:,} different restarts): acknowledged entries, votes and what is served hold"
    )


def _crash_table(found: Document) -> str:
    phases = found["crash_points"]["images_by_phase"]
    ends: dict[str, list[str]] = {}
    for file, outcomes in found["damage"]["files"].items():
        for outcome, count in outcomes.items():
            ends.setdefault(outcome, []).append(f"{file}: {count:,}")
    return (
        _table(("power cut during", "disk images"), ((phase, f"{count:,}") for phase, count in phases.items()))
        + "\n"
        + _table(
            ("one byte damaged, and then", "bytes, by file"), ((end, ", ".join(files)) for end, files in ends.items())
        )
    )


def _simulation(found: Document) -> str:
    return f"{found['seeds']:,} simulated clusters from seed {found['first_seed']}, {len(found['failures'])} failed"


def _chaos(found: Document) -> str:
    return (
        f"{found['rounds']} rounds of {len(found['faults'])} kinds of faults, seed {found['seed']}:"
        f" {found['acknowledged_certificates']:,} certificates acknowledged, {len(found['lost'])} lost,"
        f" {len(found['duplicates'])} twice; {found['register_operations']:,} operations on the configuration,"
        f" {len(found['violations'])} violations"
    )


def _revocation(found: Document) -> str:
    return (
        f"{found['rounds']} rounds, {found['leader_kills']} kills of the leader: given out for at most"
        f" {found['with_kill']['max_seconds']:.2f} s after a revocation, {found['without_kill']['max_seconds']:.2f} s"
        f" where nobody was killed; {len(found['violations'])} violations"
    )


def _chaos_table(found: Document) -> str:
    rows = (
        (
            fault.replace("_", " "),
            str(one["rounds"]),
            f"{one['acknowledged_certificates']:,}",
            f"{one['register_operations']:,}",
            f"{one['max_gap_seconds']:.2f}",
            str(one["violated"]),
        )
        for fault, one in found["faults"].items()
    )
    heads = ("fault", "rounds", "certificates", "operations on the configuration", "longest pause s", "violations")
    return _table(heads, rows)


def _fuzz(found: Document) -> str:
    decoders = found["decoders"].values()
    inputs = sum(decoder["inputs"] for decoder in decoders)
    understood = sum(decoder["accepted"] for decoder in decoders)
    return (
        f"{len(decoders)} decoders, {inputs:,} changed inputs, of which {understood:,} were understood and the rest"
        f" refused; {len(found['findings'])} findings"
    )


def _fuzz_table(found: Document) -> str:
    rows = (
        (
            name,
            f"{one['inputs']:,}",
            f"{one['accepted']:,}",
            f"{sum(one['errors'].values()):,}",
            f"{len(one.get('reasons', ())) or _NOT_RECORDED}",
            f"{one['seconds']:.0f}",
            f"{one['slowest_ms']:.1f}",
            f"{one['largest_kib']}",
        )
        for name, one in found["decoders"].items()
    )
    return _table(
        ("decoder", "inputs", "understood", "refused", "reasons", "seconds", "slowest ms", "most memory KiB"), rows
    )


def _bugs(found: Document | list[Document]) -> list[Document]:
    """A list alone is what was written before evidence named its origin."""
    return found if isinstance(found, list) else found["bugs"]


def _seeded(found: Document | list[Document]) -> str:
    bugs = _bugs(found)
    return f"{sum(bug['is_caught'] for bug in bugs)} of {len(bugs)} protections noticed when they are taken away"


def _kills(found: Document) -> str:
    return "; ".join(
        f"{level['records']:,} certificates on record: {level['rounds']} kills, median {level['median_seconds']:.2f} s,"
        f" longest {level['max_seconds']:.2f} s to the next signature"
        for level in found["levels"]
    )


def _soak(found: Document) -> str:
    return (
        f"{found['seconds'] // 60} minutes, {len(found['kills_at_seconds'])} kills of the leader,"
        f" {found['load']['requests']:,} certificates: {'flat' if not found['failures'] else found['failures']}"
    )


def _catch_up(found: Document) -> str:
    return "; ".join(
        f"{one['what']}: {one['rows']:,} certificates in {one['copy_seconds']:.0f} s,"
        f" {len(one['contact']['leaders']) - 1} changes of leader"
        for one in found["catch_ups"]
    )


def _flood(found: Document) -> str:
    return (
        f"{found['held']:,} idle or trickling connections, {found['refused']:,} refused requests: honest clients"
        f" keep {found['kept']:.0%} of their rate, {sum(found['beside']['failures'].values())} of their"
        f" {found['beside']['requests']:,} requests failed, the node that grew most by {found['grown_mb']:.0f} MB"
    )


def _continuity(found: Document) -> str:
    handshakes = found["handshakes"]
    return (
        f"{found['rotations']['total']} rotations, {found['leader_kills']['total']} kills of the leader meanwhile;"
        f" {handshakes['total']:,} handshakes, {handshakes['failed']} failed; {found['violations']} chains refused"
    )


def _continuity_with_vault(found: Document) -> str:
    forced = found["forced"]
    return (
        f"between the built-in provider and OpenBao {found['vault']}: {_continuity(found)}; moves by force broke trust"
        f" {forced['outside_of_the_windows']} times outside of the time reported for it"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _count(key: str) -> Callable[[Document], int]:
    return lambda found: len(found[key])


CAMPAIGNS: Final = (
    Campaign("Crash points", "crash-points.json", "make crash-points", _crash_points, lambda _: 0, _crash_table),
    Campaign("Simulation", "simulation.json", "make sim SEEDS=20000", _simulation, _count("failures")),
    Campaign(
        "Seeded bugs",
        "seeded-bugs.json",
        "make seed-bugs",
        _seeded,
        lambda found: sum(not bug["is_caught"] for bug in _bugs(found)),
    ),
    Campaign("Fuzzing", "fuzz.json", "make fuzz SECONDS=2400", _fuzz, _count("findings"), _fuzz_table),
    Campaign("No bytes end a process", "cases.json", "make cases", _fuzz, _count("findings"), _fuzz_table),
    Campaign("Chaos", "chaos.json", "make chaos ROUNDS=50", _chaos, _count("violations"), _chaos_table),
    Campaign("Revocation", "revocation.json", "make revocation", _revocation, _count("violations")),
    Campaign("Leader kills", "kills.json", "make kills", _kills, _count("failures")),
    Campaign("Soak", "soak.json", "make soak", _soak, _count("failures")),
    Campaign("Catching up", "catchup.json", "make catchup", _catch_up, _count("failures")),
    Campaign("Flood", "flood.json", "make flood", _flood, _count("failures")),
    Campaign(
        "Trust continuity",
        "continuity.json",
        "make continuity",
        _continuity,
        lambda found: found["handshakes"]["failed"] + found["violations"],
    ),
    Campaign(
        "Trust continuity between providers",
        "continuity-vault.json",
        "make continuity-vault",
        _continuity_with_vault,
        lambda found: (
            found["handshakes"]["failed"]
            + found["violations"]
            + found["forced"]["outside_of_the_windows"]
            + found["forced"]["other_violations"]
        ),
    ),
)

_HEAD: Final = """# Evidence

What the campaigns found, as their commands left it, each in one run. The JSON beside each page has the counts, and
under `origin` the command, the seed, the machine, the versions, the commit, and whether the files were those of the
commit (clean) or not (changed). What a campaign draws follows from its seed: `make` takes it as `SEED=`, and as
`FIRST=` for the simulation. `make evidence` runs those that have no results here and writes this page; with `FRESH=1`
it runs all of them again.

| campaign | command | seed | commit, files | result |
|---|---|---|---|---|
"""


def _origin_cells(found: Any) -> tuple[str, str]:
    """Seed and commit."""
    origin = found.get("origin") if isinstance(found, dict) else None
    if origin is None:
        return _NOT_RECORDED, _NOT_RECORDED
    seed = "" if origin["seed"] is None else str(origin["seed"])
    return seed, code_text(origin["commit"], origin["tree_clean"])


def main() -> int:
    lines, tables, violations = [], [], 0
    for campaign in CAMPAIGNS:
        path = DIRECTORY / campaign.file
        if not path.exists():
            lines.append(f"| {campaign.name} | `{campaign.command}` | | | not run yet |")
            continue
        found = json.loads(path.read_text())
        violations += campaign.violations(found)
        page = path.with_suffix(".md")
        name = f"[{campaign.name}]({page.name if page.exists() else path.name})"
        seed, commit = _origin_cells(found)
        lines.append(f"| {name} | `{campaign.command}` | {seed} | {commit} | {campaign.say(found)} |")
        if campaign.table is not None:
            tables.append(f"\n## {campaign.name}\n\n{campaign.table(found)}")
    page_text = _HEAD + "\n".join(lines) + "\n" + "".join(tables)
    (DIRECTORY / "README.md").write_text(page_text)
    print(page_text)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
