"""The processes of a local cluster: start, wait until they serve, report who ends and who comes back, stop in order.

Every node is a session of its own: Ctrl-C at the terminal reaches the supervisor only, and the supervisor's sudden
death reaches nobody. Nothing is restarted.
"""

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from cluster.cli.dev.cluster_file import ClusterFile, Entry
from cluster.cli.dev.local_cluster import LocalNode
from cluster.cli.output import note
from cluster.client.errors import CommandError

STOP_SECONDS: Final = 10.0
_KILL_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1
#: Of one question to a node that may still be waiting for a leader; between questions it is seen whether nodes ended.
_ASK_SECONDS: Final = 1.0
_MAX_ANSWER_BYTES: Final = 4 << 20
_TAIL_BYTES: Final = 64 << 10
_ROOTS: Final = "/v1/connect/ca/roots"
_CONFIGURATION: Final = "/v1/operator/raft/configuration"
_WHO_ASKS: Final = "/v1/acl/token/self"

Say = Callable[[str], None]


class StopSignals:
    """Counts the signals that ask for an end, instead of being ended by them. For the main thread."""

    _SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


class Stopped(Exception):
    """Somebody asked for an end while something was awaited."""


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A node that this process has started."""

    node: LocalNode
    process: "subprocess.Popen[bytes]"
    log_start: int  # where in the log this run begins

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def ending(self) -> str:
        """How it ended."""
        code = self.process.poll()
        if code is None:
            return "still runs"
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of this run."""
        return tail(self.node.log, lines, self.log_start)

    def last_words(self) -> str:
        """The last line that is no log event: an error printed for a person; else the last line of all."""
        written = [line for line in self.log_tail(200) if line.strip()]
        spoken = [line for line in written if not line.startswith("{")]
        return (spoken or written or ["it printed nothing"])[-1]


def tail(log: Path, lines: int, start: int = 0) -> list[str]:
    """The last lines of a file, from `start` on; empty when it cannot be read."""
    try:
        with open(log, "rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def agent_command(config: Path) -> list[str]:
    """Runs the node. -P: nothing is imported from the directory that the command happens to be given in."""
    return [sys.executable, "-P", "-m", "cluster", "agent", "--config", str(config)]


def start_node(node: LocalNode) -> NodeProcess:
    """Output is added to the node's log. Raises: CommandError."""
    try:
        fd = os.open(node.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as log:
            log_start = log.tell()  # now: the child moves it
            process = subprocess.Popen(  # nosec B603 # noqa: S603 - our own program and a path, no shell
                agent_command(node.config),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            return NodeProcess(node, process, log_start)
    except OSError as error:
        file = error.filename or sys.executable
        raise CommandError(f"{node.name} cannot be started: {file}: {error.strerror}") from error


class NotServing(Exception):
    """A node does not answer with an active root yet; the text says what is missing."""


def trust_domain_of(address: str, timeout: float = _ASK_SECONDS) -> str:
    """What a node that serves says, to everybody. Raises: NotServing."""
    roots = _ask(address, _ROOTS, timeout)
    if not roots.get("ActiveRootID"):
        raise NotServing(f"{address} has no active root")
    return str(roots.get("TrustDomain"))


def _ask(address: str, path: str, timeout: float, token: str = "") -> dict[str, Any]:
    status, text = _answer(address, path, timeout, token)
    if status != 200:
        raise NotServing(f"{address} answers {status}: {text.strip():.200}")
    with suppress(ValueError):
        answer = json.loads(text)
        if isinstance(answer, dict):
            return answer
    raise NotServing(f"{address} does not answer with a JSON object")


def _answer(address: str, path: str, timeout: float, token: str = "") -> tuple[int, str]:
    """Raises: NotServing."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"X-Consul-Token": token} if token else {})
        response = connection.getresponse()
        text = response.read(_MAX_ANSWER_BYTES).decode("utf-8", errors="replace")
    except TimeoutError:
        raise NotServing(f"no answer on {address} within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotServing(f"no answer on {address}: {getattr(error, 'strerror', None) or repr(error)}") from None
    finally:
        connection.close()
    return response.status, text


def wait_until_guarded(address: str, signals: StopSignals, seconds: float) -> None:
    """Until a first token can be made, a moment after a new cluster serves. Raises: CommandError, Stopped."""
    deadline = time.monotonic() + seconds
    while True:
        if signals.count:
            raise Stopped
        try:
            status, text = _answer(address, _WHO_ASKS, _ASK_SECONDS)
        except NotServing as reason:
            status, text = 503, str(reason)
        if status != 503:
            return
        if time.monotonic() >= deadline:
            raise CommandError(f"access control was not set up within {seconds:g} s: {text.strip():.200}")
        time.sleep(_POLL_SECONDS)


def wait_until_serving(
    processes: Sequence[NodeProcess], signals: StopSignals, seconds: float, say: Say = note, *, token: str = ""
) -> str:
    """Until every node answers with an active root; returns the trust domain.

    Not waited for is a node that the others no longer count as a server; where nothing is allowed without a token, that
    is known with one for `operator:read` only. Raises: CommandError that says which node lacks what; Stopped.
    """
    deadline = time.monotonic() + seconds
    missing: dict[str, str] = {}
    trust_domain = ""
    while True:
        for started in processes:
            _check_all_run(processes)
            if signals.count:
                raise Stopped
            try:
                trust_domain = trust_domain_of(started.node.http)
                missing.pop(started.node.name, None)
            except NotServing as reason:
                missing[started.node.name] = str(reason)
        strangers = _strangers(processes, missing, token)
        if missing.keys() <= strangers:
            for name in sorted(strangers):
                say(f"{name} is no server of this cluster: it waits until it is added (operator raft add-peer)")
            return trust_domain
        if time.monotonic() >= deadline:
            raise CommandError(_not_ready(processes, missing, seconds))
        time.sleep(_POLL_SECONDS)


def _strangers(processes: Iterable[NodeProcess], missing: Mapping[str, str], token: str) -> set[str]:
    """Those who serve nothing because they have been removed from the cluster, as one that serves knows it."""
    serving = next((started.node for started in processes if started.node.name not in missing), None)
    if serving is None or not missing:
        return set()
    try:
        servers = _ask(serving.http, _CONFIGURATION, _ASK_SECONDS, token).get("Servers")
    except NotServing:
        return set()
    if not isinstance(servers, list):
        return set()
    return missing.keys() - {server.get("ID") for server in servers if isinstance(server, dict)}


def _check_all_run(processes: Iterable[NodeProcess]) -> None:
    for started in processes:
        if started.has_ended:
            raise CommandError(
                f"{started.node.name} has ended ({started.ending()}): {started.last_words()}\n"
                f"its log: {started.node.log}"
            )


def _not_ready(processes: Iterable[NodeProcess], missing: Mapping[str, str], seconds: float) -> str:
    lines = [f"the cluster did not get ready within {seconds:g} s:"]
    for started in processes:
        if started.node.name in missing:
            lines.append(f"  {started.node.name}: {missing[started.node.name]}; the end of {started.node.log}:")
            lines += [f"    {line}" for line in started.log_tail(5)]
    return "\n".join(lines)


class Watch:
    """Reports the changes among the nodes of cluster.json, whoever started them."""

    def __init__(self, file: ClusterFile, processes: Iterable[NodeProcess], say: Say) -> None:
        self._file = file
        self._own = {started.process.pid: started for started in processes}
        self._say = say
        self._known = {started.node.name: (started.process.pid, True) for started in processes}

    def look(self) -> None:
        for entry in self._file.read():
            now = entry.pid, self.is_running(entry)
            before = self._known.get(entry.name)
            self._known[entry.name] = now
            if now != before:
                self._report(entry, is_running=now[1], is_new=before is None)

    def is_running(self, entry: Entry) -> bool:
        own = self._own.get(entry.pid)
        return entry.is_running if own is None else not own.has_ended

    def _report(self, entry: Entry, *, is_running: bool, is_new: bool) -> None:
        if is_running:
            self._say(f"{entry.name} {'has joined' if is_new else 'runs again'} (pid {entry.pid})")
            return
        own = self._own.get(entry.pid)
        reason = "" if own is None else f": {own.ending()}; its last line: {own.last_words()}"
        self._say(
            f"{entry.name} (pid {entry.pid}) has ended{reason}\n"
            f"  it is not restarted; to bring it back: {shlex.join(agent_command(Path(entry.config)))}"
        )

    def running(self) -> list[Entry]:
        return [entry for entry in self._file.read() if self.is_running(entry)]


def supervise(watch: Watch, signals: StopSignals, pause: float = 0.25) -> None:
    """Until somebody asks for an end."""
    while not signals.count:
        watch.look()
        time.sleep(pause)


def stop_all(
    processes: Sequence[NodeProcess],
    others: Sequence[Entry],
    signals: StopSignals,
    say: Say,
    *,
    seconds: float = STOP_SECONDS,
) -> bool:
    """SIGTERM to all, and SIGKILL to whoever is left after `seconds`, or at a second signal.

    `others` are nodes that other processes have started. Whether nobody had to be killed.
    """
    asked = signals.count
    _send(processes, others, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while _left(processes, others) and time.monotonic() < deadline and signals.count <= asked:
        time.sleep(_POLL_SECONDS / 2)
    left = _left(processes, others)
    if left:
        say(f"{', '.join(left)} did not end in time: killed")
        _send(processes, others, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_SECONDS
        while _left(processes, others) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS / 2)
    return not left


def _send(processes: Iterable[NodeProcess], others: Iterable[Entry], number: signal.Signals) -> None:
    for started in processes:
        started.process.send_signal(number)  # nothing happens when it has ended
    for entry in others:
        if entry.is_running:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(entry.pid, number)


def _left(processes: Iterable[NodeProcess], others: Iterable[Entry]) -> list[str]:
    own = [started.node.name for started in processes if not started.has_ended]
    return own + [entry.name for entry in others if entry.is_running]
