"""Any sequence of journal operations, restarts and power cuts reads back as a list of entries would."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.raft.journal import Entry, Journal
from tests.sim.disk import SimDisk

OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 900)),
    st.tuples(st.just("append"), st.integers(0, 20)),
    st.tuples(st.just("truncate"), st.integers(0, 40)),
    st.tuples(st.just("term"), st.integers(1, 9)),
    st.tuples(st.just("compact"), st.integers(0, 40)),
    st.tuples(st.just("reset"), st.integers(1, 100)),
    st.tuples(st.just("sync"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("power cut"), st.integers(0, 1000)),
)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.lists(OPERATIONS, max_size=40))
def test_journal_is_a_list_of_entries(operations: list[tuple[str, int]]) -> None:
    disk = SimDisk()
    journal = Journal(disk, "data/wal", segment_bytes=1000)
    model: list[Entry] = []
    term = 0
    for name, value in operations:
        next_index = model[-1].log_index + 1 if model else 1
        match name:
            case "append":
                model.append(Entry(bytes([term]) * value, next_index, term))
                journal.append(*model[-1])
            case "truncate" if len(model) > 1:
                cut = max(next_index - value, model[0].log_index + 1)
                model = [entry for entry in model if entry.log_index < cut]
                journal.truncate_from(cut)
            case "term":
                term += value
                journal.set_term(term, f"vote {term}")
            case "compact" if model:
                base = max(model[0].log_index, model[-1].log_index - value)
                model = [entry for entry in model if entry.log_index >= base]
                journal.compact_to(base)
            case "reset":
                model = [Entry(b"base", next_index + value, term)]
                journal.reset(model[0])
            case "sync":
                journal.sync()
            case "restart":
                journal.close()
                journal = Journal(disk, "data/wal", segment_bytes=1000)
            case "power cut":
                journal.sync()
                disk.cut_power(random.Random(value))
                journal = Journal(disk, "data/wal", segment_bytes=1000)
        assert list(journal.entries) == model
        assert (journal.term, journal.vote) == (term, f"vote {term}" if term else None)
        assert journal.retained_bytes == sum(len(entry.command) for entry in model)
