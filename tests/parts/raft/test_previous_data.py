"""A data directory that the release before has left (a single node with a compacted log, 225 certificates): it is taken
once, written anew, and from then on nobody changes it unnoticed.
"""

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from cluster.raft.journal import JournalDamaged
from cluster.raft.macs import FileMacs
from cluster.raft.membership import Member
from cluster.raft.replica import Replica, ReplicaSettings
from cluster.raft.snapshot import SnapshotDamaged, decode
from cluster.seal.disk_key import DiskKeyFile
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey
from cluster.tls.contexts import NodeTls, TlsFiles
from fsm.codec import dump_state
from tests.kit import tls_files
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.seats import roomy_seats
from tests.kit.wait import until

GOLDEN: Final = Path(__file__).parents[2] / "unit" / "raft" / "golden" / "previous-data.tar.xz"
#: As that node gave it out before it was stopped.
STATE_DIGEST: Final = "a177680e93b62d5824cbe38cc0e3cb4db80a241c0644eb0ddccabf25172cf444"
LEDGER: Final = (225, "259be95c50380de72778244d2287e32648ebf8abc313257b7708d7372b813528")
NAME: Final = "node-1"


class Previous:
    """Node `node-1` on a copy of that directory."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        with tarfile.open(GOLDEN) as tar:
            tar.extractall(self.data_dir, filter="data")
        (self.data_dir / "seal.key").chmod(0o600)
        authority = tls_files.Authority()
        authority.write_ca(directory / "ca.pem")
        authority.write_server(directory, NAME)
        files = TlsFiles(f"{directory}/ca.pem", f"{directory}/{NAME}.pem", f"{directory}/{NAME}.key")
        self._tls = NodeTls(files, "dc1", "consul")
        self.key_file = DiskKeyFile(self.data_dir, NAME, Sealer(FileKey(self.data_dir / "seal.key")))
        self.log = EventLog()

    def _macs(self, *, accepts_without: bool) -> FileMacs:
        found = self.key_file.open(accepts_without=accepts_without)
        return FileMacs(found.key, is_required=found.is_required, established=self.key_file.establish)

    @asynccontextmanager
    async def running(self, *, has_macs: bool = True, accepts_without: bool = False) -> Any:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        macs = self._macs(accepts_without=accepts_without) if has_macs else None
        members = {NAME: Member(NAME, address, address)}
        settings = ReplicaSettings(NAME, address, address, str(self.data_dir), members, macs=macs)
        replica = await Replica.start(settings, self._tls, self.log, _fatal, seats=roomy_seats("raft"))
        try:
            await until(lambda: replica.leadership.is_ready)
            yield replica
        finally:
            await replica.stop()

    async def assert_is_whole(self, **how: bool) -> None:
        async with self.running(**how) as replica:
            _, state, ledger = await replica.digest()
        assert hashlib.sha256(dump_state(state)).hexdigest() == STATE_DIGEST
        assert (ledger.count, ledger.digest) == LEDGER

    def segments(self) -> Iterator[Path]:
        yield from sorted((self.data_dir / "wal").glob("*.wal"))


def _fatal(error: BaseException) -> NoReturn:
    raise error


@pytest.fixture
def previous(tmp_path: Path) -> Previous:
    return Previous(tmp_path)


async def test_directory_of_the_release_before_is_taken_once_and_written_anew(previous: Previous) -> None:
    old = {path.name for path in previous.segments()}
    assert not previous.key_file.open().is_required
    await previous.assert_is_whole()
    assert "files.authenticated" in previous.log.names()
    assert previous.key_file.open().is_required
    assert old.isdisjoint(path.name for path in previous.segments())
    assert (previous.data_dir / "snapshot.mac").exists()
    previous.log.events.clear()
    await previous.assert_is_whole()
    assert "files.authenticated" not in previous.log.names()


async def test_release_before_goes_on_with_it_and_comes_back_only_when_that_is_said(previous: Previous) -> None:
    await previous.assert_is_whole()
    await previous.assert_is_whole(has_macs=False)  # reads and writes as that release does
    with pytest.raises(JournalDamaged, match="--accept-files-without-mac"):
        await previous.assert_is_whole()
    await previous.assert_is_whole(accepts_without=True)
    await previous.assert_is_whole()


async def test_snapshot_with_a_root_that_somebody_added_is_refused(previous: Previous) -> None:
    await previous.assert_is_whole()
    path = previous.data_dir / "snapshot"
    sound = decode(path.read_bytes())
    changed = sound.state.replace(b"Consul CA", b"Conmen CA")
    assert changed != sound.state
    body = path.read_bytes()[:-4].replace(sound.state, changed)
    path.write_bytes(body + struct.pack("<I", zlib.crc32(body)))
    assert decode(path.read_bytes()).state == changed
    with pytest.raises(SnapshotDamaged, match=rf"{path}: its MAC"):
        await previous.assert_is_whole()


async def test_files_put_back_as_they_were_before_macs_are_refused(previous: Previous) -> None:
    await previous.assert_is_whole()
    for path in (*previous.segments(), previous.data_dir / "snapshot.mac"):
        path.unlink()
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(previous.data_dir, filter="data")
    with pytest.raises((JournalDamaged, SnapshotDamaged), match="no MAC"):
        await previous.assert_is_whole()


async def test_key_that_is_gone_does_not_make_our_files_those_of_the_release_before(previous: Previous) -> None:
    """A new key is made, under which the MACs that are there are wrong."""
    await previous.assert_is_whole()
    (previous.data_dir / "mac.key").unlink()
    with pytest.raises((JournalDamaged, SnapshotDamaged), match="MAC"):
        await previous.assert_is_whole()
