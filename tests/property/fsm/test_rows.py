"""Whatever is on record, of this release or one without bounds: it can be copied and saved, and what may be proposed
today can be restored too. What cannot is named when it is saved.
"""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.raft.machine import ReplicatedMachine
from cluster.rpc.messages import RowMessage
from fsm import codec
from fsm.codec import OutOfBounds, check_command
from fsm.commands import Applied
from fsm.fields import LAST_SECOND, MAX_INT64, MIN_INT64
from fsm.leaves import MAX_REQUESTER, LeafKind, LeafRecord, RecordLeaves
from fsm.ledger import LedgerQuery, LedgerReader
from tests.kit import samples
from tests.kit.macs import mac_with

META = Meta(1, 5, 9, samples.NOW, "dc1", "a", "x.consul", "aa", 1, 0, "file", "0123456789abcdef")
MAC = mac_with(b"m" * 32)
modest = settings(deadline=None, max_examples=150, derandomize=True)

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["x" * 4096, "x" * 4097, "é" * 2048, "\U0001f600" * 1025, "\0", "\n"]),
)
blobs = st.one_of(st.binary(max_size=24), st.sampled_from([b"\0" * 20, b"\x01" * 64, b"\x01" * 65, b"\x01" * 257]))
numbers = st.one_of(
    st.integers(MIN_INT64, MAX_INT64), st.sampled_from([MIN_INT64, -1, 0, LAST_SECOND, LAST_SECOND + 1, MAX_INT64])
)
#: As a release without bounds has taken them.
odd_records = st.builds(LeafRecord, blobs, numbers, texts, texts, blobs, numbers, numbers, texts, blobs)
moments = st.integers(0, LAST_SECOND)
#: As they may be proposed today, up to the bounds.
good_records = st.builds(
    LeafRecord,
    st.binary(min_size=1, max_size=20).filter(lambda serial: serial[0] != 0),
    st.sampled_from([int(kind) for kind in LeafKind]),
    texts.filter(lambda text: "\0" not in text and len(text.encode()) <= 4096),
    texts.filter(lambda text: "\0" not in text and len(text.encode()) <= 4096),
    st.binary(max_size=64),
    moments,
    moments,
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=MAX_REQUESTER),
    st.binary(max_size=64),
)
good_commands = st.builds(
    RecordLeaves, st.binary(max_size=256), st.lists(good_records, min_size=1, max_size=4).map(tuple)
)
all_commands = st.one_of(
    good_commands,
    st.builds(RecordLeaves, blobs, st.lists(st.one_of(odd_records, good_records), max_size=4).map(tuple)),
)


class Recorded:
    """A node that has applied these commands, as they come out of a log."""

    def __init__(self, directory: Path, commands: list[RecordLeaves]) -> None:
        self.directory = directory
        self.path = str(directory / "ledger.db")
        self.machine = ReplicatedMachine(self.path, lambda _: None)
        for log_index, command in enumerate(commands, 2):
            [result] = self.machine.apply(log_index, [codec.dump_command(command)])
            assert isinstance(result, Applied)
            self.machine.commit(log_index)
        self.log_index = 1 + len(commands)

    def copy(self) -> ReplicatedMachine:
        """On a node that gets all of it from this one."""
        target = ReplicatedMachine(str(self.directory / "copy.db"), lambda _: None)
        snapshot, is_last = self.machine.capture()(), False
        while not is_last:
            part, is_last = self.machine.bulk_read(target.bulk_position(), snapshot)
            target.bulk_write(part, self.log_index, snapshot)
        target.install(self.log_index, snapshot)
        return target

    def saved(self) -> tuple[Meta, backup.Saved]:
        reader = LedgerReader(self.path)
        try:
            up_to = self.machine.bulk_position()
            meta = backup.write(
                self.directory / "saved.tgz",
                META,
                samples.full_state(),
                MAC,
                lambda after: reader.export_rows(after, up_to, backup.PAGE_ROWS),
            )
        finally:
            reader.close()
        return meta, backup.read(self.directory / "saved.tgz")


def restorable(row: tuple[Any, ...]) -> bool:
    """By today's bounds. A requester that is too long is cut."""
    _, serial, kind, name, spiffe_id, issuer, key, begin, end, by, request, _ = row
    record = LeafRecord(serial, kind, name, spiffe_id, key, begin, end, by[:MAX_REQUESTER], request or b"")
    with contextlib.suppress(OutOfBounds):
        check_command(RecordLeaves(issuer, (record,)))
        return True
    return False


def carried(record: LeafRecord) -> LeafRecord:
    """From the node that was asked to restore to the leader."""
    return msgpack.decode(msgpack.encode(RowMessage.of(record)), type=RowMessage).value()


@modest
@given(st.lists(all_commands, max_size=5))
def test_what_is_on_record_can_be_copied_and_saved_and_what_no_restore_takes_is_named(
    commands: list[RecordLeaves],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        recorded = Recorded(Path(directory), commands)
        copied = recorded.copy()
        one, two = (machine.ledger_summary for machine in (copied, recorded.machine))
        assert (one.count, one.digest) == (two.count, two.digest)
        meta, saved = recorded.saved()
        reader = LedgerReader(recorded.path)
        rows = reader.export_rows(0, 1 << 62, 1 << 30, 1 << 30)
        assert meta.certificates == len(rows) == recorded.machine.ledger_summary.count
        wrong = [row[0] for row in rows if not restorable(row)]
        if wrong:
            assert meta.not_restorable.startswith(f"certificate {wrong[0]}: ")
            assert meta.not_restorable.isprintable()
            assert meta.not_restorable.isascii()
            with pytest.raises(backup.SnapshotInvalid, match=f"certificate {wrong[0]}: "):
                saved.check_rows()
        else:
            assert meta.not_restorable == ""
            assert len([row for page in saved.pages() for row in page]) == len(rows)
        for open_one in (reader, copied, recorded.machine):
            open_one.close()


@modest
@given(st.lists(good_commands, max_size=5))
def test_what_may_be_proposed_comes_back_from_a_snapshot_as_it_was(commands: list[RecordLeaves]) -> None:
    for command in commands:
        check_command(command)
    with tempfile.TemporaryDirectory() as directory:
        recorded = Recorded(Path(directory), commands)
        meta, saved = recorded.saved()
        assert meta.not_restorable == ""
        restored = [row for page in saved.pages() for row in page]
        brought = [RecordLeaves(row.issuer_key_id, (carried(row.record),)) for row in restored]
        for command in brought:
            check_command(command)
        (Path(directory) / "again").mkdir()
        again = Recorded(Path(directory) / "again", brought)
        reader, other = LedgerReader(recorded.path), LedgerReader(again.path)
        one, two = (
            [(row.record, row.issuer_key_id) for row in found.search(LedgerQuery(limit=1000))]
            for found in (reader, other)
        )
        assert one == two
        for open_one in (reader, other, recorded.machine, again.machine):
            open_one.close()
