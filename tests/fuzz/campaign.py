"""Runs decoders on changed inputs, and stops at the first that breaks a rule.

Rules: only documented errors come out; an input takes no more CPU time than `_cpu_limit` and no more memory at a time
than `_memory_limit`. Memory is measured on all of the corpus and on each `_MEASURED`-th input: it slows decoding down.

A seed gives the same inputs in the same order, in every process and on every machine, for the same corpus and the same
code, of which the evidence names the commit. A run that ends with its time ends somewhere in this order.
"""

import hashlib
import itertools
import random
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz.targets import Target

CORPUS: Final = Path(__file__).parent / "corpus"
_MEASURED: Final = 20
_KEPT_BYTES: Final = 2048
#: Reasons that are counted apart; what texts of errors hold is not bounded.
_MAX_REASONS: Final = 80
_OTHER_REASONS: Final = "others"


class Finding(AssertionError):
    """An input that broke a rule; the text says how to have it again."""

    def __init__(self, text: str, data: bytes) -> None:
        super().__init__(text)
        self.data = data


@dataclass(slots=True)
class Result:
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    largest_kib: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # by type
    reasons: dict[str, int] = field(default_factory=dict)  # the same refusals by what they say

    @property
    def refused(self) -> int:
        return sum(self.errors.values())

    def count_refusal(self, error: Exception, reason: str) -> None:
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1
        if reason not in self.reasons and len(self.reasons) >= _MAX_REASONS:
            reason = _OTHER_REASONS
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


def corpus_of(name: str) -> list[bytes]:
    """Inputs that broke a rule once, and some that reach far."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]


def run_corpus(target: Target) -> Result:
    result = Result()
    for data in [*target.seeds(), *corpus_of(target.name)]:
        _run(target, data, result, is_measured=True)
    return result


def changed(target: Target, seed: int) -> Iterator[tuple[int, bytes]]:
    """Numbered changed inputs, without end."""
    seeds, kept = target.seeds(), corpus_of(target.name)
    for number in itertools.count(1):
        # One generator for each input: it can be made again by itself.
        yield number, target.mutate(seeds, kept, random.Random(f"{seed}/{number}"))


def run(
    target: Target, seed: int, *, seconds: float = float("inf"), inputs: int | None = None, into: Result | None = None
) -> Result:
    """For so long, or so many. What is counted goes `into` a result, which has it even if a rule is broken.

    Raises: Finding.
    """
    result = Result() if into is None else into
    start = time.monotonic()
    for number, data in itertools.islice(changed(target, seed), inputs):
        try:
            _run(target, data, result, is_measured=number % _MEASURED == 0)
        except Finding as finding:
            where = f"{target.name}, seed {seed}, input {number}"
            raise Finding(f"{where}: {finding}\n{data.hex()}", data) from finding
        finally:
            result.seconds = time.monotonic() - start
        if result.seconds >= seconds:
            break
    return result


def collect(target: Target, seed: int, inputs: int, count: int) -> list[bytes]:
    """The first small inputs of each new outcome: what was understood, or refused for another reason."""
    seeds = target.seeds()
    outcomes: dict[str, bytes] = {}
    for number in range(inputs):
        data = target.mutate(seeds, (), random.Random(f"{seed}/{number}"))
        if len(data) > _KEPT_BYTES or len(outcomes) == count:
            continue
        try:
            outcome = f"understood as {type(target.decode(data)).__name__}"
        except target.errors as error:
            outcome = target.reason(error)
        outcomes.setdefault(outcome, data)
    return list(outcomes.values())


def keep(name: str, data: bytes, reason: str) -> None:
    """Add an input to the corpus of a decoder."""
    path = CORPUS / name / f"{reason}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _run(target: Target, data: bytes, result: Result, *, is_measured: bool) -> None:
    if is_measured:
        tracemalloc.start()
    start = time.process_time()
    try:
        target.decode(data)
        result.accepted += 1
    except target.errors as error:
        result.count_refusal(error, target.reason(error))
    except Exception as error:
        raise Finding(f"raised {error!r}", data) from error
    finally:
        spent = time.process_time() - start
        peak = tracemalloc.get_traced_memory()[1] if is_measured else 0
        if is_measured:
            tracemalloc.stop()
    result.inputs += 1
    result.slowest_ms = max(result.slowest_ms, round(1000 * spent, 1))
    result.largest_kib = max(result.largest_kib, peak >> 10)
    if spent > _cpu_limit(data):
        raise Finding(f"took {spent:.2f} s for {len(data)} bytes", data)
    if peak > _memory_limit(data):
        raise Finding(f"took {peak} bytes of memory for {len(data)} bytes", data)


def _cpu_limit(data: bytes) -> float:
    """Seconds; generous, as other things run on the machine: it is for what grows faster than the input."""
    return 1.0 + 100e-6 * len(data)


def _memory_limit(data: bytes) -> int:
    """msgpack makes room for at most ten thousand elements, however many are announced, at most 1024 levels deep."""
    return (96 << 20) + 200 * len(data)
