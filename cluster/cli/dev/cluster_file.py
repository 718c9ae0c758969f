"""`cluster.json` of a local cluster: its nodes, where they listen, and as which processes they run.

Whoever starts a node keeps its process id current: `quorumca dev`, or `quorumca agent` on one of its configurations.
A process id stays when the node ends; `runs_node` tells whether it still means anything.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

from cluster.cli.locks import LockHeld, locked
from cluster.cli.output import note
from cluster.client.errors import CommandError

NAME: Final = "cluster.json"
_LOCK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One node. The fields are the keys in the file; addresses are `host:port`, paths absolute."""

    name: str
    pid: int
    http: str
    rpc: str
    raft: str
    data_dir: str
    config: str

    @property
    def is_running(self) -> bool:
        return runs_node(self.pid, self.config)


class ClusterFile:
    """The file in the directory of a local cluster. Readers see a whole one: it is replaced, never written to."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME

    def read(self) -> tuple[Entry, ...]:
        """Empty when there is no file. Raises: CommandError."""
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
            entries = tuple(Entry(**node) for node in values["nodes"])
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise CommandError(f"{self.path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            known = ", ".join(field.name for field in fields(Entry))
            raise CommandError(
                f"{self.path} is not what quorumca dev writes: must be JSON with a list of nodes, each with {known}"
            ) from error
        if all(isinstance(getattr(entry, field.name), field.type) for entry in entries for field in fields(entry)):  # type: ignore[arg-type] # the types are classes here
            return entries
        raise CommandError(f"{self.path} is not what quorumca dev writes: pid must be a number, all else text")

    def update(self, change: Callable[[tuple[Entry, ...]], Iterable[Entry]]) -> None:
        """Replace the entries by what `change` makes of them; one process at a time. Raises: CommandError."""
        try:
            with locked(self.path.with_name(f".{NAME}.lock"), timeout=_LOCK_SECONDS):
                self._write(change(self.read()))
        except LockHeld as error:
            raise CommandError(f"{self.path} is being changed by another process ({error}) that does not end") from None
        except OSError as error:
            raise CommandError(f"{self.path}: {error.strerror}") from error

    def put(self, *entries: Entry) -> None:
        """Add these; they replace entries of the same name. Raises: CommandError."""
        new = {entry.name: entry for entry in entries}
        self.update(lambda old: ({entry.name: entry for entry in old} | new).values())

    def _write(self, entries: Iterable[Entry]) -> None:
        draft = self.path.with_name(f".{NAME}.new")
        draft.write_text(json.dumps({"nodes": [asdict(entry) for entry in entries]}, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, self.path)


def note_pid(config: Path, pid: int) -> None:
    """`pid` runs this configuration: say so in the cluster.json that names it, if there is one.

    Never keeps a node from starting. A process that already runs this node stays: the new one will not get far.
    """
    path = os.path.realpath(config)
    for directory in Path(path).parents[:2]:
        file = ClusterFile(directory)
        try:
            if any(os.path.realpath(entry.config) == path for entry in file.read()):
                file.update(lambda entries: [_with_pid(entry, path, pid) for entry in entries])
                return
        except CommandError as error:
            note(f"the process id is not noted: {error}")
            return


def _with_pid(entry: Entry, path: str, pid: int) -> Entry:
    is_other = os.path.realpath(entry.config) != path
    return entry if is_other or entry.pid == pid or entry.is_running else replace(entry, pid=pid)


def runs_node(pid: int, config: str) -> bool:
    """Whether process `pid` is an agent on this configuration. Its arguments say so: process ids are used again."""
    try:
        words = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
        directory = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False
    path = os.path.realpath(config)
    names = [name for word in words for name in (word, word.partition("=")[2]) if name]
    return "agent" in words and any(os.path.realpath(os.path.join(directory, name)) == path for name in names)
