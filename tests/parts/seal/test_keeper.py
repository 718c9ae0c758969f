"""What a node asks of its keeper: the same whether it is asked in one process, as in most tests, or over sockets."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cluster.base.config import NodeConfig, parse_config
from cluster.seal import keeper_client, keeper_server
from cluster.seal.cover import NOTHING, Cover, CoverError, take_over
from cluster.seal.disk_key import MAC_KEY
from cluster.seal.keeper import CoveredRecord, KeeperCalls
from cluster.seal.keeper_client import KeeperLost, KeeperProcess
from cluster.seal.keeper_server import read_frame, serve
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.records import PlainRecord, RecordUnreadable, open_record, seal_record
from cluster.seal.sealer import Sealer
from cluster.seal.sources import (
    NEXT_KEY,
    FileKey,
    KeyAt,
    KeyMissing,
    SealError,
    key_source,
    next_sources,
    write_key_file,
)
from tests.kit.keeper import kept, sealer_in
from tests.kit.node_config import minimal
from tests.kit.wait import eventually, until

SECRETS = {"PrivateKey": "a private key, which is long enough to be found", "Token": ""}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_key_file(tmp_path / "seal.key")
    return tmp_path


def config_in(directory: Path) -> NodeConfig:
    return parse_config(minimal(node_name="a", data_dir=str(directory)), source="t")


async def started(directory: Path) -> KeeperProcess:
    return await KeeperProcess.start("a", config_in(directory), lambda _reason: None)


@pytest.fixture
async def process(data: Path) -> AsyncIterator[KeeperProcess]:
    keeper = await started(data)
    try:
        yield keeper
    finally:
        await keeper.stop()


@pytest.fixture(params=["here", "process"])
async def keeper(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[KeeperCalls]:
    if request.param == "here":
        config = config_in(data)
        yield kept(Sealer(key_source(config), *next_sources(config)), data).keeper
        return
    keeper = await started(data)
    try:
        yield keeper
    finally:
        await keeper.stop()


async def test_record_is_open_to_the_keeper_alone(keeper: KeeperCalls, data: Path) -> None:
    seal = keeper.new_data_key()
    keeper.unlock(seal)
    inside = sealer_in(data, seal)
    sealed = seal_record(inside, "one", PlainRecord(SECRETS, b"state", "{}"))
    record = keeper.open_record(seal, "one", sealed)
    assert record.config_json == "{}"
    assert record.secrets["Token"] == NOTHING
    assert b"private key" not in record.secrets["PrivateKey"]
    assert b"state" not in record.state
    again = keeper.seal_record(seal, "two", record)
    assert open_record(inside, "two", again) == PlainRecord(SECRETS, b"state", "{}")
    with pytest.raises(SealError, match="does not open with this cluster's data key"):
        keeper.open_record(seal, "one", again)


async def test_secrets_that_are_given_are_equal_to_those_that_are_stored(keeper: KeeperCalls, data: Path) -> None:
    seal = keeper.new_data_key()
    stored = {"AuthMethod": {"Params": {"b": 7, "a": "ü"}, "Type": "x"}}
    sealed = seal_record(sealer_in(data, seal), "p", PlainRecord(stored, b"", "{}"))
    given = {"AuthMethod": {"Type": "x", "Params": {"a": "ü", "b": 7}}}
    assert keeper.open_record(seal, "p", sealed).secrets == keeper.cover_values(given)
    assert keeper.open_record(seal, "p", sealed).secrets != keeper.cover_values({"AuthMethod": "x"})


async def test_what_is_covered_otherwise_is_not_sealed(keeper: KeeperCalls) -> None:
    seal = keeper.new_data_key()
    for record in (
        CoveredRecord({"Token": b"in the clear, by mistake"}, NOTHING, "{}"),
        CoveredRecord({}, Cover(bytes(64)).cover(b"of another node"), "{}"),
    ):
        with pytest.raises(CoverError):
            keeper.seal_record(seal, "p", record)


@pytest.mark.parametrize("plain", [b"", b"\xc1", b"\x93\x01\x02", b"\x93\x01\x02\x03", b"\x90"], ids=bytes.hex)
async def test_record_of_no_release_is_an_error_and_no_end(keeper: KeeperCalls, data: Path, plain: bytes) -> None:
    seal = keeper.new_data_key()
    with pytest.raises(RecordUnreadable, match="the sealed p cannot be read"):
        keeper.open_record(seal, "p", sealer_in(data, seal).seal(plain, "p"))
    assert keeper.lacks(seal.source, seal.kek_id, seal.salt) == ""


async def test_what_is_derived_is_of_one_seal_and_one_purpose(keeper: KeeperCalls, data: Path) -> None:
    first, second = keeper.new_data_key(), keeper.new_data_key()
    keeper.unlock(first)
    found = []
    for seal in (first, second):
        inside = sealer_in(data, seal)
        found += [keeper.draw_key(seal), keeper.mac(seal, b"x"), keeper.proof(seal, b"x")]
        assert found[-3:] == [inside.draw_key(), inside.mac(b"x"), inside.proof(b"x")]
    assert len(set(found)) == len(found) == 6


async def test_seal_in_use_outlives_its_key(keeper: KeeperCalls, data: Path) -> None:
    seal, other = keeper.new_data_key(), keeper.new_data_key()
    keeper.unlock(seal)
    (data / "seal.key").unlink()
    sealed = keeper.seal_record(seal, "p", CoveredRecord({}, NOTHING, "{}"))
    assert keeper.open_record(seal, "p", sealed).config_json == "{}"
    with pytest.raises(KeyMissing, match="is missing"):
        keeper.draw_key(other)
    write_key_file(data / NEXT_KEY)
    after = keeper.next_data_key(seal, keeps_key=False)
    inside = Sealer(FileKey(data / NEXT_KEY))
    inside.unlock(after)
    assert keeper.draw_key(after) == inside.draw_key()


async def test_data_key_out_of_use_is_forgotten(keeper: KeeperCalls, data: Path) -> None:
    """That of before, and those that were opened beside it."""
    before, beside, after = (keeper.new_data_key() for _ in range(3))
    keeper.unlock(before)
    keeper.draw_key(beside)
    keeper.unlock(after)
    (data / "seal.key").unlink()
    keeper.draw_key(after)
    for gone in (before, beside):
        with pytest.raises(KeyMissing):
            keeper.draw_key(gone)


async def test_data_key_of_another_seal_is_forgotten_in_a_while(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.seal.keeper._OPEN_SECONDS", 0.1)
    keeper = kept(Sealer(FileKey(data / "seal.key")), data).keeper
    used, other = keeper.new_data_key(), keeper.new_data_key()
    keeper.unlock(used)
    keeper.draw_key(other)
    (data / "seal.key").unlink()
    await until(lambda: not keeper._others._open)
    with pytest.raises(KeyMissing):
        keeper.draw_key(other)
    keeper.draw_key(used)


async def test_change_of_key_is_followed(keeper: KeeperCalls, data: Path) -> None:
    assert keeper.open_disk_key(accepts_without=False, always_requires=True).is_required
    seal = keeper.new_data_key()
    keeper.unlock(seal)
    assert keeper.key_at() is KeyAt.FIRST
    with pytest.raises(SealError, match="there is no next seal key"):
        keeper.next_data_key(seal, keeps_key=False)
    write_key_file(data / NEXT_KEY)
    after = keeper.next_data_key(seal, keeps_key=False)
    assert after.kek_id != seal.kek_id
    keeper.unlock(after)
    assert keeper.key_at() is KeyAt.NEXT
    key = keeper.open_disk_key(accepts_without=False, always_requires=False)
    keeper.follow_disk_key()
    os.replace(data / NEXT_KEY, data / "seal.key")
    assert keeper.key_at() is KeyAt.FIRST
    keeper.check_node({"source": "file", "kek_id": after.kek_id, "salt": ""})
    with pytest.raises(SealError, match="wrong seal key"):
        keeper.check_node({"source": "file", "kek_id": seal.kek_id, "salt": ""})
    assert "is not here" in keeper.lacks("file", seal.kek_id, b"")
    assert keeper.open_disk_key(accepts_without=False, always_requires=False) == key


async def test_files_that_fail_say_which_and_why(keeper: KeeperCalls, data: Path) -> None:
    keeper.open_disk_key(accepts_without=False, always_requires=False)
    (data / MAC_KEY).unlink()
    (data / MAC_KEY).mkdir()
    with pytest.raises(OSError, match="Is a directory") as caught:
        keeper.establish_disk_key()
    assert str(caught.value.filename) == str(data / MAC_KEY)


# -- the process


async def test_without_a_key_the_node_is_told_at_its_start(tmp_path: Path) -> None:
    keeper = await started(tmp_path)
    try:
        with pytest.raises(SealError, match=r"the seal key .*seal\.key is missing"):
            keeper.check_node(None)
    finally:
        await keeper.stop()
    assert not children()


async def test_passphrase_leaves_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORUMCA_SEAL_PASSPHRASE", "short")
    config = parse_config(minimal(node_name="a", data_dir=str(tmp_path), seal={"source": "passphrase"}), source="t")
    with pytest.raises(SealError, match="at least 12 characters"):
        await KeeperProcess.start("a", config, lambda _reason: None)
    assert "QUORUMCA_SEAL_PASSPHRASE" not in os.environ
    assert not children()
    monkeypatch.setenv("QUORUMCA_SEAL_PASSPHRASE", "correct horse battery staple")
    keeper = await KeeperProcess.start("a", config, lambda _reason: None)
    try:
        assert "QUORUMCA_SEAL_PASSPHRASE" not in os.environ
        assert b"battery" not in Path(f"/proc/{keeper.pid}/environ").read_bytes()
        seal = await asyncio.to_thread(keeper.new_data_key)
        await asyncio.to_thread(keeper.unlock, seal)
        assert len(await asyncio.to_thread(keeper.draw_key, seal)) == 32
    finally:
        await keeper.stop()


def children() -> list[psutil.Process]:
    found = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in found if "cluster.seal.keeper_process" in process.cmdline()]


async def test_processes_that_sign_have_the_same_cover(process: KeeperProcess) -> None:
    covers = [Cover(take_over(process.grant())) for _ in range(2)]
    covered = process.cover_values(SECRETS)
    assert [cover.uncover_values(covered) for cover in covers] == [SECRETS, SECRETS]


async def test_cover_is_good_for_one_life_of_a_node(process: KeeperProcess, data: Path) -> None:
    covered = process.cover_values(SECRETS)["PrivateKey"]
    other = await started(data)
    try:
        assert other.cover_values(SECRETS)["PrivateKey"] != covered
        seal = other.new_data_key()
        with pytest.raises(CoverError):
            other.seal_record(seal, "p", CoveredRecord({"PrivateKey": covered}, NOTHING, "{}"))
    finally:
        await other.stop()


def test_it_is_protected_before_it_is_told_anything() -> None:
    """No debugger, no core dump, and no life of its own: see `cluster.base.process`."""
    code = """
import ctypes, json, resource
from cluster.seal import keeper_process, keeper_server
def serve(control, refused):
    prctl, signal = ctypes.CDLL(None).prctl, ctypes.c_int()
    prctl(2, ctypes.byref(signal))  # PR_GET_PDEATHSIG
    dumpable = prctl(3)  # PR_GET_DUMPABLE
    print(json.dumps([refused, dumpable, signal.value, resource.getrlimit(resource.RLIMIT_CORE)]))
keeper_server.serve = serve
keeper_process.main()
"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ended = subprocess.run([sys.executable, "-c", code], stdin=theirs.fileno(), capture_output=True, check=False)
    assert ended.stderr == b""
    assert json.loads(ended.stdout) == [[], 0, signal.SIGKILL, [0, 0]]


async def test_passphrase_that_is_no_text_has_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"QUORUMCA_SEAL_PASSPHRASE", b"\xff" * 16)
    config = parse_config(minimal(node_name="a", data_dir=str(tmp_path), seal={"source": "passphrase"}), source="t")
    with pytest.raises(SealError, match="must be text in UTF-8"):
        await KeeperProcess.start("a", config, lambda _reason: None)


async def test_it_is_asked_from_many_threads(process: KeeperProcess) -> None:
    seal = process.new_data_key()
    together = threading.Barrier(4)

    def ask(number: int) -> None:
        together.wait(10)
        for _ in range(50):
            record = CoveredRecord(process.cover_values({"Token": str(number)}), NOTHING, str(number))
            assert process.open_record(seal, "p", process.seal_record(seal, "p", record)) == record

    await asyncio.gather(*(asyncio.to_thread(ask, number) for number in range(4)))


async def test_end_of_it_is_known_and_every_call_says_so(process: KeeperProcess) -> None:
    seal = process.new_data_key()
    watching = asyncio.ensure_future(process.watch())
    await asyncio.sleep(0)
    assert not watching.done()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(KeeperLost, match="the process that keeps the seal key has ended with status -9"):
        await watching
    for _ in range(2):
        with pytest.raises(KeeperLost, match="is gone"):
            process.unlock(seal)
    with pytest.raises(KeeperLost, match="is gone"):
        process.grant()


async def test_it_is_not_waited_for_for_ever(process: KeeperProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has ended then, too: so does the node, instead of standing still at each call."""
    monkeypatch.setattr(keeper_client, "_CALL_SECONDS", 0.2)
    watching = asyncio.ensure_future(process.watch())
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(KeeperLost, match="does not answer"):
        await asyncio.wait_for(asyncio.to_thread(process.cover_values, SECRETS), 10.0)
    with pytest.raises(KeeperLost, match="ended with status -9"):
        await asyncio.wait_for(watching, 10.0)


async def test_signals_for_all_of_a_nodes_processes_are_not_for_it(data: Path) -> None:
    """A terminal that is closed, Ctrl-C, a service that is stopped: from its first moment on."""
    before = {process.pid for process in psutil.Process().children()}
    starting = asyncio.ensure_future(started(data))

    async def spawned() -> list[psutil.Process]:
        return [process for process in psutil.Process().children() if process.pid not in before]

    (child,) = await eventually("it is there", spawned)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
    keeper = await starting
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(keeper.pid, number)
        assert keeper.new_data_key().source == "file"
    finally:
        await keeper.stop()


@pytest.mark.parametrize(
    "facts",
    ["x", 5, [1], True, {"source": 1 << 70}, {"source": "\ud800", "kek_id": "a", "salt": ""}, {"salt": "zz"}],
    ids=repr,
)
async def test_damaged_facts_of_a_node_have_words(keeper: KeeperCalls, facts: Any) -> None:
    with pytest.raises(SealError, match=r"node\.json|this node's data was sealed with source"):
        keeper.check_node(facts)


async def test_path_may_be_anything_that_a_file_system_takes(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"d\xff\xfe")
    directory.mkdir()
    keeper = await started(directory)
    try:
        with pytest.raises(SealError, match="is missing"):
            keeper.check_node(None)
        write_key_file(directory / "seal.key")
        keeper.check_node(None)
    finally:
        await keeper.stop()


async def test_what_no_frame_can_carry_is_an_error_and_the_next_call_is_answered(process: KeeperProcess) -> None:
    seal = process.new_data_key()
    with pytest.raises(ValueError, match="larger than"):
        process.open_record(seal, "p", bytes(9 << 20))
    with pytest.raises(ValueError):  # noqa: PT011 - the answer is what would be too large
        process.cover_values({str(number): "s" * 1030 for number in range(8000)})
    assert process.lacks(seal.source, seal.kek_id, seal.salt) == ""


async def test_lines_of_a_busy_moment_are_not_kept(process: KeeperProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(12)

    def read_together(line: socket.socket) -> Any:
        together.wait(10)
        return read_frame(line)

    with monkeypatch.context() as patched, ThreadPoolExecutor(12) as pool:
        patched.setattr(keeper_client, "read_frame", read_together)
        calls = [pool.submit(process.check_node, None) for _ in range(12)]
    assert [call.result() for call in calls] == [None] * 12

    async def few() -> bool:
        return psutil.Process(process.pid).num_threads() <= 1 + 8

    await eventually("the keeper has no threads for lines that are closed", few)
    process.check_node(None)


async def test_keeper_without_threads_refuses_one_call_and_goes_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    class Thread(threading.Thread):
        refusals = 1

        def start(self) -> None:
            if Thread.refusals:
                Thread.refusals -= 1
                raise RuntimeError("can't start new thread")
            super().start()

    class Process:
        pid = 0

        def wait(self, timeout: float | None = None) -> int:
            ended.wait(timeout)
            return 0

    def spawned(control: socket.socket) -> Process:
        kept = control.dup()

        def run() -> None:
            serve(kept, [])
            ended.set()

        threading.Thread(target=run, daemon=True).start()
        return Process()

    monkeypatch.setattr(keeper_client, "_spawned", spawned)
    monkeypatch.setattr(keeper_server, "threading", SimpleNamespace(Thread=Thread))
    keeper = await started(data)
    try:
        with pytest.raises(KeeperLost, match="takes no more connections"):
            keeper.new_data_key()
        keeper.unlock(keeper.new_data_key())
    finally:
        await keeper.stop()
    assert ended.is_set()


async def test_process_that_ended_before_its_grant_takes_nobody_with_it(process: KeeperProcess) -> None:
    for _ in range(20):
        process.grant().close()
    covered = process.cover_values(SECRETS)
    assert Cover(take_over(process.grant())).uncover_values(covered) == SECRETS


async def test_it_ends_when_nobody_is_left_to_ask(data: Path) -> None:
    keeper = await started(data)
    keeper.new_data_key()
    keeper._control.close()

    async def ended() -> bool:
        return not children()

    await eventually("the process has ended", ended)
    await keeper.stop()


async def test_sealer_of_a_node_shows_no_key(process: KeeperProcess) -> None:
    sealer = NodeSealer(process)
    assert sealer.node_facts() is None
    with pytest.raises(SealError, match="no seal yet"):
        sealer.mac(b"x")
    seal = sealer.new_data_key()
    sealer.unlock(seal)
    assert repr(process.draw_key(seal)) not in repr(sealer._held)
