"""How a node starts and stops, but for its ports: whose data it is, one process each, which seal."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import Mock

import pytest

from cluster import main
from cluster.base.config import NodeConfig, parse_config
from cluster.main import _data_dir
from cluster.node.seals import SealWatch
from cluster.node.start import StartError, _facts_of, _replica_settings, _task
from cluster.raft.macs import FileMacs
from cluster.raft.membership import Member
from cluster.raft.node import CompactionPolicy
from cluster.seal.keeper import CoveredRecord
from cluster.seal.node_file import NodeFile
from cluster.seal.sealer import Sealer
from cluster.seal.sources import SealError, key_source, write_key_file
from fsm.ca import InitSeal
from tests.kit.fake_cluster import FakeCluster
from tests.kit.keeper import Kept, kept
from tests.kit.log import EventLog
from tests.kit.node_config import minimal
from tests.kit.wait import until


def config_in(directory: Path, **changes: Any) -> NodeConfig:
    return parse_config(minimal(data_dir=str(directory), **changes), source="t")


def checked(config: NodeConfig) -> Kept:
    """As at the start of a node."""
    node = kept(Sealer(key_source(config)), config.data_dir, config.node_name)
    node.keeper.check_node(_facts_of(config, NodeFile(config.data_dir)))
    return node


def test_data_directory_is_made_private_and_for_one_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with _data_dir(path):
        assert path.stat().st_mode & 0o777 == 0o700
        with pytest.raises(StartError, match=f"data_dir {path} is in use by another node"), _data_dir(path):
            pass
    with _data_dir(path):  # free again
        pass


def test_new_directory_needs_a_seal_key_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(SealError, match=r"seal key .* is missing"):
        checked(config_in(tmp_path))
    write_key_file(tmp_path / "seal.key")
    node = checked(config_in(tmp_path))
    with pytest.raises(SealError, match="no seal yet"):
        node.sealer.seal_record("x", CoveredRecord({}, b"", "{}"))


@pytest.mark.parametrize("changes", [{"node_name": "b"}, {"datacenter": "dc2"}], ids=str)
def test_data_of_another_node_is_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    write_key_file(tmp_path / "seal.key")
    NodeFile(tmp_path).write({"node_name": "a", "datacenter": "dc1", "seal": None})
    checked(config_in(tmp_path))
    with pytest.raises(StartError, match="belongs to node a of dc1, not to"):
        checked(config_in(tmp_path, **changes))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_node_file_stops_the_start(tmp_path: Path, content: str) -> None:
    write_key_file(tmp_path / "seal.key")
    (tmp_path / "node.json").write_text(content)
    with pytest.raises(StartError, match=r"node\.json is damaged"):
        checked(config_in(tmp_path))


async def test_seal_is_opened_as_soon_as_there_is_one_and_remembered(cluster: FakeCluster, tmp_path: Path) -> None:
    config, node_file = config_in(tmp_path), NodeFile(tmp_path)
    node, replica = checked(config), cluster.replicas["a"].real
    watching = asyncio.ensure_future(SealWatch(replica, node.sealer, node_file, node.keeper, config, EventLog()).run())
    await asyncio.sleep(0)
    assert not watching.done()
    cluster.commit(InitSeal(node.sealer.new_data_key()))
    await until(lambda: node_file.read() is not None)
    record = CoveredRecord({}, node.cover.cover(b"secret"), "{}")
    assert node.sealer.open_record("x", node.sealer.seal_record("x", record)) == record
    assert node_file.read() == {"node_name": "a", "datacenter": "dc1", "seal": node.sealer.node_facts()}
    # It goes on: another seal may follow.
    assert not watching.done()
    watching.cancel()
    (tmp_path / "seal.key").unlink()
    write_key_file(tmp_path / "seal.key")
    with pytest.raises(SealError, match="wrong seal key"):
        checked(config)


async def test_node_that_cannot_open_the_clusters_seal_stops(cluster: FakeCluster, tmp_path: Path) -> None:
    config = config_in(tmp_path)
    cluster.commit(InitSeal(checked(config).sealer.new_data_key()))
    (tmp_path / "other").mkdir()
    write_key_file(tmp_path / "other" / "seal.key")
    other = config_in(tmp_path / "other")
    node = checked(other)
    replica, node_file = cluster.replicas["b"].real, NodeFile(tmp_path / "other")
    with pytest.raises(SealError, match="is needed, and is not here"):
        await SealWatch(replica, node.sealer, node_file, node.keeper, other, EventLog()).run()
    assert NodeFile(tmp_path / "other").read() is None


async def test_error_in_the_background_stops_the_node_and_its_end_does_not() -> None:
    fatal: list[BaseException] = []

    def keep(error: BaseException) -> NoReturn:
        fatal.append(error)
        raise error

    async def fail() -> None:
        raise ZeroDivisionError

    async def forever() -> None:
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    async with _task(fail(), keep), _task(forever(), keep):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [type(error) for error in fatal] == [ZeroDivisionError]


def test_raft_gets_what_the_file_says(tmp_path: Path) -> None:
    raft = {"advertise": "10.0.0.1:8300", "heartbeat_ms": 100, "election_timeout_min_ms": 900, "keep_bytes": 99}
    macs = FileMacs(b"k" * 32)
    settings = _replica_settings(config_in(tmp_path, raft=raft), macs)
    assert settings.macs is macs
    assert (settings.bind_address, settings.raft_address) == ("127.0.0.1:8300", "10.0.0.1:8300")
    assert settings.initial_members == {"a": Member("a", "127.0.0.1:8300", "127.0.0.1:8400")}
    assert (settings.timing.heartbeat, settings.timing.election_min, settings.timing.election_max) == (0.1, 0.9, 1.0)
    assert settings.compaction == CompactionPolicy(trigger_bytes=4 << 20, keep_bytes=99)


async def test_exception_of_a_callback_is_a_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_args: object, **_options: object) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: Mock(side_effect=KeyError)())
        loop.call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(main, "start_node", start)
    monkeypatch.setattr(main, "last_resort", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(main, "gc", Mock())
    log = EventLog()
    await main._run(config_in(tmp_path), log, False, None)
    assert log.names() == ["loop.failed", "node.stopping", "node.stopped"]
    assert "KeyError" in str(log.events[0][1]["reason"])
