"""Reading the ledger from its own thread."""

import asyncio
import threading

import pytest

from cluster.record.reads import LedgerReads
from fsm.leaves import LeafRecord, RecordLeaves
from fsm.ledger import LedgerReader
from tests.kit.fake_cluster import FakeCluster, no_flush


def _record(number: int) -> RecordLeaves:
    leaf = LeafRecord(bytes([number]), 1, "web", "spiffe://x/y", b"h" * 32, 1, 2, "t")
    return RecordLeaves(b"k" * 20, (leaf,))


async def test_each_call_sees_what_was_applied_when_it_began(cluster: FakeCluster) -> None:
    reads = LedgerReads(cluster.ledger_path, no_flush)
    assert await reads.call(lambda reader: reader.find(b"\x01")) is None
    cluster.commit(_record(1))
    row = await reads.call(lambda reader: reader.find(b"\x01"))
    assert row is not None
    assert row.index == 1
    reads.close()


async def test_slow_read_leaves_the_loop_alone_and_the_next_one_waits(cluster: FakeCluster) -> None:
    reads = LedgerReads(cluster.ledger_path, no_flush)
    gate, order = threading.Event(), []

    def slow(_reader: LedgerReader) -> None:
        assert gate.wait(10)
        order.append("slow")

    first = asyncio.ensure_future(reads.call(slow))
    second = asyncio.ensure_future(reads.call(lambda _: order.append("fast")))
    await asyncio.sleep(0)  # the loop goes on meanwhile
    gate.set()
    await asyncio.gather(first, second)
    assert order == ["slow", "fast"]
    reads.close()


async def test_error_of_a_read_is_its_callers_and_the_next_one_works(cluster: FakeCluster) -> None:
    reads = LedgerReads(cluster.ledger_path, no_flush)
    with pytest.raises(ZeroDivisionError):
        await reads.call(lambda _: 1 // 0)
    assert (await reads.call(lambda reader: reader.summary())).count == 0
    reads.close()


async def test_closing_without_a_read_is_fine(cluster: FakeCluster) -> None:
    LedgerReads(cluster.ledger_path, no_flush).close()
