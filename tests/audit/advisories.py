"""The advisories that are kept here, for where no network is: those of the Python Packaging Advisory Database about the
packages of the lock files, of a day that is always told. `python -m tests.audit --refresh CHECKOUT` takes newer ones.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

KEPT: Final = Path(__file__).with_name("advisories.json")
_SOURCE: Final = "https://github.com/pypa/advisory-database (CC BY 4.0)"
_PINNED: Final = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")


@dataclass(frozen=True, slots=True)
class Range:
    """Versions from one on: up to another one, without it, or up to one, with it."""

    introduced: str = "0"
    fixed: str = ""
    last_affected: str = ""

    def has(self, version: Version) -> bool:
        if self.introduced != "0" and version < Version(self.introduced):
            return False
        if self.fixed:
            return version < Version(self.fixed)
        return not self.last_affected or version <= Version(self.last_affected)


@dataclass(frozen=True, slots=True)
class Advisory:
    id: str
    aliases: tuple[str, ...]
    ranges: tuple[Range, ...]
    versions: tuple[str, ...]  # where there are no ranges

    def concerns(self, version: str) -> bool:
        try:
            parsed = Version(version)
        except InvalidVersion:
            return version in self.versions
        return version in self.versions or any(one.has(parsed) for one in self.ranges)


@dataclass(frozen=True, slots=True)
class Kept:
    """`packages` are all that were looked up, also those of which nothing is known."""

    date: str
    packages: Mapping[str, tuple[Advisory, ...]]

    def unknown(self, pins: Mapping[str, str]) -> list[str]:
        """What was not looked up, because it was not needed then."""
        return sorted(pins.keys() - self.packages.keys())

    def findings(self, pins: Mapping[str, str]) -> list[str]:
        return [
            f"{name} {version}: {', '.join((advisory.id, *advisory.aliases))}"
            for name, version in sorted(pins.items())
            for advisory in self.packages.get(name, ())
            if advisory.concerns(version)
        ]


def pins_of(files: Iterable[Path]) -> dict[str, str]:
    """Name to version, as lock files have them. Of one with several, for several platforms, the lowest."""
    pins: dict[str, str] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if found := _PINNED.match(line):
                name, version = canonicalize_name(found[1]), found[2]
                pins[name] = min(pins.get(name, version), version, key=Version)
    return pins


def load(path: Path = KEPT) -> Kept:
    values = json.loads(path.read_text(encoding="utf-8"))
    packages = {
        name: tuple(
            Advisory(
                one["id"],
                tuple(one["aliases"]),
                tuple(Range(**part) for part in one["ranges"]),
                tuple(one["versions"]),
            )
            for one in advisories
        )
        for name, advisories in values["packages"].items()
    }
    return Kept(values["date"], packages)


def refresh(checkout: Path, names: Iterable[str], path: Path = KEPT) -> Kept:
    """Take those of a git repository of the database, which may be bare. Raises: subprocess.CalledProcessError."""
    commit, date = _git(checkout, "log", "-1", "--format=%H %cs").split()
    packages = {name: [asdict(advisory) for advisory in _of_package(checkout, name)] for name in sorted(names)}
    values = {"source": _SOURCE, "commit": commit, "date": date, "packages": packages}
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return load(path)


def _of_package(checkout: Path, name: str) -> Iterator[Advisory]:
    for file in _git(checkout, "ls-tree", "--name-only", "HEAD", f"vulns/{name}/").splitlines():
        entry = yaml.safe_load(_git(checkout, "show", f"HEAD:{file}"))
        if entry.get("withdrawn") is None:
            yield _advisory(entry, name)


def _advisory(entry: Mapping[str, Any], name: str) -> Advisory:
    ranges: list[Range] = []
    versions: list[str] = []
    for affected in entry["affected"]:
        if canonicalize_name(affected["package"]["name"]) != name:
            continue
        found = [one for part in affected.get("ranges") or () if part["type"] == "ECOSYSTEM" for one in _ranges(part)]
        ranges += found
        versions += [] if found else [str(version) for version in affected.get("versions") or ()]
    return Advisory(entry["id"], tuple(entry.get("aliases") or ()), tuple(ranges), tuple(versions))


def _ranges(part: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Range]:
    """Of events in order (https://ossf.github.io/osv-schema/): one begins with `introduced`, and may have no end."""
    begun: str | None = None
    for event in part["events"]:
        [(kind, version)] = event.items()
        if kind == "introduced":
            if begun is not None:
                yield Range(begun)
            begun = str(version)
        elif begun is not None and kind in ("fixed", "last_affected"):
            yield Range(begun, **{kind: str(version)})
            begun = None
    if begun is not None:
        yield Range(begun)


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True)
    return done.stdout
