"""What a seeded bug is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """One protection that a change of text takes away, and the tests that must notice.

    `old` must be in `file` exactly once, so that a change of the code which moves a protection shows.
    """

    name: str  # what is missing
    consequence: str  # what that would do to a cluster
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
