"""A cluster of real nodes of two releases, each of which can be exchanged for the other on the same data directory."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.integration.peers import events
from tests.kit.real_cluster import LocalCluster, Node, Settings, without_path
from tests.kit.wait import eventually

OLD, NEW = "old", "new"
#: How the release before may end an orderly stop: a compaction that ended meanwhile wrote into the journal that was
#: closed. It loses nothing. To be taken out when the release before is one that does not (previous.py).
_KNOWN_END: Final = "Bad file descriptor"
#: What else it may log of it: a thread of a signing worker answers a node that has gone meanwhile.
_KNOWN_TROUBLES: Final = (_KNOWN_END, "self._outgoing.")
#: How Python begins to tell of an exception that ends a thread.
_THREAD: Final = "Exception in thread "
#: The release before makes roots that begin when they are made, which this one warns of for a minute.
_KNOWN_WARNING: Final = "until a minute after that, clients whose clocks are late"
_SIGNING_WORKERS: Final = 1
#: No limit on signing, and a log so short that whoever was away for a moment needs a snapshot of whoever leads.
_SETTINGS: Final[Settings] = {
    "connect": {"ca_config": {"csr_max_per_second": 0}},
    "limits": {"signing_workers": _SIGNING_WORKERS},
    "raft": {"compact_bytes": 64 << 10, "keep_bytes": 0},
}
_COMPACTION_SECONDS: Final = 60.0
_READ_LOGS_SECONDS: Final = 0.25
_TRANSFER: Final = "/v1/operator/raft/transfer-leader"
_TRANSFER_SECONDS: Final = 30.0
_WHERE: Final = """
import json, cluster, fsm, providers
print(json.dumps([package.__file__ for package in (cluster, fsm, providers)]))
"""


@dataclass(frozen=True, slots=True)
class Release:
    """What can run a node: an interpreter, and the directory from which it takes the code."""

    name: str
    python: Path
    code: Path

    def __str__(self) -> str:
        return self.name

    def assert_takes_its_code(self) -> None:
        """As it does when it runs a node."""
        command = [str(self.python), "-P", "-c", _WHERE]
        done = subprocess.run(command, env=without_path(), capture_output=True, text=True, check=True)
        found = {Path(file).parents[1] for file in json.loads(done.stdout)}
        assert found == {self.code}, f"{self.python} takes what is in {found}, not in {self.code}"


def releases(project: Path, previous_python: Path) -> tuple[Release, Release]:
    """The one before, which is installed in an environment, and the one of this checkout."""
    installed = previous_python.parents[1] / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    old = Release(OLD, previous_python, installed / "site-packages")
    new = Release(NEW, Path(sys.executable), project)
    for release in (old, new):
        release.assert_takes_its_code()
    return old, new


class Fleet:
    """All nodes are of one release at first."""

    def __init__(self, root: Path, release: Release) -> None:
        self.cluster = LocalCluster(root, settings=_SETTINGS)
        self._releases = dict.fromkeys(self.cluster.nodes, release)
        self._judged_bytes = dict.fromkeys(self.cluster.nodes, 0)
        self._troubles: list[str] = []

    @property
    def nodes(self) -> list[Node]:
        return self.cluster.nodes

    def release_of(self, node: Node) -> Release:
        return self._releases[node]

    def of(self, release: Release) -> list[Node]:
        return [node for node in self.nodes if self._releases[node] is release]

    def __str__(self) -> str:
        return ", ".join(f"{node.name} {self._releases[node]}" for node in self.nodes)

    async def start(self) -> None:
        for node in self.nodes:
            self.cluster.start_by(node, self._releases[node].python)
        await self.cluster.wait_ready()
        await self.each_runs_its_release()

    async def exchange(self, node: Node, release: Release) -> None:
        """Stop it in order, and start it as the other release. The others sign meanwhile, and keep nothing of the log
        from which the node could go on: it comes back by a snapshot from the one that leads.
        """
        assert self._releases[node] is not release
        code = await self.cluster.stop(node)
        is_known = self._releases[node].name == OLD and _KNOWN_END in node.log_tail()
        assert code == 0 or is_known, f"{node.name} ended with {code}: {node.log_tail()}"
        self._read_log(node)
        leader = await self.cluster.leader()
        behind = (await self.cluster.digest(leader))["AppliedIndex"]
        others = [other for other in self.nodes if other is not node]

        async def are_compacted() -> bool | None:
            logs = [events(other, "journal.compacted") for other in others]
            return all(any(event["log_index"] > behind for event in log) for log in logs) or None

        what = f"nobody has log entries left for {node.name}"
        await eventually(what, are_compacted, _COMPACTION_SECONDS, _READ_LOGS_SECONDS)
        installed = len(events(node, "snapshot.installed"))
        self._releases[node] = release
        self.cluster.start_by(node, release.python)
        await self.cluster.wait_ready()
        assert len(events(node, "snapshot.installed")) > installed, f"{node.name} needed no snapshot"
        await self.each_runs_its_release()

    async def lead(self, release: Release) -> Node:
        """A node of this release leads from now on. Another one than it is asked for that: it has to ask the leader."""

        async def leads() -> Node | None:
            leader = await self.cluster.leader()
            if self._releases[leader] is release:
                return leader
            chosen = self.of(release)[0]
            via = next((node for node in self.nodes if node not in (leader, chosen)), chosen)
            # Under load others may get entries that the chosen one does not have yet, and elect somebody else.
            answer = await self.cluster.ask(via, "POST", _TRANSFER, query={"id": chosen.name})
            assert answer.status == 200, answer
            return None

        return await eventually(f"a node of the {release} release leads", leads, _TRANSFER_SECONDS)

    async def each_runs_its_release(self) -> None:
        """The node and the processes that work for it; those of a node that led a moment ago are just exchanged."""

        def programs(node: Node) -> list[str]:
            process = psutil.Process(node.pid)
            return [(each.cmdline() or [""])[0] for each in (process, *process.children(recursive=True))]

        for node in self.nodes:
            wanted = str(self._releases[node].python)

            async def runs(node: Node = node, wanted: str = wanted) -> bool:
                found = programs(node)
                return {*found} == {wanted} and len(found) > _SIGNING_WORKERS

            await eventually(f"{node.name} runs {wanted}", runs, trouble=(AssertionError, psutil.NoSuchProcess))

    async def assert_is_well(self, release: Release) -> None:
        """As the doctor of this release says, which is what an operator waits for between two exchanges."""
        addresses = [word for node in self.nodes for word in ("--http-addr", node.local.http)]
        process = await asyncio.create_subprocess_exec(
            *(str(release.python), "-P", "-m", "cluster", "doctor", "--format", "json", *addresses),
            env=without_path(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        found = json.loads(said)["Findings"]
        wrong = [one for one in found if one["Severity"] != "note" and _KNOWN_WARNING not in one["What"]]
        assert wrong == [], f"the doctor of the {release} release: {wrong}"

    def troubles(self) -> list[str]:
        """What nodes have logged that a person would have to look at."""
        for node in self.nodes:
            self._read_log(node)
        return self._troubles

    def _read_log(self, node: Node) -> None:
        """What its present release has logged since this was asked last."""
        with node.local.log.open("rb") as file:
            file.seek(self._judged_bytes[node])
            added = file.read()
        self._judged_bytes[node] += len(added)
        known = _KNOWN_TROUBLES if self._releases[node].name == OLD else ()
        self._troubles += [f"{node.name}: {trouble}" for trouble in troubles(added.decode(errors="replace"), known)]


def troubles(log: str, known: Collection[str] = ()) -> list[str]:
    """Events of a node's log that are errors, and whole texts that are no events, such as tracebacks; not those that
    contain a known one.
    """
    lines = log.splitlines()
    found = [line for line in lines if _is_event(line) and json.loads(line)["level"] in ("error", "critical")]
    found += _texts([line for line in lines if not _is_event(line)])
    return [trouble for trouble in found if not any(text in trouble for text in known)]


def _is_event(line: str) -> bool:
    return line.startswith("{")


def _texts(lines: Sequence[str]) -> list[str]:
    """Each line by itself, but for tracebacks: up to the line that says what was raised, the first not indented one.
    Another process writes them into the same file, so events may have stood in between.
    """
    found: list[list[str]] = []
    is_open = False
    for line in lines:
        is_head = line.startswith((_THREAD, "Traceback "))
        if is_open and (not is_head or found[-1][-1].startswith(_THREAD)):
            found[-1].append(line)
        else:
            found.append([line])
        is_open = is_head or (is_open and line.startswith(" "))
    return ["\n".join(text) for text in found]
