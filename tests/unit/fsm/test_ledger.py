"""The ledger: what was committed can be found, counted, paged and copied, and nothing else can."""

import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from fsm.leaves import LeafKind, LeafRecord
from fsm.ledger import (
    PART_BYTES,
    Ledger,
    LedgerDamaged,
    LedgerQuery,
    LedgerReader,
    LedgerRow,
    checkpoint,
    fills_page,
)
from tests.kit import samples
from tests.kit.samples import ISSUER, NOW, OTHER_ISSUER, record


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


@pytest.fixture
def ledger(path: str) -> Iterator[Ledger]:
    ledger = Ledger(path)
    yield ledger
    ledger.close()


@pytest.fixture
def reader(path: str, ledger: Ledger) -> Iterator[LedgerReader]:
    reader = LedgerReader(path)
    yield reader
    reader.close()


def fill(ledger: Ledger, count: int, *, start: int = 1, per_entry: int = 1, issuer: bytes = ISSUER) -> None:
    """Records `start`..., committed in entries of `per_entry`; record n has row id n and log index 100 + n at least."""
    for first in range(start, start + count, per_entry):
        records = [record(number) for number in range(first, min(first + per_entry, start + count))]
        ledger.add(100 + first, first, issuer, records)
        ledger.commit(100 + first)


def rows(reader: LedgerReader) -> list[LedgerRow]:
    return reader.search(LedgerQuery(limit=1_000_000))


def copied_at_this_moment(path: str, to: Path) -> str:
    """The files as a kill -9 at this moment would leave them."""
    for suffix in ("", "-wal"):
        shutil.copy(path + suffix, str(to) + suffix)
    return str(to)


# -- adding and finding


def test_newest_is_the_one_that_was_issued_last(ledger: Ledger, reader: LedgerReader) -> None:
    web, api = (f"spiffe://t/ns/default/dc/dc1/svc/{name}" for name in ("web", "api"))
    assert reader.newest(web) is None
    issued = [(web, 40, 90), (api, 30, 80), (web, 20, 70), (api, 10, 60)]  # the validity says nothing of the order
    for number, (spiffe_id, not_before, not_after) in enumerate(issued, start=1):
        row = replace(record(number), spiffe_id=spiffe_id, not_before=not_before, not_after=not_after)
        ledger.add(100 + number, number, ISSUER, [row])
        ledger.commit(100 + number)
    assert (reader.newest(web), reader.newest(api)) == ((20, 70), (10, 60))
    assert reader.newest(web + "x") is None


def test_newest_of_many_is_one_look_up(ledger: Ledger, reader: LedgerReader) -> None:
    """The record of an identity may have millions of rows."""
    fill(ledger, 1)
    asked: list[str] = []
    reader._db.set_trace_callback(asked.append)
    reader.newest("x")
    reader._db.set_trace_callback(None)
    plan = [row[3] for row in reader._db.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    assert "USING INDEX cert_by_identity (identity=?)" in plan[0]
    assert not any("ORDER BY" in step for step in plan)  # nothing is sorted


def test_new_ledger_is_empty(ledger: Ledger, reader: LedgerReader) -> None:
    assert (ledger.applied_log_index, ledger.last_id, ledger.summary.count) == (0, 0, 0)
    assert reader.summary() == ledger.summary
    assert rows(reader) == []
    assert reader.find(b"\x01") is None


def test_added_record_is_found_by_its_serial(ledger: Ledger, reader: LedgerReader) -> None:
    issued = record(5, kind=LeafKind.AGENT, name="node-1", spiffe_id="spiffe://x/agent", request_id=b"r" * 16)
    assert ledger.add(17, 40, ISSUER, [issued]) == ()
    ledger.commit(17)
    assert reader.find(issued.serial) == LedgerRow(40, issued, ISSUER, 17)
    assert reader.find(issued.serial + b"\0") is None


def test_records_of_one_entry_take_consecutive_ids(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.add(17, 40, ISSUER, [record(1), record(2), record(3)])
    ledger.commit(17)
    assert [row.index for row in rows(reader)] == [40, 41, 42]
    assert ledger.last_id == 42


def test_serial_that_is_known_is_refused_and_its_position_told(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.add(1, 1, ISSUER, [record(1)])
    again = record(1, name="thief", spiffe_id="spiffe://x/thief")
    assert ledger.add(2, 2, OTHER_ISSUER, [record(2), again, record(3)]) == (1,)
    ledger.commit(2)
    assert [row.record for row in rows(reader)] == [record(1), record(2), record(3)]
    assert ledger.last_id == 4  # its id stays unused, as State counted it
    assert ledger.summary.count == 3


def test_serial_twice_in_one_entry_counts_once(ledger: Ledger) -> None:
    assert ledger.add(1, 1, ISSUER, [record(1), record(1)]) == (1,)


def test_request_that_is_known_is_refused(ledger: Ledger, reader: LedgerReader) -> None:
    """A request sent once takes effect at most once, also where the provider picks another serial each time."""
    ledger.add(1, 1, ISSUER, [record(1, request_id=b"q")])
    assert ledger.add(2, 2, ISSUER, [record(2, request_id=b"q")]) == (0,)
    ledger.commit(2)
    assert reader.find(record(2).serial) is None


def test_request_is_found_by_its_id_or_by_the_serial_that_is_its_id(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.add(1, 1, ISSUER, [record(1, request_id=b"q"), record(2)])
    ledger.commit(1)
    known = [reader.find_request(b"q"), reader.find_request(record(2).serial), reader.find_request(b"none")]
    assert [row and row.index for row in known] == [1, 2, None]


def test_records_without_a_request_id_are_no_duplicates_of_each_other(ledger: Ledger) -> None:
    assert ledger.add(1, 1, ISSUER, [record(1), record(2)]) == ()


def test_one_spiffe_id_may_go_with_several_names_and_kinds(ledger: Ledger, reader: LedgerReader) -> None:
    """All servers of a datacenter share one, for example; each record reads back as it was written."""
    shared = [
        record(1, kind=LeafKind.SERVER, name="node-1", spiffe_id="spiffe://x/agent/server/dc/dc1"),
        record(2, kind=LeafKind.SERVER, name="node-2", spiffe_id="spiffe://x/agent/server/dc/dc1"),
        record(3, kind=LeafKind.AGENT, name="node-2", spiffe_id="spiffe://x/agent/server/dc/dc1"),
    ]
    ledger.add(1, 1, ISSUER, shared)
    ledger.commit(1)
    assert [row.record for row in rows(reader)] == shared
    ledger.tidy(NOW + 1000)
    ledger.commit(2)
    assert int(ledger.summary.digest, 16) == 0


# -- commits


def test_reader_sees_nothing_before_the_commit_and_everything_behind_it(ledger: Ledger, reader: LedgerReader) -> None:
    before = reader.summary()
    ledger.add(1, 1, ISSUER, [record(1)])
    assert reader.find(record(1).serial) is None
    assert reader.summary() == before
    ledger.commit(1)
    assert reader.find(record(1).serial) is not None
    assert reader.summary() == ledger.summary != before


def test_entries_without_records_are_counted_with_the_next_ones(ledger: Ledger, reader: LedgerReader) -> None:
    fill(ledger, 1)
    ledger.commit(150)
    assert ledger.applied_log_index == 150
    ledger.add(151, 2, ISSUER, [record(2)])
    ledger.commit(151)
    assert reader.summary().applied_log_index == 151


def test_rollback_forgets_what_was_not_committed(ledger: Ledger, reader: LedgerReader) -> None:
    fill(ledger, 2)
    before = ledger.summary
    new = record(3, name="new", spiffe_id="spiffe://x/new")
    ledger.add(200, 3, OTHER_ISSUER, [new])
    ledger.rollback()
    assert (ledger.summary, ledger.last_id) == (before, 2)
    ledger.add(201, 3, OTHER_ISSUER, [new])  # issuer and identity are known no longer, so they are made again
    ledger.commit(201)
    assert reader.find(new.serial) == LedgerRow(3, new, OTHER_ISSUER, 201)


def test_reopened_ledger_goes_on_where_it_was(ledger: Ledger, path: str) -> None:
    fill(ledger, 5)
    before = (ledger.summary, ledger.last_id, ledger.applied_log_index)
    ledger.close()
    again = Ledger(path)
    assert (again.summary, again.last_id, again.applied_log_index) == before
    again.add(106, 6, ISSUER, [record(6)])
    again.commit(106)
    assert again.summary.count == 6


def test_killed_before_the_commit_it_reopens_as_of_the_last_commit(ledger: Ledger, path: str, tmp_path: Path) -> None:
    fill(ledger, 5)
    before = (ledger.summary, ledger.last_id)
    ledger.add(200, 6, ISSUER, [record(number) for number in range(6, 5000)])
    again = Ledger(copied_at_this_moment(path, tmp_path / "copy.db"))
    assert (again.summary, again.last_id) == before
    again.close()


def test_killed_behind_the_commit_it_reopens_as_of_the_commit(ledger: Ledger, path: str, tmp_path: Path) -> None:
    fill(ledger, 5)
    again = Ledger(copied_at_this_moment(path, tmp_path / "copy.db"))
    assert (again.summary, again.last_id) == (ledger.summary, 5)
    again.close()


def test_killed_while_it_was_made_it_can_be_made_again(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema alone, without the rows that a start needs, would lock the node out for ever."""
    copies = []
    write_meta = Ledger._write_meta

    def copy_before(ledger: Ledger, **values: int | str) -> None:
        copies.append(copied_at_this_moment(path, tmp_path / "copy.db"))
        write_meta(ledger, **values)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_write_meta", copy_before)
        Ledger(path).close()
    again = Ledger(copies[0])
    assert again.summary.count == 0
    again.close()


def test_replay_of_a_committed_prefix_changes_nothing(ledger: Ledger, path: str) -> None:
    """As the machine does it: entries up to `applied_log_index` are not added again."""
    fill(ledger, 9)
    before = ledger.summary
    ledger.close()
    again = Ledger(path)
    for number in range(1, 10):
        if 100 + number > again.applied_log_index:
            again.add(100 + number, number, ISSUER, [record(number)])
        again.commit(max(100 + number, again.applied_log_index))
    assert again.summary == before
    again.close()


def test_checkpointed_it_needs_no_write_ahead_log(ledger: Ledger, path: str, tmp_path: Path) -> None:
    fill(ledger, 5)
    assert checkpoint(path) == 0
    shutil.copy(path, tmp_path / "copy.db")
    again = Ledger(str(tmp_path / "copy.db"))
    assert again.summary == ledger.summary
    again.close()


@contextmanager
def reading(path: str) -> Iterator[None]:
    """A reader that keeps everything committed meanwhile in the write-ahead log."""
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM cert").fetchone()
    yield
    reader.close()


def test_checkpoint_tells_what_a_reader_kept_it_from_copying(ledger: Ledger, path: str) -> None:
    fill(ledger, 5)
    with reading(path):
        ledger.add(200, 6, ISSUER, [record(6)])
        ledger.commit(200)
        assert checkpoint(path) > 0
    assert checkpoint(path) == 0


def test_write_ahead_log_starts_again_behind_a_checkpoint_that_left_something(ledger: Ledger, path: str) -> None:
    sizes = []

    def issue(number: int) -> None:
        ledger.add(number, number, ISSUER, [record(number)])
        ledger.commit(number)

    for number in range(1, 401):
        if number % 100 == 50:
            with reading(path):
                issue(number)
                checkpoint(path)
            ledger.start_log_again()
        else:
            issue(number)
        if number % 100 == 0:
            sizes.append(Path(f"{path}-wal").stat().st_size)
    assert sizes[-1] < sizes[1] * 1.2


# -- searching


def issue_mixture(ledger: Ledger) -> dict[str, LeafRecord]:
    records = {
        "web 1": record(1, name="web", spiffe_id="spiffe://x/svc/web", not_after=NOW + 10),
        "agent": record(2, name="web", spiffe_id="spiffe://x/agent/web", kind=LeafKind.AGENT, not_after=NOW + 20),
        "api": record(3, name="api", spiffe_id="spiffe://x/svc/api", not_after=NOW + 30),
        "web 2": record(4, name="web", spiffe_id="spiffe://x/svc/web", not_after=NOW + 40),
    }
    ledger.add(1, 1, ISSUER, [records["web 1"], records["agent"]])
    ledger.add(2, 3, OTHER_ISSUER, [records["api"], records["web 2"]])
    ledger.commit(2)
    return records


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (LedgerQuery(), ["web 1", "agent", "api", "web 2"]),
        (LedgerQuery(service="web"), ["web 1", "web 2"]),
        (LedgerQuery(service="none"), []),
        (LedgerQuery(spiffe_id="spiffe://x/svc/web"), ["web 1", "web 2"]),
        (LedgerQuery(kind=LeafKind.AGENT), ["agent"]),
        (LedgerQuery(kind=LeafKind.AGENT, service="web"), []),
        (LedgerQuery(issuer_key_id=OTHER_ISSUER), ["api", "web 2"]),
        (LedgerQuery(issuer_key_id=b"unknown"), []),
        (LedgerQuery(expires_before=NOW + 30), ["web 1", "agent"]),
        (LedgerQuery(service="web", issuer_key_id=ISSUER, expires_before=NOW + 11), ["web 1"]),
        (LedgerQuery(requested_by="anonymous@"), ["web 1", "agent", "api", "web 2"]),
        (LedgerQuery(requested_by="anonymous@", service="api"), ["api"]),
        (LedgerQuery(requested_by="nonymous@"), []),
        (LedgerQuery(requested_by="Anonymous@"), []),
        (LedgerQuery(requested_by="anonymous_"), []),
        (LedgerQuery(requested_by="%"), []),
        (LedgerQuery(limit=2), ["web 1", "agent"]),
        (LedgerQuery(after=2), ["api", "web 2"]),
        (LedgerQuery(after=2, limit=1), ["api"]),
        (LedgerQuery(after=4), []),
        (LedgerQuery(limit=0), []),
        (LedgerQuery(services=("web",)), ["web 1", "web 2"]),
        (LedgerQuery(services=("api", "web", "none")), ["web 1", "api", "web 2"]),
        (LedgerQuery(services=("api", "web"), after=1, limit=1), ["api"]),
        (LedgerQuery(services=("api", "web"), spiffe_id="spiffe://x/svc/web"), ["web 1", "web 2"]),
        (LedgerQuery(services=("web",), spiffe_id="spiffe://x/agent/web"), []),
        (LedgerQuery(services=("' OR 1=1 --",)), []),
    ],
)
def test_search_finds_what_passes_every_filter(
    ledger: Ledger, reader: LedgerReader, query: LedgerQuery, names: list[str]
) -> None:
    records = issue_mixture(ledger)
    assert [row.record for row in reader.search(query)] == [records[name] for name in names]


def test_text_in_a_filter_is_never_sql(ledger: Ledger, reader: LedgerReader) -> None:
    issue_mixture(ledger)
    assert reader.search(LedgerQuery(service="' OR 1=1 --")) == []


def test_search_by_services_is_the_same_as_picking_theirs_out_of_all(ledger: Ledger, reader: LedgerReader) -> None:
    for number in range(1, 60):
        name = f"s{number * 7 % 5}"
        ledger.add(number, number, ISSUER, [record(number, name=name, spiffe_id=f"spiffe://x/{number % 3}/{name}")])
    ledger.commit(59)
    for names in (("s1",), ("s0", "s3"), ("s0", "s1", "s2", "s3", "s4"), ("s9",)):
        for limit, after in itertools.product((1, 5, 100), (0, 17, 59)):
            found = reader.search(LedgerQuery(services=names, limit=limit, after=after))
            assert found == [row for row in rows(reader) if row.record.name in names and row.index > after][:limit]


def test_search_by_services_steps_through_no_rows_of_others(ledger: Ledger, path: str) -> None:
    """Neither its work nor its time says how many there are."""
    fill(ledger, 3)
    own = record(4, name="own", spiffe_id="spiffe://x/svc/own")
    ledger.add(4, 4, ISSUER, [own])
    ledger.commit(4)

    def steps() -> int:
        reader, count = LedgerReader(path), 0

        def counted() -> None:
            nonlocal count
            count += 1

        reader.search(LedgerQuery(services=("own",)))  # prepares statements
        reader._db.set_progress_handler(counted, 1)
        assert [row.record for row in reader.search(LedgerQuery(services=("own",)))] == [own]
        reader.close()
        return count

    before = steps()
    fill(ledger, 2000, start=5)
    assert steps() == before


@pytest.mark.parametrize(
    ("prefixes", "at_most", "found"),
    [
        ((), 9, []),
        (("",), 9, ["api", "web", "web-2"]),
        (("w",), 9, ["web", "web-2"]),
        (("web-", "a"), 9, ["web-2", "api"]),
        (("web", "w", ""), 9, ["web", "web-2", "api"]),
        (("x", "%", "_", "*", "' OR 1=1 --"), 9, []),
        (("",), 1, ["api", "web"]),
    ],
)
def test_names_of_services_by_their_beginnings(
    ledger: Ledger, reader: LedgerReader, prefixes: tuple[str, ...], at_most: int, found: list[str]
) -> None:
    issue_mixture(ledger)
    ledger.add(3, 5, ISSUER, [record(5, name="web-2"), record(6, name="wa", kind=LeafKind.AGENT)])
    ledger.commit(3)
    assert reader.service_names(prefixes, at_most) == found


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_pages_joined_are_the_whole_even_while_more_is_issued(ledger: Ledger, reader: LedgerReader, limit: int) -> None:
    fill(ledger, 20)
    found: list[int] = []
    page = reader.search(LedgerQuery(limit=limit))
    while page:
        found += [row.index for row in page]
        if len(found) <= 20:
            fill(ledger, 1, start=ledger.last_id + 1)
        page = reader.search(LedgerQuery(limit=limit, after=found[-1]))
    assert found == list(range(1, ledger.last_id + 1))


def test_page_of_large_certificates_is_short_and_the_next_one_follows(ledger: Ledger, reader: LedgerReader) -> None:
    for number in range(1, 12):
        ledger.add(number, number, ISSUER, [record(number, name="\U0001f600" * 60_000)])
    ledger.commit(11)
    found: list[int] = []
    pages = 0
    while page := reader.search(LedgerQuery(limit=100, after=found[-1] if found else 0)):
        found += [row.index for row in page]
        pages += 1
        assert sum(len(row.record.name.encode()) for row in page) < 2 * PART_BYTES
        assert fills_page(page) == (len(page) == 5)
    assert (found, pages) == (list(range(1, 12)), 3)


# -- digest and tidying


def test_digest_does_not_depend_on_order_or_grouping(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(str(tmp_path / "other.db"))
    fill(ledger, 6)
    other.add(7, 4, ISSUER, [record(4), record(5), record(6)])
    other.add(9, 1, ISSUER, [record(1), record(2), record(3)])
    other.commit(9)
    assert (other.summary.count, other.summary.digest) == (ledger.summary.count, ledger.summary.digest)
    other.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": b"\x77"},
        {"kind": LeafKind.AGENT},
        {"name": "x"},
        {"spiffe_id": "spiffe://x"},
        {"public_key_sha256": b"x"},
        {"not_before": 1},
        {"not_after": 1},
        {"requested_by": "x"},
        {"request_id": b"x"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_digest_covers_every_field(ledger: Ledger, tmp_path: Path, changes: dict[str, object]) -> None:
    other = Ledger(str(tmp_path / "other.db"))
    ledger.add(1, 1, ISSUER, [record(1)])
    other.add(1, 1, ISSUER, [record(1, **changes)])
    assert ledger.summary.digest != other.summary.digest
    other.close()


def test_digest_covers_issuer_and_index(ledger: Ledger, tmp_path: Path) -> None:
    digests = set()
    for number, (first_id, issuer) in enumerate([(1, ISSUER), (1, OTHER_ISSUER), (2, ISSUER)]):
        other = Ledger(str(tmp_path / f"{number}.db"))
        other.add(1, first_id, issuer, [record(1)])
        digests.add(other.summary.digest)
        other.close()
    assert len(digests) == 3


def test_tidied_ledger_equals_one_that_never_had_the_expired(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(str(tmp_path / "other.db"))
    fill(ledger, 20)
    assert ledger.tidy(NOW + 11) == 10
    ledger.commit(200)
    fill(other, 10, start=11)
    assert (other.summary.count, other.summary.digest) == (ledger.summary.count, ledger.summary.digest)
    other.close()


def test_tidying_drops_what_expired_before_and_keeps_the_rest(ledger: Ledger, reader: LedgerReader) -> None:
    fill(ledger, 3)
    assert ledger.tidy(NOW + 2) == 1  # expires at NOW + 2 itself: not before
    ledger.commit(200)
    assert [row.index for row in rows(reader)] == [2, 3]
    assert ledger.tidy(NOW + 2) == 0
    assert ledger.last_id == 3


def test_tidy_time_limits_how_many_go_at_once(ledger: Ledger, reader: LedgerReader) -> None:
    fill(ledger, 10)
    time = reader.tidy_time(NOW + 100, at_most=4)
    assert time == NOW + 6  # the fifth expires at NOW + 5
    assert ledger.tidy(time) == 5
    ledger.commit(200)
    assert reader.tidy_time(NOW + 100, at_most=5) == NOW + 100
    assert reader.tidy_time(NOW + 7, at_most=4) == NOW + 7


# -- copying


def copy(source: LedgerReader, target: Ledger, up_to: int, at_least: int) -> None:
    while part := source.export_rows(target.last_id, up_to, at_least):
        target.import_rows(part)
        target.commit(part[-1][11])


@pytest.mark.parametrize("at_least", [1, 2, 5, 100])
def test_copy_in_parts_equals_the_original(ledger: Ledger, reader: LedgerReader, tmp_path: Path, at_least: int) -> None:
    fill(ledger, 23, per_entry=4)
    target = Ledger(str(tmp_path / "target.db"))
    copy(reader, target, 23, at_least)
    assert (target.last_id, target.summary) == (23, ledger.summary)
    found = LedgerReader(str(tmp_path / "target.db"))
    assert rows(found) == rows(reader)
    found.close()
    target.close()


def test_part_never_ends_within_a_log_entry(ledger: Ledger, reader: LedgerReader) -> None:
    """To the release before, what was copied counts as applied up to its last entry, so that entry must be whole."""
    fill(ledger, 23, per_entry=4)
    assert [row[0] for row in reader.export_rows(0, 23, 2)] == [1, 2, 3, 4]
    assert [row[0] for row in reader.export_rows(4, 6, 1)] == [5, 6]


@pytest.mark.parametrize("length", [1, 300, 20_000, PART_BYTES])
@pytest.mark.parametrize("field", ["name", "spiffe_id", "requested_by", "public_key_sha256"])
def test_part_is_bounded_by_its_bytes_too(
    ledger: Ledger, reader: LedgerReader, tmp_path: Path, field: str, length: int
) -> None:
    value: Any = b"x" * length if field == "public_key_sha256" else "\U0001f600" * (length // 4)
    count = min(3 * PART_BYTES // length, 300)
    for first in range(1, count, 2):
        ledger.add(first, first, ISSUER, [record(first, **{field: value}), record(first + 1, **{field: value})])
    ledger.commit(count)
    target = Ledger(str(tmp_path / "target.db"))
    while part := reader.export_rows(target.last_id, ledger.last_id, 1000):
        assert len(part) <= 2 or sum(len(msgpack.packb(row)) for row in part[:-2]) < PART_BYTES + 300 * len(part)
        target.import_rows(part)
        target.commit(part[-1][11])
    assert target.summary.digest == ledger.summary.digest
    target.close()


@pytest.mark.parametrize("at_least", [1, 100, 1000])
def test_entry_whose_rows_are_far_larger_than_itself_is_divided(
    ledger: Ledger, reader: LedgerReader, at_least: int
) -> None:
    """Its issuer stands in it once, and in each of its rows."""
    ledger.add(1, 1, b"k" * (PART_BYTES // 4), [record(number) for number in range(1, 101)])
    ledger.commit(1)
    after, parts = 0, 0
    while part := reader.export_rows(after, 100, at_least):
        assert len(msgpack.packb(part)) <= 9 * PART_BYTES
        assert part[0][0] == after + 1
        after, parts = part[-1][0], parts + 1
    assert after == 100
    assert parts >= 3


def test_copy_stops_at_the_snapshot(ledger: Ledger, reader: LedgerReader) -> None:
    fill(ledger, 10)
    assert [row[0] for row in reader.export_rows(2, 5, 100)] == [3, 4, 5]


def test_rows_that_do_not_follow_are_refused(ledger: Ledger, reader: LedgerReader, tmp_path: Path) -> None:
    fill(ledger, 5)
    part = reader.export_rows(0, 5, 100)
    target = Ledger(str(tmp_path / "target.db"))
    target.import_rows(part[:3])
    target.commit(103)
    before = target.summary
    for wrong in (part, [part[3], part[3]], [part[4], part[3]], [(9, *part[0][1:])]):
        with pytest.raises(ValueError, match="does not follow"):
            target.import_rows(wrong)
        target.rollback()
        assert (target.summary, target.last_id) == (before, 3)
    target.close()


def test_copy_whose_last_rows_were_tidied_reaches_the_end(ledger: Ledger) -> None:
    fill(ledger, 3)
    ledger.cut_to(10, 103)
    ledger.commit(103)
    assert (ledger.last_id, ledger.summary.count) == (10, 3)


def test_copy_that_was_cut_short_is_taken_back(ledger: Ledger, reader: LedgerReader, path: str, tmp_path: Path) -> None:
    fill(ledger, 1200)
    source = LedgerReader(path)
    part = source.export_rows(0, 1200, 1200)
    source.close()
    target = Ledger(str(tmp_path / "target.db"))
    found = LedgerReader(str(tmp_path / "target.db"))
    target.import_rows(part[:3])
    target.cut_to(3, 103)
    target.commit(103)
    before = target.summary
    target.import_rows(part[3:])
    target.commit(target.applied_log_index)
    assert (target.summary.count, target.applied_log_index, found.damage()) == (1200, 103, "")
    target.cut_to(3, 103)
    target.commit(103)
    assert (target.summary, target.last_id, found.damage()) == (before, 3, "")
    found.close()
    target.close()


# -- damage


@pytest.mark.parametrize("offset", [0, 16, 100])
def test_damaged_file_is_refused(ledger: Ledger, path: str, offset: int) -> None:
    fill(ledger, 5)
    checkpoint(path)
    ledger.close()
    data = bytearray(Path(path).read_bytes())
    data[offset : offset + 64] = b"\xff" * 64
    Path(path).write_bytes(data)
    with pytest.raises(LedgerDamaged, match=r"ledger\.db"):
        Ledger(path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cert SET public_key_sha256 = x'00' WHERE id = 3",
        "UPDATE cert SET not_after = not_after + 1 WHERE id = 3",
        "UPDATE identity SET name = 'other' WHERE id = 1",
        "UPDATE issuer SET key_id = x'00'",
        "UPDATE cert SET log_index = 1 WHERE id = 3",
        "UPDATE cert SET log_index = 1 << 40 WHERE id = 5",
        "DELETE FROM cert WHERE id = 5",
        "UPDATE meta SET value = 'x' WHERE key = 'count'",
        "DELETE FROM meta",
    ],
)
def test_row_that_changed_behind_the_ledgers_back_is_damage(
    ledger: Ledger, reader: LedgerReader, path: str, change: str
) -> None:
    """SQLite has no checksums: what is well-formed it takes for right."""
    fill(ledger, 5, per_entry=2)
    assert reader.damage() == ""
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    assert reader.damage() != ""


def test_header_that_makes_it_read_only_is_refused_at_once(ledger: Ledger, path: str) -> None:
    """And not when the first certificate is to be recorded."""
    fill(ledger, 1)
    ledger.close()
    data = bytearray(Path(path).read_bytes())
    data[18] = 6  # "file format write version": https://www.sqlite.org/fileformat2.html
    Path(path).write_bytes(data)
    with pytest.raises(LedgerDamaged, match=r"ledger\.db.*readonly"):
        Ledger(path)


@pytest.mark.parametrize("change", ["DELETE FROM meta WHERE key = 'count'", "UPDATE meta SET value = 'x'"])
def test_counters_that_cannot_be_read_are_refused(ledger: Ledger, path: str, change: str) -> None:
    ledger.close()
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    with pytest.raises(LedgerDamaged, match=r"ledger\.db"):
        Ledger(path)


def test_tidied_ledger_is_not_damaged(ledger: Ledger, reader: LedgerReader) -> None:
    fill(ledger, 5)
    ledger.tidy(NOW + 3)
    ledger.commit(200)
    assert reader.damage() == ""


def test_file_that_is_no_database_is_refused(path: str) -> None:
    Path(path).write_bytes(b"not a database, but long enough to have a header" * 100)
    with pytest.raises(LedgerDamaged):
        Ledger(path)


def test_ledger_of_a_newer_format_is_refused(ledger: Ledger, path: str) -> None:
    ledger.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = 2 WHERE key = 'format'")
    db.commit()
    db.close()
    with pytest.raises(LedgerDamaged, match="format 2"):
        Ledger(path)


def test_rows_read_back_as_they_were(ledger: Ledger, reader: LedgerReader) -> None:
    issued = [record(1), record(2, request_id=b"\0" * 16), replace(record(3), name="", requested_by="ä\0ö")]
    ledger.add(5, 1, ISSUER, issued)
    ledger.commit(5)
    assert [row.record for row in rows(reader)] == issued
    assert samples.record(2).request_id == b""
