"""Honest clients beside somebody who floods the nodes: `make flood`.

Somebody at another address holds connections to every node, of which a third says nothing, a third sends its request a
letter a second, and a third has asked once and stays; and asks for signatures with tokens that nobody knows, as fast as
they are refused. Honest clients sign all the while. What must hold: they keep half of the rate that they have alone,
none of their requests fails, and no node has more memory than `--most-mb` beyond what it had.
"""

import argparse
import http.client
import json
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from benchmarks.csrs import make_csrs
from benchmarks.load import PEM_PREFIX, LoadPlan, LoadResult, background_load, run_load, sign_plan
from benchmarks.nodes import process_tree, running_cluster
from benchmarks.origin import describe_origin
from cluster.base.descriptors import raise_limit

#: All of 127.0.0.0/8 is this host.
STRANGER: Final = "127.0.0.2"
_ROOTS: Final = "/v1/connect/ca/roots"
_SIGN: Final = "/v1/connect/ca/sign"
_KEPT_RATE: Final = 0.5
_MOST_MB: Final = 256.0
_POOL: Final = 64
_PAUSE_SECONDS: Final = 1.0
_ASK_SECONDS: Final = 10.0
_FOR_EVER_SECONDS: Final = 3600.0
_REFUSED: Final = 'quorumca_limited_total{limit="refused"}'
_READ_BYTES: Final = 64 << 10
_MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class Flood:
    """Of somebody, to all targets together."""

    connections: int
    flooders: int  # connections that send wrong tokens


@dataclass(frozen=True, slots=True)
class Outcome:
    """What honest clients had, alone and beside the flood, and what that took."""

    alone: LoadResult
    beside: LoadResult
    held: int  # connections of the crowd at the end
    refused: int  # wrong tokens, and requests that were refused without a look at theirs
    grown_mb: float  # the node that grew most, with its processes

    @property
    def kept(self) -> float:
        return self.beside.rate / self.alone.rate

    def failures(self, most_mb: float = _MOST_MB) -> list[str]:
        found = []
        if self.kept < _KEPT_RATE:
            found.append(f"honest clients kept {self.kept:.0%} of their rate")
        if self.beside.failures:
            found.append(f"requests of honest clients failed: {self.beside.failures}")
        if self.grown_mb > most_mb:
            found.append(f"a node has grown by {self.grown_mb:.0f} MB")
        return found


class Crowd:
    """Connections that have little to say; those that were closed are opened again, once a second."""

    def __init__(self, targets: Sequence[str], count: int, source: str = STRANGER) -> None:
        self._held = [_Held(targets[number % len(targets)], number // len(targets), source) for number in range(count)]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def close(self) -> int:
        """How many there were. Again is all right."""
        self._is_over.set()
        self._thread.join()
        for held in self._held:
            held.sock.close()
        return len(self._held)

    def _keep(self) -> None:
        while not self._is_over.wait(_PAUSE_SECONDS):
            for held in self._held:
                held.go_on()


class _Held:
    """Says nothing, or its request a letter at a time, or all of it at once and no more."""

    def __init__(self, target: str, kind: int, source: str) -> None:
        self._target = target
        self._source = source
        request = f"GET {_ROOTS} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        self._letters = {0: b"", 1: request[:-1], 2: request}[kind % 3]
        self._is_slow = kind % 3 == 1
        self._open()

    def _open(self) -> None:
        host, _, port = self._target.rpartition(":")
        self._left = self._letters
        self.sock = socket.socket()
        self.sock.bind((self._source, 0))
        self.sock.setblocking(False)
        with suppress(BlockingIOError):
            self.sock.connect((host, int(port)))

    def go_on(self) -> None:
        try:
            if self._left:
                sent = self.sock.send(self._left[:1] if self._is_slow else self._left)
                self._left = self._left[sent:]
            if self.sock.recv(_READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.sock.close()
        self._open()


@contextmanager
def crowd(targets: Sequence[str], count: int) -> Iterator[Crowd]:
    raise_limit()  # this process holds the other ends
    made = Crowd(targets, count)
    try:
        yield made
    finally:
        made.close()


def measure(
    targets: Mapping[str, int], csrs: Sequence[str], token: str, flood: Flood, clients: int, seconds: float
) -> Outcome:
    """`targets`: the process of each node, by its address. `token` is one that the nodes know, and that honest clients
    sign with.
    """
    addresses, bodies = [*targets], sign_plan((), 0, 0, csrs).bodies
    honest = LoadPlan(addresses, clients, seconds, "PUT", f"{_SIGN}?token={token}", PEM_PREFIX, bodies=bodies)
    wrong = replace(honest, path=f"{_SIGN}?token={uuid.uuid4()}", clients=flood.flooders, source=STRANGER)
    alone = run_load(honest)
    before = {pid: _memory(pid) for pid in targets.values()}
    with crowd(addresses, flood.connections) as others, background_load(replace(wrong, seconds=_FOR_EVER_SECONDS)):
        time.sleep(2 * _PAUSE_SECONDS)
        beside = run_load(honest)
        grown = max(_memory(pid) - memory for pid, memory in before.items())
        held = others.close()
        refused = sum(_refused(address, token) for address in addresses)
    return Outcome(alone, beside, held, refused, grown)


def _refused(target: str, token: str) -> int:
    """Requests for whose token nobody was asked any more."""
    with closing(http.client.HTTPConnection(target, timeout=_ASK_SECONDS)) as connection:
        connection.request("GET", f"/v1/agent/metrics?format=prometheus&token={token}")
        text = connection.getresponse().read().decode()
    line = next(line for line in text.splitlines() if line.startswith(_REFUSED))
    return int(float(line.rpartition(" ")[2]))


def _memory(pid: int) -> float:
    total = 0.0
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            total += float(process.memory_info().rss)
    return total / _MB


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data-", dir=options.out) as data_dir:
        origin = describe_origin(Path(data_dir), seed=None)
        with running_cluster(Path(data_dir)) as cluster:
            csrs = make_csrs(_POOL, cluster.configure())
            token = json.loads(cluster.leader().ask("PUT", "/v1/acl/bootstrap"))["SecretID"]
            targets = {node.http: node.pid for node in cluster.nodes}
            flood = Flood(options.connections, options.flooders)
            outcome = measure(targets, csrs, token, flood, options.clients, options.seconds)
    failures = outcome.failures(options.most_mb)
    found = {
        "origin": asdict(origin),
        "flood": asdict(flood),
        **asdict(outcome),
        "kept": outcome.kept,
        "failures": failures,
    }
    (options.out / "flood.json").write_text(json.dumps(found, indent=1) + "\n")
    print(
        f"alone {outcome.alone.rate:.0f}/s, beside {outcome.held} connections and {outcome.refused} refused requests"
        f" {outcome.beside.rate:.0f}/s ({outcome.kept:.0%}), p99 {outcome.alone.p99_ms:.0f} and"
        f" {outcome.beside.p99_ms:.0f} ms, {outcome.grown_mb:+.0f} MB"
    )
    print("\n".join(failures) or "all of it holds")
    return 1 if failures else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=2000, help="that have little to say (default: 2000)")
    parser.add_argument("--flooders", type=int, default=64, help="connections that send wrong tokens (default: 64)")
    parser.add_argument("--clients", type=int, default=32, help="honest ones (default: 32)")
    parser.add_argument("--seconds", type=float, default=60.0, help="each of the two times (default: 60)")
    parser.add_argument("--most-mb", type=float, default=_MOST_MB, help="that a node may grow by (default: 256)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/evidence"), help="for flood.json (default: docs/evidence)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
