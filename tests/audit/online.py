"""pip-audit, and what it says: it counts packages that its service does not know as good, which is not what we want."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: For all of it; there are less than a hundred packages, each of which is one short question.
_SECONDS: Final = 60.0
_ONE_ANSWER_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Online:
    """`unasked` says why nothing is known of some, or of all; empty: it is known of all."""

    asked: int
    findings: tuple[str, ...]
    unasked: str


def ask(files: Sequence[Path]) -> Online:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off"]
    command += ["--timeout", str(_ONE_ANSWER_SECONDS), "--format", "json"]
    for file in files:
        command += ["--requirement", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Online(0, (), f"no answer within {_SECONDS:g} s")
    return understood(done.stdout, done.stderr)


def understood(output: str, errors: str) -> Online:
    """What pip-audit has printed. Without JSON it could not do its work: the last line says why."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = errors.strip().splitlines() or ["it printed nothing"]
        return Online(0, (), lines[-1][:160])
    skipped = [one for one in dependencies if "skip_reason" in one]
    findings = [
        f"{one['name']} {one['version']}: {', '.join((found['id'], *found.get('aliases', ())))}"
        + (f"; mended in {', '.join(found['fix_versions'])}" if found.get("fix_versions") else "")
        for one in dependencies
        for found in one.get("vulns", ())
    ]
    unasked = f"{len(skipped)} not known there, such as {skipped[0]['name']}" if skipped else ""
    return Online(len(dependencies) - len(skipped), tuple(findings), unasked)
