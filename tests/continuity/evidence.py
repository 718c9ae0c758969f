"""What a campaign leaves behind: a JSON document, and beside it a page for people."""

import json
import os
import ssl
import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.origin import Origin, code_text
from tests.continuity.campaign import Outcome
from tests.continuity.rotations import Rotation, pairs_of
from tests.continuity.service import Trust

_MOST_SHOWN: Final = 20
_WIDTH: Final = 120


def evidence_of(
    outcome: Outcome, origin: Origin, forced: Outcome | None = None, apart: Mapping[str, Outcome] | None = None
) -> dict[str, Any]:
    """`forced`: what was run apart, without cross-signing. `apart`: other runs, each in a cluster of its own."""
    plan, tally, rotations = outcome.plan, outcome.tally, outcome.rotations
    direct = [rotation for rotation in rotations if not rotation.is_staged]
    seconds = [rotation.seconds for rotation in direct or rotations]
    return {
        "origin": asdict(origin),
        "vault": outcome.vault,
        "goals": [str(goal) for goal in plan.goals],
        "seed": plan.seed,
        "seconds": outcome.seconds,
        "services": plan.services,
        "leaf_ttl_seconds": plan.leaf_ttl_seconds,
        "rotations": {
            "total": len(rotations),
            "by_way": dict(Counter(_way(rotation) for rotation in rotations)),
            "by_pair": pairs_of(rotations),
            "most_in_one_leaf_lifetime": outcome.most_in_one_lifetime,
            "most_roots_listed": outcome.most_listed,
            "median_seconds": statistics.median(seconds),
            "max_seconds": max(seconds),
            "refused_as_not_possible_yet": sum(bool(rotation.refused) for rotation in rotations),
            "waited_seconds": round(sum(rotation.waited for rotation in rotations), 1),
            "answers": dict(sorted(Counter(text for rotation in rotations for text in rotation.answers).items())),
        },
        "leader_kills": {
            "total": outcome.kills,
            "by_phase": dict(Counter(rotation.killed_in for rotation in rotations if rotation.killed_in)),
        },
        "handshakes": {
            "total": tally.total,
            "by_stack": dict(tally.handshakes),
            "verifiers_by_trust": {Trust[name].value: count for name, count in sorted(tally.verifiers.items())},
            "pinned_verifiers": sum(count for name, count in tally.verifiers.items() if Trust[name].is_pinned),
            "verifiers_without_the_leafs_own_root": tally.by_cross_signed,
            "failed": len(tally.failures),
        },
        "not_tried": {
            "pinned_to_a_root_that_came_after_the_leaf": tally.not_promised,
            "leaf_expired": tally.expired,
        },
        "bundles_fetched_because_no_root_was_listed_any_more": tally.refreshed_first,
        "chains_verified": outcome.verified,
        "longest_path": outcome.longest_path,
        "violations": len(tally.violations),
        "leaves": {
            "of_the_mesh": dict(tally.renewed),
            "of_the_load": outcome.signed_by_load,
            "answers_to_the_load": outcome.load_answers,
            "on_record_on_every_node": outcome.digest.get("LedgerCount"),
        },
        "failures": [*tally.failures, *tally.violations][:_MOST_SHOWN],
        "forced": None if forced is None else _forced(forced),
        "apart": {name: _apart(run) for name, run in (apart or {}).items()},
        "ssl": ssl.OPENSSL_VERSION,
        "go": outcome.go,
        "load_average": round(os.getloadavg()[2], 1),  # of the last 15 minutes
        "rotations_in_order": [asdict(rotation) for rotation in rotations],
    }


def _way(rotation: Rotation) -> str:
    return f"{rotation.way}, staged" if rotation.is_staged else rotation.way


def _apart(outcome: Outcome) -> dict[str, Any]:
    tally = outcome.tally
    return {
        "seed": outcome.plan.seed,
        "leaf_ttl_seconds": outcome.plan.leaf_ttl_seconds,
        "clocks_ahead_seconds": list(outcome.plan.offsets),
        "moves": [f"{rotation.before} -> {rotation.after}" for rotation in outcome.rotations],
        "handshakes": tally.total,
        "failed": len(tally.failures),
        "chains_verified": outcome.verified,
        "bundles_fetched_because_trust_was_broken": tally.refreshed_first,
        "violations": len(tally.violations),
        "failures": [*tally.failures, *tally.violations][:_MOST_SHOWN],
    }


def _forced(outcome: Outcome) -> dict[str, Any]:
    tally = outcome.tally
    return {
        "seed": outcome.plan.seed,
        "leaf_ttl_seconds": outcome.plan.leaf_ttl_seconds,
        "moves": pairs_of(outcome.rotations),
        "windows_seconds": [round(rotation.may_fail_until - rotation.began_at, 1) for rotation in outcome.rotations],
        "handshakes": tally.total,
        "failed_in_the_windows": len(tally.failures),
        "chains_rejected_in_the_windows": len(tally.rejected_at),
        "outside_of_the_windows": outcome.outside_of_windows,
        "other_violations": len(tally.violations) - len(tally.rejected_at),
    }


def write_evidence(path: Path, evidence: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evidence, indent=2) + "\n", encoding="ascii")
    path.with_suffix(".md").write_text(page_of(evidence, path.name), encoding="utf-8")


def page_of(evidence: dict[str, Any], source: str) -> str:
    rotations, handshakes, origin = evidence["rotations"], evidence["handshakes"], evidence["origin"]
    machine = origin["machine"]
    kills, not_tried, leaves = evidence["leader_kills"], evidence["not_tried"], evidence["leaves"]
    facts = {
        "rotations": f"{rotations['total']} ({_counts(rotations['by_way'])})",
        "with the leader killed in the middle": f"{kills['total']} ({_counts(kills['by_phase'])})",
        "most rotations within one leaf lifetime": rotations["most_in_one_leaf_lifetime"],
        "most roots listed at once": rotations["most_roots_listed"],
        "**handshakes**": f"**{handshakes['total']}** ({_counts(handshakes['by_stack'])})",
        "verifiers in them that trust one root alone": handshakes["pinned_verifiers"],
        "verifiers in them that do not have the leaf's own root": handshakes["verifiers_without_the_leafs_own_root"],
        "**failed handshakes**": f"**{handshakes['failed']}**",
        "chains verified with one listed root alone": _counts(evidence["chains_verified"]),
        "longest path, leaf and root counted": evidence["longest_path"],
        "**chains rejected, other violations**": f"**{evidence['violations']}**",
        "rotations refused as not possible yet, and asked for again": (
            f"{rotations['refused_as_not_possible_yet']} ({rotations['waited_seconds']} s waited)"
        ),
        "answers to rotations": _counts(rotations["answers"]),
        "leaves for the mesh": _counts(leaves["of_the_mesh"]),
        "leaves for the load, answers": f"{leaves['of_the_load']} ({_counts(leaves['answers_to_the_load'])})",
        "certificates on record, the same on every node": leaves["on_record_on_every_node"],
        "seconds of a rotation, median and longest": f"{rotations['median_seconds']}, {rotations['max_seconds']}",
        "seconds of all": evidence["seconds"],
    }
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# Trust continuity between providers" if evidence["vault"] else "# Trust continuity",
        "",
        _paragraph(
            f"Written by `make {'continuity-vault' if evidence['vault'] else 'continuity'}`; every number is in"
            f" [{source}]({source}). {evidence['services']} services"
            " talk to each other over mutual TLS 1.3, renew leaves and refresh bundles at random, some of them pinned"
            " to one root, while the root is rotated through any node, certificates are signed, and leaders are killed."
        ),
        "",
        *(_vault_lines(evidence["vault"]) if evidence["vault"] else ()),
        "| what | result |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "## Every move" if evidence["vault"] else "## Every order of key types",
        "",
        *_table(rotations["by_pair"], evidence["goals"]),
        "",
        "## What counts",
        "",
        _paragraph(
            "A handshake is tried whenever both leaves are valid and each verifier trusts a listed root that is the"
            " leaf's own or came before it; then it must succeed in both directions. Every whole bundle is good for"
            " every valid leaf in that sense, else that is a violation. Not tried:"
            f" {not_tried['pinned_to_a_root_that_came_after_the_leaf']} times a service was pinned to a root that came"
            " after its peer's leaf, for which only the leaf's own root, still listed, can vouch; and"
            f" {not_tried['leaf_expired']} times a leaf had expired."
            f" {evidence['bundles_fetched_because_no_root_was_listed_any_more']} times none of a service's roots was"
            " listed any more, so it had to ask before it connected."
        ),
        "",
        _paragraph(
            "With `ForceWithoutCrossSigning` the same harness counts failed handshakes"
            " (`tests/continuity/test_continuity.py`)."
        ),
        *(_forced_lines(evidence["forced"]) if evidence["forced"] else ()),
        *(line for name, run in evidence.get("apart", {}).items() for line in _apart_lines(name, run)),
        "",
        "## Where",
        "",
        _paragraph(
            f"Seed {evidence['seed']}, leaves of {evidence['leaf_ttl_seconds']} s. {machine['cpu']},"
            f" {machine['cores']} cores, {machine['memory_gb']} GB, {machine['kernel']};"
            f" {evidence['load_average']} programs wanted a core at a time, these included."
            f" {versions}{_server(evidence['vault'])}; handshakes"
            f" by {evidence['ssl']}; {evidence['go']}; commit"
            f" {code_text(origin['commit'], origin['tree_clean'])}."
        ),
    ]
    if evidence["failures"]:
        lines += ["", "## Failures", "", *(f"* {text}" for text in evidence["failures"])]
    return "\n".join(lines) + "\n"


def _server(vault: str) -> str:
    return f", OpenBao {vault}" if vault else ""


def _vault_lines(vault: str) -> list[str]:
    text = (
        f"The keys of the CA go from the cluster into OpenBao {vault} and back, and from one path of it to another;"
        " each time to a new root, EC or RSA. A rotation within one place of Vault is a change of `RootPKIPath`."
    )
    return [_paragraph(text), ""]


def _forced_lines(forced: dict[str, Any]) -> list[str]:
    windows = " and ".join(f"{seconds} s" for seconds in forced["windows_seconds"])
    text = (
        f"Run apart, leaves of {forced['leaf_ttl_seconds']} s, seed {forced['seed']}: {' and '.join(forced['moves'])},"
        f" each watched to the end of the {windows} for which it was reported that clients may fail"
        f" (`ClientsMayFailUntil`), and further. In these windows {forced['failed_in_the_windows']} of"
        f" {forced['handshakes']} handshakes failed, of clients that had not fetched the roots since, most of them"
        f" pinned to one root by intent, and {forced['chains_rejected_in_the_windows']} times a chain was rejected."
        f" **Outside of them: {forced['outside_of_the_windows']}**; other violations: {forced['other_violations']}."
    )
    return ["", "## Forced", "", _paragraph(text)]


def _apart_lines(name: str, run: dict[str, Any]) -> list[str]:
    text = (
        f"Run apart, leaves of {run['leaf_ttl_seconds']} s, seed {run['seed']}, clocks ahead by"
        f" {', '.join(map(str, run['clocks_ahead_seconds']))} s: {'; '.join(run['moves'])}. Of {run['handshakes']}"
        f" handshakes that were promised **{run['failed']} failed**; violations: {run['violations']}; chains verified:"
        f" {_counts(run['chains_verified'])}."
    )
    return ["", f"## {name}", "", _paragraph(text)]


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _counts(found: dict[Any, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in found.items())


def _table(pairs: dict[str, int], goals: list[str]) -> list[str]:
    return [
        f"| from, to | {' | '.join(goals)} |",
        f"|---|{'---|' * len(goals)}",
        *(f"| {one} | {' | '.join(str(pairs.get(f'{one} -> {other}', 0)) for other in goals)} |" for one in goals),
    ]
