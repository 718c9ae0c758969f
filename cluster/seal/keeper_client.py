"""The main process's side of the keeper (keeper.py): starts it, asks it, and ends with it."""

import asyncio
import collections
import contextlib
import json
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from cluster.base.process import take_from_environment
from cluster.seal.disk_key import DiskKey
from cluster.seal.keeper import CoveredRecord
from cluster.seal.keeper_server import (
    GRANT,
    LINE,
    Beginning,
    pack_record,
    pack_seal,
    read_frame,
    unpack_error,
    write_frame,
)
from cluster.seal.sealer import DerivedKeys
from cluster.seal.sources import PASSPHRASE_VARIABLE, KeyPlaces, SealError
from fsm.ca import SealKey

#: A process starts in a fraction of a second, also on a busy machine.
_START_SECONDS: Final = 15.0
#: Stretching a passphrase is what takes longest: a quarter of a second.
_CALL_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 2.0
_LOST: Final = "the process that keeps the seal key has ended"


class KeeperLost(SealError):
    """Without its keeper a node can neither open nor seal, and ends: whoever has started it starts it again."""


class KeeperProcess:
    """Implements `KeeperCalls`. Made by `start`. May be asked from every thread; each call has a socket of its own."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._free: collections.deque[socket.socket] = collections.deque()

    @classmethod
    async def start(cls, node_name: str, places: KeyPlaces, refused: Callable[[str], None]) -> "KeeperProcess":
        """Takes the seal's passphrase out of the environment. `refused` is told of protections that the system refused.

        Raises: SealError when there is no seal key; OSError.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # -P: nothing is imported from the directory the node happens to be started in.
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "cluster.seal.keeper_process",
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                )
        except BaseException:
            ours.close()
            raise
        # The keeper has it: no process that is started from here on needs it, nor whoever may look at this one.
        take_from_environment(PASSPHRASE_VARIABLE)
        keeper = cls(process, ours)
        try:
            for text in await asyncio.to_thread(keeper._begin, Beginning.of(node_name, places)):
                refused(text)
        except BaseException:
            await keeper.stop()
            raise
        return keeper

    def _begin(self, beginning: Beginning) -> list[str]:
        self._control.settimeout(_START_SECONDS)
        refused: list[str] = _asked(self._control, beginning.packed())
        return refused

    @property
    def pid(self) -> int:
        return self._process.pid

    async def watch(self) -> NoReturn:
        """Until it has ended; to be cancelled before `stop`. Raises: KeeperLost."""
        status = await self._process.wait()
        raise KeeperLost(f"{_LOST} with status {status}: start the node again")

    async def stop(self) -> None:
        self._control.close()
        while self._free:
            self._free.pop().close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def grant(self) -> socket.socket:
        """For a process that signs: what it reads the key of the cover from (`cover.take_over`). It is written by the
        keeper, and this process does not look. Raises: KeeperLost.
        """
        return self._connected(GRANT)

    # -- calls

    def check_node(self, facts: Mapping[str, Any] | None) -> None:
        self._call("check_node", None if facts is None else dict(facts))

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

    def unlock(self, seal: SealKey) -> DerivedKeys:
        return DerivedKeys(*self._call("unlock", pack_seal(seal)))

    def derived_keys(self, seal: SealKey) -> DerivedKeys:
        return DerivedKeys(*self._call("derived_keys", pack_seal(seal)))

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
        try:
            line = self._free.pop()
        except IndexError:
            line = self._connected(LINE)
            line.settimeout(_CALL_SECONDS)
        try:
            result = _asked(line, [operation, arguments])
        except KeeperLost:
            line.close()
            raise
        except Exception:
            self._free.append(line)
            raise
        self._free.append(line)
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


def _asked(line: socket.socket, request: object) -> Any:
    try:
        write_frame(line, request)
        error, result = read_frame(line)
    except TimeoutError as failed:
        raise KeeperLost("the process that keeps the seal key does not answer") from failed
    except (EOFError, OSError) as failed:
        raise KeeperLost(_LOST) from failed
    if error is not None:
        raise unpack_error(error)
    return result
