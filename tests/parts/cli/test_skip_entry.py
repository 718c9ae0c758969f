"""`operator raft skip-entry` on the files of a stopped node: what it marks, and what it refuses."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cluster.raft import codec
from cluster.raft.disk import RealDisk
from cluster.raft.journal import Entry, Journal
from cluster.raft.machine import ReplicatedMachine
from cluster.raft.macs import FileMacs
from cluster.raft.membership import ChangeKind, Member, MembershipChange
from cluster.raft.skips import FILE, Skip, load_skips
from cluster.raft.snapshot import Snapshot, SnapshotFile
from cluster.seal.disk_key import DiskKeyFile
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey, write_key_file
from fsm.codec import dump_command, dump_state
from fsm.leaves import RecordLeaves
from fsm.state import State
from tests.kit import samples
from tests.parts.cli.conftest import Run

POISON = msgpack.packb([99, 7, []])
CHANGE = MembershipChange(ChangeKind.LEARN, Member("d", "127.0.0.1:1", "127.0.0.1:2", is_voter=False))
LEAVES = dump_command(RecordLeaves(samples.ISSUER, (samples.record(1), samples.record(2))))


def entries() -> list[Entry]:
    commands = [
        codec.NO_OP_COMMAND,
        codec.pack_batch(1, 1, [LEAVES]),
        codec.pack_batch(1, 2, [LEAVES, POISON]),
        bytes([codec.MEMBERSHIP]) + codec.pack_change(CHANGE),
        codec.pack_batch(1, 3, [LEAVES]),
    ]
    return [Entry(command, index, 1) for index, command in enumerate(commands, 2)]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """With a log of entries 1 to 6."""
    journal = Journal(RealDisk(), str(tmp_path / "data" / "wal"))
    for entry in [Entry(codec.NO_OP_COMMAND, 1, 0), *entries()]:
        journal.append(*entry)
    journal.sync()
    journal.close()
    return tmp_path / "data"


def test_entry_is_shown_and_marked_and_the_log_stays_as_it_is(run: Run, data_dir: Path) -> None:
    before = {path.name: path.read_bytes() for path in (data_dir / "wal").iterdir()}
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 4")
    assert (result.code, result.err) == (0, "")
    poisoned = entries()[2]
    for part in (
        "Entry:  4\nTerm:   1\n",
        Skip.of(poisoned).sha256,
        "RecordLeaves of 2 certificates",
        "command of format 99 is not known: it is of a newer release",
        "Behind: 2 entries",
        f"==> Marked entry 4 in {data_dir}",
        "on every node",
    ):
        assert part in result.out
    assert load_skips(RealDisk(), str(data_dir)) == {Skip.of(poisoned)}
    assert {path.name: path.read_bytes() for path in (data_dir / "wal").iterdir()} == before
    assert (data_dir / FILE).stat().st_mode & 0o777 == 0o600


def test_marks_add_up_and_can_be_taken_away(run: Run, data_dir: Path) -> None:
    for index in (4, 3, 4):
        assert run(f"operator raft skip-entry -data-dir {data_dir} -index {index}").code == 0
    assert {skip.log_index for skip in load_skips(RealDisk(), str(data_dir))} == {3, 4}
    assert run(f"operator raft skip-entry -data-dir {data_dir} -index 3 -undo").code == 0
    assert {skip.log_index for skip in load_skips(RealDisk(), str(data_dir))} == {4}
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 3 -undo")
    assert (result.code, result.err) == (1, "Error marking entry: entry 3 is not marked\n")


def test_dry_run_shows_the_entry_and_marks_nothing(run: Run, data_dir: Path) -> None:
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 4 -dry-run")
    assert result.code == 0
    assert "Entry:  4" in result.out
    assert not (data_dir / FILE).exists()


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (7, "entry 7 is not in this node's log, which holds entries 1 to 6"),
        (0, "entry 0 is not in this node's log"),
        (-3, "entry -3 is not in this node's log"),
        (1, "entry 1 holds nothing that is applied"),
        (5, "entry 5 changes the servers, which is in force since it is in the log"),
    ],
)
def test_other_entries_are_refused(run: Run, data_dir: Path, index: int, reason: str) -> None:
    result = run("operator raft skip-entry", "-data-dir", str(data_dir), f"-index={index}")
    assert result.code == 1
    assert reason in result.err
    assert not (data_dir / FILE).exists()


def _snapshot(data_dir: Path) -> None:
    SnapshotFile(RealDisk(), str(data_dir / "snapshot")).save(Snapshot(4, 1, (), dump_state(State())))


def _ledger(data_dir: Path) -> None:
    machine = ReplicatedMachine(str(data_dir / "ledger.db"), lambda _: None)
    machine.apply(4, [LEAVES])
    machine.commit(4)
    machine.close()


@pytest.mark.parametrize(
    ("make", "where"), [(_snapshot, "snapshot is of entry 4"), (_ledger, "ledger goes up to entry 4")]
)
def test_entry_that_has_taken_effect_here_is_refused(run: Run, data_dir: Path, make: Any, where: str) -> None:
    """Its node would differ from those that pass it over."""
    make(data_dir)
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 4")
    assert result.code == 1
    assert f"entry 4 is applied: this node's {where}" in result.err
    assert run(f"operator raft skip-entry -data-dir {data_dir} -index 6").code == 0


@pytest.fixture
def taken(data_dir: Path) -> Iterator[Path]:
    """As by a node that runs."""
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield data_dir
    os.close(fd)


def test_directory_of_a_node_that_runs_is_refused(run: Run, taken: Path) -> None:
    result = run(f"operator raft skip-entry -data-dir {taken} -index 4")
    assert (result.code, result.err) == (1, f"Error marking entry: a node runs on {taken}: stop it first\n")
    assert not (taken / FILE).exists()


def test_what_is_no_data_directory_is_refused(run: Run, tmp_path: Path) -> None:
    result = run(f"operator raft skip-entry -data-dir {tmp_path} -index 4")
    assert result.code == 1
    assert "is no data directory of a node" in result.err
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused_by_name(run: Run, data_dir: Path) -> None:
    (data_dir / FILE).write_text("{")
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 4")
    assert (result.code, FILE in result.err) == (1, True)
    (data_dir / FILE).write_text(json.dumps({"format": 1, "entries": []}))
    [segment] = (data_dir / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[60] ^= 1
    segment.write_bytes(bytes(data))
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 4")
    assert (result.code, segment.name in result.err) == (1, True)


# -- in a directory of a node that has a key for its files


@pytest.fixture
def guarded(data_dir: Path) -> tuple[Path, FileMacs]:
    write_key_file(data_dir / "seal.key")
    sealer = Sealer(FileKey(data_dir / "seal.key"))
    key_file = DiskKeyFile(data_dir, "node-1", sealer)
    key_file.open()
    key_file.establish()
    (data_dir / "node.json").write_text(json.dumps({"node_name": "node-1", "datacenter": "dc1"}))
    return data_dir, FileMacs(key_file.open().key)


def test_mark_carries_the_nodes_own_mac(run: Run, guarded: tuple[Path, FileMacs]) -> None:
    data_dir, macs = guarded
    for index in (4, 3):
        assert run(f"operator raft skip-entry -data-dir {data_dir} -index {index}").code == 0
    assert {skip.log_index for skip in load_skips(RealDisk(), str(data_dir), macs)} == {3, 4}
    assert run(f"operator raft skip-entry -data-dir {data_dir} -index 3 -undo").code == 0
    assert {skip.log_index for skip in load_skips(RealDisk(), str(data_dir), macs)} == {4}


def test_key_may_lie_elsewhere_and_without_one_nothing_is_marked(
    run: Run, guarded: tuple[Path, FileMacs], tmp_path: Path
) -> None:
    data_dir, macs = guarded
    (data_dir / "seal.key").rename(tmp_path / "key")
    command = f"operator raft skip-entry -data-dir {data_dir} -index 4"
    for more in ([], ["-seal-key", str(tmp_path / "nowhere")], ["-seal-passphrase-file", str(tmp_path / "nowhere")]):
        result = run(command, *more)
        assert (result.code, "marks carry a MAC of the node" in result.err) == (1, True)
        assert not (data_dir / FILE).exists()
    assert run(command, "-dry-run").code == 0
    assert run(command, "-seal-key", str(tmp_path / "key")).code == 0
    assert {skip.log_index for skip in load_skips(RealDisk(), str(data_dir), macs)} == {4}


def test_marks_of_somebody_else_are_not_added_to(run: Run, guarded: tuple[Path, FileMacs]) -> None:
    """They would get a good MAC by it."""
    data_dir, _ = guarded
    (data_dir / FILE).write_text(json.dumps({"format": 1, "entries": [{"log_index": 6, "term": 1, "sha256": "ab"}]}))
    before = (data_dir / FILE).read_bytes()
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 4")
    assert (result.code, "it has no MAC" in result.err) == (1, True)
    assert (data_dir / FILE).read_bytes() == before


def test_directory_that_does_not_say_whose_it_is_is_refused(run: Run, guarded: tuple[Path, FileMacs]) -> None:
    data_dir, _ = guarded
    (data_dir / "node.json").unlink()
    result = run(f"operator raft skip-entry -data-dir {data_dir} -index 4")
    assert (result.code, "whose data this is" in result.err) == (1, True)
    assert not (data_dir / FILE).exists()
