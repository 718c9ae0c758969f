"""`python -m tests.audit`: 1 where a package of a lock file has a known vulnerability.

pip-audit asks PyPI. Where it cannot be reached, or knows nothing, the advisories that are kept here count, of the day
that is printed: no network is no failure, and never silent.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.audit import advisories, online

_PROJECT: Final = Path(__file__).parents[2]
#: requirements.lock is a part of the second.
LOCKS: Final = tuple(_PROJECT / name for name in ("requirements-build.lock", "requirements-dev.lock"))
_WORDS: Final = re.compile(r"[\w-]+")
#: Identifier of an advisory to the reason why it does not matter here. Whoever adds one says until when.
ACCEPTED: Final[Mapping[str, str]] = {}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument("--refresh", metavar="CHECKOUT", type=Path, help="take newer advisories from a git repository")
    args = parser.parse_args(argv)
    if find_spec("pip_audit") is None:
        print("pip-audit is not installed: it is in requirements-dev.lock")
        return 2
    pins = advisories.pins_of(LOCKS)
    if args.refresh is not None:
        kept = advisories.refresh(args.refresh, pins)
        print(f"{advisories.KEPT.name} has the advisories of {kept.date} now")
    return audit(LOCKS, pins)


def audit(locks: Sequence[Path], pins: Mapping[str, str]) -> int:
    answer = _asked(locks, pins)
    findings = list(answer.findings)
    if answer.asked:
        print(f"pip-audit: {answer.asked} packages, PyPI's advisories of {datetime.now(UTC):%Y-%m-%d}")
    if answer.unasked:
        kept = advisories.load()
        print(f"pip-audit could not ask PyPI about all packages: {answer.unasked}")
        print(f"{len(pins)} packages, advisories of {kept.date} (tests/audit/advisories.json)")
        if unknown := kept.unknown(pins):
            print(f"nothing is kept about {', '.join(unknown)}: python -m tests.audit --refresh CHECKOUT")
        findings += kept.findings(pins)
    findings = [found for found in dict.fromkeys(findings) if not ACCEPTED.keys() & set(_WORDS.findall(found))]
    for found in findings:
        print(f"VULNERABLE {found}")
    return 1 if findings else 0


def _asked(locks: Sequence[Path], pins: Mapping[str, str]) -> online.Online:
    """About one package first: where there is no answer, there is none to the others, and nobody has to wait for it."""
    name = "cryptography" if "cryptography" in pins else min(pins)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "one.txt"
        file.write_text(f"{name}=={pins[name]}\n", encoding="utf-8")
        first = online.ask([file])
    return first if first.unasked else online.ask(locks)


if __name__ == "__main__":
    sys.exit(main())
