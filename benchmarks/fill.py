"""Bring the ledger to a given size, through the API, as any client would."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.load import run_load, sign_plan
from benchmarks.nodes import BenchError, LocalCluster

_CLIENTS: Final = 384
_PORTION: Final = 20_000
_PORTION_SECONDS: Final = 300.0


def fill_ledger(cluster: LocalCluster, csrs: Sequence[str], records: int, say: Callable[[str], None]) -> None:
    """Raises: BenchError when signing fails altogether."""
    started, first = time.monotonic(), cluster.ledger_records()
    while (present := cluster.ledger_records()) < records:
        portion = min(_PORTION, records - present)
        plan = sign_plan([cluster.leader().http], _CLIENTS, _PORTION_SECONDS, csrs, warmup_seconds=0.0, count=portion)
        result = run_load(plan)
        if not result.requests:
            raise BenchError(f"filling the ledger: nothing was signed; answers: {result.failures}")
        now = cluster.ledger_records()
        rate = (now - first) / (time.monotonic() - started)
        say(f"ledger: {now:,} of {records:,} records, {rate:,.0f}/s")
    cluster.wait_until_alike()
