"""The main process's side of the keeper (keeper.py): starts it, asks it, and ends with it."""

import asyncio
import collections
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

from cluster.base.errors import NotReady
from cluster.base.process import block_node_signals, take_from_environment
from cluster.seal.disk_key import DiskKey
from cluster.seal.keeper import CoveredRecord
from cluster.seal.keeper_server import GRANT, LINE, Beginning, pack_record, pack_seal, packed, read_frame, unpack_error
from cluster.seal.sources import KeyAt, KeyPlaces, SealError
from cluster.seal.variables import PASSPHRASE_VARIABLE
from fsm.ca import SealKey

#: A process starts in a fraction of a second, also on a busy machine.
_START_SECONDS: Final = 30.0
#: With the seal in use, opening and sealing take less than a millisecond; but a keeper that was idle for weeks may have
#: been swapped out.
_CALL_SECONDS: Final = 10.0
#: Stretching a passphrase takes a quarter of a second.
_SLOW_CALL_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 2.0
#: Lines that are kept for later calls: more at a time are rare.
_MOST_FREE: Final = 8
_LOST: Final = "the process that keeps the seal key is gone, or takes no more connections"
_SILENT: Final = "the process that keeps the seal key does not answer"


class KeeperLost(NotReady):
    """Without its keeper a node can neither open nor seal, and ends: whoever has started it starts it again."""


class KeeperProcess:
    """Implements `KeeperCalls`. Made by `start`. May be asked from every thread; each call has a socket of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._free: collections.deque[socket.socket] = collections.deque()
        self._is_stopped = False
        self._in_use: SealKey | None = None

    @classmethod
    async def start(
        cls, node_name: str, places: KeyPlaces, refused: Callable[[str], None], passphrase: int | None = None
    ) -> "KeeperProcess":
        """`refused` is told of protections that the system refused. `passphrase` is what `take_from_environment` has
        returned for it; None: it is taken now. Raises: SealError when there is no seal key; KeeperLost, OSError.
        """
        passphrase = _taken() if passphrase is None else passphrase
        try:
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    keeper = cls(_spawned(theirs), ours)
            except BaseException:
                ours.close()
                raise
            try:
                for text in await asyncio.to_thread(keeper._begin, Beginning.of(node_name, places), passphrase):
                    refused(text)
            except BaseException:
                await keeper.stop()
                raise
            return keeper
        finally:
            if passphrase is not None:
                os.close(passphrase)

    def _begin(self, beginning: Beginning, passphrase: int | None) -> list[str]:
        """What the system refused to it."""
        self._control.settimeout(_START_SECONDS)
        descriptors = [] if passphrase is None else [passphrase]
        with _named_errors():
            refused: list[str] = read_frame(self._control)
            # Now that it is protected: nobody else takes the descriptor from it.
            socket.send_fds(self._control, [packed(beginning.packed())], descriptors)
            error, _ = read_frame(self._control)
        self._control.settimeout(_CALL_SECONDS)
        if error is not None:
            raise unpack_error(error)
        return refused

    @property
    def pid(self) -> int:
        return self._process.pid

    async def watch(self) -> NoReturn:
        """Until it has ended; to be cancelled before `stop`. Raises: KeeperLost."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        # Nothing more is ever written to it: there is something to read when the other side has closed.
        loop.add_reader(self._control.fileno(), ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._control.fileno())
        status = await asyncio.to_thread(self._ended)
        raise KeeperLost(f"the process that keeps the seal key has ended with status {status}: start the node again")

    async def stop(self) -> None:
        self._is_stopped = True
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # whoever reads from it in another thread goes on
        self._control.close()
        while self._free:
            self._free.pop().close()
        await asyncio.to_thread(self._ended)

    def _ended(self) -> int:
        """Its status, in a moment or by force."""
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def grant(self) -> socket.socket:
        """For a process that signs: what it reads the key of the cover from (`cover.take_over`). It is written by the
        keeper, and this process does not look. Raises: KeeperLost.
        """
        return self._connected(GRANT)

    # -- calls

    def check_node(self, facts: Mapping[str, Any] | None) -> None:
        self._call("check_node", json.dumps(facts))  # whatever a file held

    def open_disk_key(self, *, accepts_without: bool, always_requires: bool) -> DiskKey:
        key, is_required = self._call("open_disk_key", accepts_without, always_requires, seconds=None)
        return DiskKey(key, is_required=is_required)

    def establish_disk_key(self) -> None:
        # No time is too long for files: their disk may stand still.
        self._call("establish_disk_key", seconds=None)

    def follow_disk_key(self) -> None:
        self._call("follow_disk_key", seconds=None)

    def new_data_key(self) -> SealKey:
        return SealKey(*self._call("new_data_key"))

    def next_data_key(self, before: SealKey, *, keeps_key: bool) -> SealKey:
        return SealKey(*self._call("next_data_key", pack_seal(before), keeps_key))

    def lacks(self, source: str, kek_id: str, salt: bytes) -> str:
        problem: str = self._call("lacks", source, kek_id, salt)
        return problem

    def unlock(self, seal: SealKey) -> bytes:
        key: bytes = self._call("unlock", pack_seal(seal))
        self._in_use = seal
        return key

    def draw_key(self, seal: SealKey) -> bytes:
        key: bytes = self._call("draw_key", pack_seal(seal))
        return key

    def mac(self, seal: SealKey, sums: bytes) -> bytes:
        mac: bytes = self._call("mac", pack_seal(seal), sums, seconds=self._seconds(seal))
        return mac

    def proof(self, seal: SealKey, request: bytes) -> bytes:
        proof: bytes = self._call("proof", pack_seal(seal), request, seconds=self._seconds(seal))
        return proof

    def key_at(self) -> KeyAt:
        return KeyAt(self._call("key_at"))

    def open_record(self, seal: SealKey, purpose: str, sealed: bytes) -> CoveredRecord:
        return CoveredRecord(*self._call("open_record", pack_seal(seal), purpose, sealed, seconds=self._seconds(seal)))

    def seal_record(self, seal: SealKey, purpose: str, record: CoveredRecord) -> bytes:
        sealed: bytes = self._call(
            "seal_record", pack_seal(seal), purpose, pack_record(record), seconds=self._seconds(seal)
        )
        return sealed

    def open_bare(self, seal: SealKey, what: str, sealed: bytes) -> bytes:
        plain: bytes = self._call("open_bare", pack_seal(seal), what, sealed, seconds=self._seconds(seal))
        return plain

    def seal_bare(self, seal: SealKey, what: str, plain: bytes) -> bytes:
        sealed: bytes = self._call("seal_bare", pack_seal(seal), what, plain, seconds=self._seconds(seal))
        return sealed

    def cover_values(self, values: Mapping[str, object]) -> Mapping[str, bytes]:
        # As JSON, which is what they are of: msgpack has no numbers beyond 64 bits.
        covered: Mapping[str, bytes] = self._call("cover_values", json.dumps(dict(values)), seconds=_CALL_SECONDS)
        return covered

    def _seconds(self, seal: SealKey) -> float:
        """How long a call with this seal may take: for another than the one in use a passphrase is stretched."""
        return _CALL_SECONDS if seal == self._in_use else _SLOW_CALL_SECONDS

    def _call(self, operation: str, *arguments: object, seconds: float | None = _SLOW_CALL_SECONDS) -> Any:
        """Raises: as the operation did; KeeperLost."""
        request = packed([operation, arguments])
        try:
            line = self._free.pop()
        except IndexError:
            line = self._connected(LINE)
        line.settimeout(seconds)
        try:
            with self._answered():
                line.sendall(request)
                error, result = read_frame(line)
        except BaseException:
            line.close()
            raise
        if self._is_stopped or len(self._free) >= _MOST_FREE:
            line.close()
        else:
            self._free.append(line)
        if error is not None:
            raise unpack_error(error)
        return result

    def _connected(self, kind: bytes) -> socket.socket:
        """Raises: KeeperLost; OSError when there is no descriptor left."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._answered():
                    socket.send_fds(self._control, [kind], [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return ours

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """A keeper that does not answer in time may never do, and others wait for it, the event loop perhaps: it ends,
        which `watch` sees. Raises: KeeperLost.
        """
        try:
            with _named_errors():
                yield
        except KeeperLost as error:
            if isinstance(error.__cause__, TimeoutError):
                self._process.kill()
            raise


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Raises: KeeperLost."""
    try:
        yield
    except TimeoutError as error:
        raise KeeperLost(_SILENT) from error
    except (EOFError, OSError, ValueError) as error:
        raise KeeperLost(_LOST) from error


def _taken() -> int | None:
    try:
        return take_from_environment(PASSPHRASE_VARIABLE)
    except ValueError as error:
        raise SealError(f"the seal passphrase cannot be used: {error}") from None


def _spawned(control: socket.socket) -> "subprocess.Popen[bytes]":
    """Raises: OSError."""
    # -P: nothing is imported from the directory the node happens to be started in.
    command = [sys.executable, "-P", "-m", "cluster.seal.keeper_process"]
    with block_node_signals():
        stdin, stdout = control.fileno(), subprocess.DEVNULL
        return subprocess.Popen(command, stdin=stdin, stdout=stdout)  # nosec B603 # noqa: S603 - our own program, no shell
