"""What must hold once a cluster has healed, whatever was done to it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.linearizability import versions_violation_of, violation_of
from tests.chaos.stage import Stage
from tests.chaos.workload import Record


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one round. `lost` and `duplicates` are serials."""

    lost: Sequence[str] = ()
    duplicates: Sequence[str] = ()
    violations: Sequence[str] = field(default_factory=tuple)


async def judge(stage: Stage, record: Record, acknowledged: Sequence[str]) -> Verdict:
    """`acknowledged`: the serials of all certificates that clients got since the cluster was made.

    Raises: AssertionError when the nodes do not get to the same state.
    """
    digest = await stage.cluster.wait_same_digest(30.0)
    lost: set[str] = set()
    duplicates = set(_repeated(acknowledged))
    violations = [*record.unexpected]
    for node in stage.nodes:
        serials = await stage.serials(node)
        lost |= set(acknowledged) - set(serials)
        duplicates |= set(_repeated(serials))
        if len(serials) != digest["LedgerCount"]:
            violations.append(f"{node.name} lists {len(serials)} certificates, its digest says {digest['LedgerCount']}")
    roots = {
        (answer["TrustDomain"], answer["ActiveRootID"])
        for answer in [await stage.cluster.roots(node) for node in stage.nodes]
    }
    if len(roots) != 1:
        violations.append(f"nodes have different roots: {sorted(roots)}")
    found = violation_of(record.operations, record.initial), versions_violation_of(record.operations)
    violations += [f"the configuration is not linearizable: {text}" for text in found if text is not None]
    violations += [f"acknowledged certificate {serial} is lost" for serial in sorted(lost)]
    violations += [f"serial {serial} was given twice" for serial in sorted(duplicates)]
    return Verdict(sorted(lost), sorted(duplicates), violations)


def _repeated(serials: Iterable[str]) -> list[str]:
    return [serial for serial, count in Counter(serials).items() if count > 1]
