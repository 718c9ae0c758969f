"""The long campaign: `python -m tests.fuzz --seconds 600`. Writes JSON evidence; exit status 1 when a rule was broken.

An input that broke a rule is kept in the corpus of its decoder, where the short run finds it again.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.fuzz.campaign import Finding, Result, collect, keep, run, run_corpus
from tests.fuzz.targets import targets

_DEFAULT_EVIDENCE: Final = Path(__file__).parents[2] / "docs/evidence/fuzz.json"
_COLLECT_FROM: Final = 3000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every decoder.")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for all decoders together")
    parser.add_argument("--seed", type=int, default=None, help="default: the time, so that every campaign is another")
    parser.add_argument("--only", action="append", help="a decoder's name; may be given more than once")
    parser.add_argument("--collect", type=int, metavar="N", help="instead: keep N inputs with different outcomes each")
    parser.add_argument("--output", type=Path, default=_DEFAULT_EVIDENCE, help="where the results go, as JSON")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    chosen = {name: target for name, target in targets().items() if not arguments.only or name in arguments.only}
    if not chosen:
        print(f"no such decoder: {arguments.only}, there are {list(targets())}", file=sys.stderr)
        return 2
    if arguments.collect:
        for name, target in chosen.items():
            for data in collect(target, seed, _COLLECT_FROM, arguments.collect):
                keep(name, data, "kept")
        return 0
    results: dict[str, object] = {}
    findings = []
    for name, target in chosen.items():
        try:
            run_corpus(target)
            result = run(target, seed, seconds=arguments.seconds / len(chosen))
        except Finding as finding:
            findings.append(str(finding))
            keep(name, finding.data, "found")
            print(f"{name}: {finding}", file=sys.stderr)
            continue
        results[name] = asdict(result)
        print(_line(name, result), flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(
        json.dumps({"seed": seed, "decoders": results, "findings": findings}, indent=2, sort_keys=True) + "\n"
    )
    return 1 if findings else 0


def _line(name: str, result: Result) -> str:
    return (
        f"{name:16} {result.inputs:9} inputs, {result.accepted} understood, slowest {result.slowest_ms} ms,"
        f" at most {result.largest_kib} KiB"
    )


if __name__ == "__main__":
    sys.exit(main())
