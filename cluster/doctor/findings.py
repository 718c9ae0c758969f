"""What a check has found: values, their order, and what they come to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """The worst first."""

    CRITICAL = 0  # the CA is down, or what it stands on is lost or about to be
    WARNING = 1  # it works, and will not if nothing is done
    NOTE = 2  # worth knowing; nothing is wrong

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable, for scripts. `subject` is a node, an address or a file."""

    severity: Severity
    code: str
    subject: str
    what: str
    why: str  # it matters
    next: str  # what to do: a command where there is one


def critical(code: str, subject: object, what: str, why: str, then: str) -> Finding:
    return Finding(Severity.CRITICAL, code, str(subject), what, why, then)


def warning(code: str, subject: object, what: str, why: str, then: str) -> Finding:
    return Finding(Severity.WARNING, code, str(subject), what, why, then)


def note(code: str, subject: object, what: str, why: str, then: str) -> Finding:
    return Finding(Severity.NOTE, code, str(subject), what, why, then)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, each once, else in the order found."""
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.severity)


def is_well(findings: Iterable[Finding]) -> bool:
    return all(finding.severity is Severity.NOTE for finding in findings)
