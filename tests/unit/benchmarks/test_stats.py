"""Percentiles, spreads and histograms against values worked out by hand."""

import pytest

from benchmarks.stats import Histogram, Spread, percentile

_BEFORE = """\
# HELP quorumca_commit_seconds From proposal to applied entry
# TYPE quorumca_commit_seconds histogram
quorumca_commit_seconds_bucket{le="0.001"} 1.0
quorumca_commit_seconds_bucket{le="0.002"} 1.0
quorumca_commit_seconds_bucket{le="+Inf"} 1.0
quorumca_commit_seconds_count 1.0
quorumca_commit_seconds_sum 0.0005
"""
_AFTER = """\
quorumca_commit_seconds_bucket{le="0.001"} 11.0
quorumca_commit_seconds_bucket{le="0.002"} 91.0
quorumca_commit_seconds_bucket{le="+Inf"} 101.0
quorumca_commit_seconds_count 101.0
quorumca_commit_seconds_sum 0.2005
quorumca_commit_seconds_created 1.7e+09
quorumca_other_commit_seconds_sum 5.0
"""


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_percentile_is_nearest_rank(fraction: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], fraction) == expected


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.5) == 0.0


def test_spread_keeps_every_sample() -> None:
    spread = Spread.of([3.0, 1.0, 2.00001])
    assert spread == Spread(2.0, 1.0, 3.0, (3.0, 1.0, 2.0))
    assert spread.text(1) == "2.0 (1.0–3.0)"


def test_histogram_counts_what_came_between_two_looks() -> None:
    name = "quorumca_commit_seconds"
    between = Histogram.parse(_AFTER, name).since(Histogram.parse(_BEFORE, name))
    assert between.count == 100
    assert between.mean == pytest.approx(0.002)
    # 10 up to 1 ms, 80 more up to 2 ms: the 50th lies halfway between the two bounds.
    assert between.quantile(0.50) == pytest.approx(0.0015)
    assert between.quantile(0.05) == pytest.approx(0.0005)
    # Above the last finite bound nothing more is known.
    assert between.quantile(0.99) == pytest.approx(0.002)


def test_histogram_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no histogram quorumca_absent"):
        Histogram.parse(_AFTER, "quorumca_absent")
