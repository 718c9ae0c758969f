"""From samples to what is reported: percentiles of one run, median and range of several, quantiles of a histogram."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_SAMPLE: Final = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)", re.MULTILINE)
_BOUND: Final = re.compile(r'(?:^|,)le="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Spread:
    """What several runs of one measurement gave."""

    median: float
    low: float
    high: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        rounded = tuple(round(sample, 4) for sample in samples)
        return cls(round(statistics.median(samples), 4), min(rounded), max(rounded), rounded)

    def text(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile of sorted values; 0.0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A Prometheus histogram: cumulative counts by upper bound."""

    buckets: Mapping[float, float]
    sum: float
    count: float

    @classmethod
    def parse(cls, exposition: str, name: str) -> "Histogram":
        """Read one histogram without further labels. Raises: ValueError when it is not there."""
        buckets: dict[float, float] = {}
        totals: dict[str, float] = {}
        for found in _SAMPLE.finditer(exposition):
            if found["name"] == f"{name}_bucket" and (bound := _BOUND.search(found["labels"] or "")):
                buckets[float(bound[1])] = float(found["value"])
            elif found["name"] in (f"{name}_sum", f"{name}_count"):
                totals[found["name"].removeprefix(f"{name}_")] = float(found["value"])
        if not buckets or len(totals) != 2:
            raise ValueError(f"the metrics have no histogram {name}")
        return cls(buckets, totals["sum"], totals["count"])

    def since(self, before: "Histogram") -> "Histogram":
        buckets = {bound: count - before.buckets.get(bound, 0.0) for bound, count in self.buckets.items()}
        return Histogram(buckets, self.sum - before.sum, self.count - before.count)

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    def quantile(self, fraction: float) -> float:
        """Interpolated within its bucket, as Prometheus does; the last finite bound for what lies above it."""
        rank = fraction * self.count
        lower_bound = lower_count = 0.0
        for bound, count in sorted(self.buckets.items()):
            if count >= rank and count > lower_count:
                if math.isinf(bound):
                    return lower_bound
                return lower_bound + (bound - lower_bound) * (rank - lower_count) / (count - lower_count)
            lower_bound, lower_count = bound, count
        return lower_bound if not math.isinf(lower_bound) else 0.0
