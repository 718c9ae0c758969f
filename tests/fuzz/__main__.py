"""The long campaigns. Exit status 1 when a rule was broken, 2 for bad options.

`python -m tests.fuzz --seconds 600`: all decoders run for the same time, one after the other. `--cases 1000000`: each
gets the same number of inputs, whatever time they take. One file of evidence is written from one run, another one for
each of the two. Runs of some decoders alone (--only) are for looking: they leave no evidence unless --output says
where. An input that broke a rule is kept in the corpus of its decoder, where the short run finds it again.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.origin import Origin, describe_origin
from tests.fuzz.campaign import Finding, Result, collect, keep, run, run_corpus
from tests.fuzz.targets import Target, targets

DEFAULT_EVIDENCE: Final = Path(__file__).parents[2] / "docs/evidence/fuzz.json"
DEFAULT_CASES_EVIDENCE: Final = DEFAULT_EVIDENCE.with_name("cases.json")
_COLLECT_FROM: Final = 3000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every decoder.")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for all decoders together, shared evenly")
    parser.add_argument("--cases", type=int, metavar="N", help="instead: so many inputs, for all decoders together")
    parser.add_argument("--seed", type=int, default=None, help="default: the time, so that every campaign is another")
    parser.add_argument("--only", action="append", help="a decoder's name; may be given more than once")
    parser.add_argument("--collect", type=int, metavar="N", help="instead: keep N inputs with different outcomes each")
    parser.add_argument("--output", type=Path, help="where the results go (default: docs/evidence, when all have run)")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    chosen = {name: target for name, target in targets().items() if not arguments.only or name in arguments.only}
    if not chosen:
        print(f"no such decoder: {arguments.only}, there are {list(targets())}", file=sys.stderr)
        return 2
    # `cryptography` warns of names that are too long; what it does about them is what is looked at here.
    warnings.filterwarnings("ignore", "Attribute's length")
    if arguments.collect:
        for name, target in chosen.items():
            for data in collect(target, seed, _COLLECT_FROM, arguments.collect):
                keep(name, data, "kept")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        origin = describe_origin(Path(directory), seed)
    inputs = None if arguments.cases is None else -(-arguments.cases // len(chosen))
    seconds = arguments.seconds / len(chosen) if inputs is None else float("inf")
    share = f"{seconds:g} s" if inputs is None else f"{inputs} inputs"
    print(f"seed {seed}, {share} for each of {len(chosen)} decoders", flush=True)
    results: dict[str, Result] = {}
    findings: list[str] = []
    for name, target in chosen.items():
        results[name] = Result()
        findings += _fuzzed(target, seed, seconds, inputs, results[name])
        print(_line(name, results[name]), flush=True)
    default = DEFAULT_EVIDENCE if inputs is None else DEFAULT_CASES_EVIDENCE
    output = arguments.output or (None if arguments.only else default)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(evidence_of(origin, results, findings), indent=1) + "\n")
    return 1 if findings else 0


def _fuzzed(target: Target, seed: int, seconds: float, inputs: int | None, result: Result) -> list[str]:
    """What was found: the first input that broke a rule, if one did."""
    try:
        run_corpus(target)
        run(target, seed, seconds=seconds, inputs=inputs, into=result)
    except Finding as finding:
        keep(target.name, finding.data, "found")
        print(f"{target.name}: {finding}", file=sys.stderr)
        return [str(finding)]
    finally:
        target.close()
    return []


def evidence_of(origin: Origin, results: Mapping[str, Result], findings: list[str]) -> dict[str, Any]:
    decoders = {
        name: asdict(result) | {"reasons": dict(sorted(result.reasons.items(), key=lambda item: (-item[1], item[0])))}
        for name, result in results.items()
    }
    return {"origin": asdict(origin), "decoders": decoders, "findings": findings}


def _line(name: str, result: Result) -> str:
    return (
        f"{name:16} {result.inputs:9} inputs, {result.accepted} understood, refused for {len(result.reasons)} reasons,"
        f" slowest {result.slowest_ms} ms, at most {result.largest_kib} KiB"
    )


if __name__ == "__main__":
    sys.exit(main())
