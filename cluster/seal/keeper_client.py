"""The main process's side of the keeper (keeper.py): starts it, asks it, and ends with it."""

import asyncio
import collections
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from cluster.base.errors import NotReady
from cluster.base.process import take_from_environment
from cluster.seal.disk_key import DiskKey
from cluster.seal.keeper import CoveredRecord
from cluster.seal.keeper_server import GRANT, LINE, Beginning, pack_record, pack_seal, packed, read_frame, unpack_error
from cluster.seal.sources import KeyPlaces, SealError
from cluster.seal.variables import PASSPHRASE_VARIABLE
from fsm.ca import SealKey

#: A process starts in a fraction of a second, also on a busy machine.
_START_SECONDS: Final = 15.0
#: Opening and sealing take less than a millisecond, and stretching a passphrase a quarter of a second.
_CALL_SECONDS: Final = 3.0
_SLOW_CALL_SECONDS: Final = 15.0
_QUICK: Final = frozenset({"open_record", "seal_record", "cover_values", "mac", "proof"})
_STOP_SECONDS: Final = 2.0
_LOST: Final = "the process that keeps the seal key has ended"
#: They may be sent to all processes of a terminal or of a service; this one decides when the keeper ends.
_NOT_FOR_IT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class KeeperLost(SealError, NotReady):
    """Without its keeper a node can neither open nor seal, and ends: whoever has started it starts it again."""


class KeeperProcess:
    """Implements `KeeperCalls`. Made by `start`. May be asked from every thread; each call has a socket of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._free: collections.deque[socket.socket] = collections.deque()

    @classmethod
    async def start(
        cls, node_name: str, places: KeyPlaces, refused: Callable[[str], None], passphrase: int | None = None
    ) -> "KeeperProcess":
        """`refused` is told of protections that the system refused. `passphrase` is what `take_from_environment` has
        returned for it; None: it is taken now. Raises: SealError when there is no seal key; OSError.
        """
        passphrase = _taken() if passphrase is None else passphrase
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                keeper = cls(_spawned(theirs, passphrase), ours)
        except BaseException:
            ours.close()
            raise
        finally:
            if passphrase is not None:
                os.close(passphrase)
        try:
            for text in await asyncio.to_thread(keeper._begin, Beginning.of(node_name, places)):
                refused(text)
        except BaseException:
            await keeper.stop()
            raise
        return keeper

    def _begin(self, beginning: Beginning) -> list[str]:
        self._control.settimeout(_START_SECONDS)
        error, refused = _exchanged(self._control, packed(beginning.packed()))
        if error is not None:
            raise unpack_error(error)
        names: list[str] = refused
        return names

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
        raise KeeperLost(f"{_LOST} with status {status}: start the node again")

    async def stop(self) -> None:
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
        key, is_required = self._call("open_disk_key", accepts_without, always_requires)
        return DiskKey(key, is_required=is_required)

    def establish_disk_key(self) -> None:
        self._call("establish_disk_key")

    def follow_disk_key(self) -> None:
        self._call("follow_disk_key")

    def new_data_key(self) -> SealKey:
        return SealKey(*self._call("new_data_key"))

    def next_data_key(self, before: SealKey, *, keeps_key: bool) -> SealKey:
        return SealKey(*self._call("next_data_key", pack_seal(before), keeps_key))

    def lacks(self, source: str, kek_id: str, salt: bytes) -> str:
        problem: str = self._call("lacks", source, kek_id, salt)
        return problem

    def unlock(self, seal: SealKey) -> None:
        self._call("unlock", pack_seal(seal))

    def draw_key(self, seal: SealKey) -> bytes:
        key: bytes = self._call("draw_key", pack_seal(seal))
        return key

    def mac(self, seal: SealKey, sums: bytes) -> bytes:
        mac: bytes = self._call("mac", pack_seal(seal), sums)
        return mac

    def proof(self, seal: SealKey, request: bytes) -> bytes:
        proof: bytes = self._call("proof", pack_seal(seal), request)
        return proof

    def is_moved(self) -> bool:
        return bool(self._call("is_moved"))

    def open_record(self, seal: SealKey, purpose: str, sealed: bytes) -> CoveredRecord:
        return CoveredRecord(*self._call("open_record", pack_seal(seal), purpose, sealed))

    def seal_record(self, seal: SealKey, purpose: str, record: CoveredRecord) -> bytes:
        sealed: bytes = self._call("seal_record", pack_seal(seal), purpose, pack_record(record))
        return sealed

    def cover_values(self, values: Mapping[str, object]) -> Mapping[str, bytes]:
        # As JSON, which is what they are of: msgpack has no numbers beyond 64 bits.
        covered: Mapping[str, bytes] = self._call("cover_values", json.dumps(dict(values)))
        return covered

    def _call(self, operation: str, *arguments: object) -> Any:
        """Raises: as the operation did; KeeperLost."""
        request = packed([operation, arguments])
        try:
            line = self._free.pop()
        except IndexError:
            line = self._connected(LINE)
        line.settimeout(_CALL_SECONDS if operation in _QUICK else _SLOW_CALL_SECONDS)
        try:
            error, result = _exchanged(line, request)
        except BaseException as failed:
            line.close()
            if isinstance(failed.__cause__, TimeoutError):
                # It may never answer again, and others wait for it, the event loop perhaps: `watch` will see its end.
                self._process.kill()
            raise
        self._free.append(line)
        if error is not None:
            raise unpack_error(error)
        return result

    def _connected(self, kind: bytes) -> socket.socket:
        """Raises: KeeperLost; OSError when there is no descriptor left."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [kind], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise KeeperLost(_LOST) from error
        return ours


def _exchanged(line: socket.socket, request: bytes) -> tuple[Any, Any]:
    """The error, or None, and the result. Raises: KeeperLost."""
    try:
        line.sendall(request)
        error, result = read_frame(line)
    except TimeoutError as failed:
        raise KeeperLost("the process that keeps the seal key does not answer") from failed
    except (EOFError, OSError, ValueError) as failed:
        raise KeeperLost(_LOST) from failed
    return error, result


def _taken() -> int | None:
    try:
        return take_from_environment(PASSPHRASE_VARIABLE)
    except ValueError as error:
        raise SealError(f"the seal passphrase cannot be used: {error}") from None


def _spawned(control: socket.socket, passphrase: int | None) -> "subprocess.Popen[bytes]":
    """Raises: OSError."""
    descriptors = () if passphrase is None else (passphrase,)
    # -P: nothing is imported from the directory the node happens to be started in.
    command = [sys.executable, "-P", "-m", "cluster.seal.keeper_process", *map(str, descriptors)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_IT)  # which it inherits
    try:
        return subprocess.Popen(  # noqa: S603 - our own program, no shell
            command, stdin=control.fileno(), stdout=subprocess.DEVNULL, pass_fds=descriptors
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
