"""Whatever sequence of commands: nodes that apply it agree, invariants hold, and a cut anywhere leaves no trace."""

import contextlib
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.raft.machine import ReplicatedMachine
from fsm import codec
from fsm.acl import Acl
from fsm.apply import RULES, STALE_INDEX, apply
from fsm.ca import InitConfig, InitSeal
from fsm.ca_rules import broken_invariant
from fsm.commands import Applied, Command, Rejected
from fsm.ledger import LedgerQuery, LedgerReader, LedgerRow, LedgerSummary
from fsm.nodes import Nodes
from fsm.state import Area, State
from tests.kit import samples
from tests.property.fsm.strategies import Author, authors, commands, made_from

INITIAL: list[Command] = [InitSeal(samples.SEAL), InitConfig(samples.config(), samples.provider_state())]
#: Kinds of commands that are refused unless they were made from the present index.
GUARDED = {kind for kind in RULES if "expected_index" in {field.name for field in dataclasses.fields(kind)}}
sequences = st.lists(authors, max_size=12)
#: Long enough for whole rotations.
long_sequences = st.lists(authors, min_size=8, max_size=20)
modest = settings(deadline=None, max_examples=60, derandomize=True)
thorough = settings(modest, max_examples=200)


def history(sequence: Sequence[Author]) -> list[Command]:
    """The commands of a cluster's log, each made from the state behind the ones before it."""
    log = list(INITIAL)
    state = samples.run(State(), log)[0]
    for author in sequence:
        log.append(author(state))
        state, _ = apply(state, log[-1])
    return log


class Node:
    """A replicated machine on files of its own, fed like a Raft node feeds it; log indexes start at 2."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = str(directory / f"{name}.db")
        self.machine = ReplicatedMachine(self.path, lambda _: None)

    def apply(self, log: Sequence[Command], start: int = 0) -> None:
        for log_index, command in enumerate(log[start:], 2 + start):
            self.machine.apply(log_index, [codec.dump_command(command)])
            self.machine.commit(log_index)

    def stopped(self) -> tuple[State, LedgerSummary, list[LedgerRow]]:
        """Everything it knows, but for how far its ledger has counted entries without records."""
        state = self.machine.state
        self.machine.close()
        reader = LedgerReader(self.path)
        summary, rows = reader.summary(), reader.search(LedgerQuery(limit=1_000_000))
        reader.close()
        return state, LedgerSummary(0, summary.count, summary.digest), rows


@modest
@given(sequences)
def test_nodes_that_apply_the_same_log_are_equal(sequence: list[Author]) -> None:
    log = history(sequence)
    with tempfile.TemporaryDirectory() as directory:
        nodes = [Node(Path(directory), name) for name in "ab"]
        for node in nodes:
            node.apply(log)
        one, two = (node.stopped() for node in nodes)
        assert one == two


@modest
@given(sequences, st.data())
def test_restart_at_any_cut_leaves_no_trace(sequence: list[Author], data: st.DataObject) -> None:
    """The state starts again from nothing or from a snapshot, the ledger is ahead of it: replay gives the same."""
    log = history(sequence)
    snapshot_at = data.draw(st.integers(0, len(log)))
    stopped_at = data.draw(st.integers(snapshot_at, len(log)))
    with tempfile.TemporaryDirectory() as directory:
        steady, restarted = Node(Path(directory), "steady"), Node(Path(directory), "restarted")
        steady.apply(log)
        restarted.apply(log[:snapshot_at])
        snapshot = restarted.machine.capture()()
        restarted.apply(log[:stopped_at], start=snapshot_at)
        restarted.machine.close()
        restarted = Node(Path(directory), "restarted")
        restarted.machine.load(snapshot)
        restarted.apply(log, start=snapshot_at)
        assert restarted.stopped() == steady.stopped()


@modest
@given(sequences, st.data())
def test_node_caught_up_by_a_snapshot_is_equal(sequence: list[Author], data: st.DataObject) -> None:
    """It had a part of the log, gets state and ledger rows as of a later entry, and the log from there on."""
    log = history(sequence)
    snapshot_at = data.draw(st.integers(0, len(log)))
    had = data.draw(st.integers(0, snapshot_at))
    with tempfile.TemporaryDirectory() as directory:
        steady, late = Node(Path(directory), "steady"), Node(Path(directory), "late")
        steady.apply(log[:snapshot_at])
        snapshot = steady.machine.capture()()
        # The leader goes on meanwhile; what it tidies is then missing in the copy.
        steady.apply(log, start=snapshot_at)
        late.apply(log[:had])
        is_last = False
        while not is_last:
            part, is_last = steady.machine.bulk_read(late.machine.bulk_position(), snapshot)
            late.machine.bulk_write(part, 1 + snapshot_at, snapshot)
        late.machine.install(1 + snapshot_at, snapshot)
        late.machine.commit(1 + snapshot_at)
        late.apply(log, start=snapshot_at)
        assert late.stopped() == steady.stopped()


@modest
@given(sequences)
def test_state_survives_storage_at_every_cut(sequence: list[Author]) -> None:
    state = State()
    for command in history(sequence):
        state, _ = apply(state, codec.load_command(codec.dump_command(command)))
        assert codec.load_state(codec.dump_state(state)) == state


@modest
@given(sequences)
def test_invariants_hold_at_every_cut(sequence: list[Author]) -> None:
    state, domain = State(), ""
    for command in history(sequence):
        before, (state, result) = state, apply(state, command)
        assert broken_invariant(state) is None
        assert sum(root.is_active for root in state.roots) == min(1, len(state.roots))
        if before.roots:
            assert state.trust_domain == domain
        domain = state.trust_domain
        if isinstance(result, Rejected):
            assert state is before
        else:
            assert state.index == result.index >= before.index


@modest
@given(st.lists(commands, max_size=12))
def test_no_command_of_any_content_raises(log: list[Command]) -> None:
    state = State()
    for command in log:
        state, result = apply(state, command)
        assert isinstance(result, Applied | Rejected)


def test_command_made_from_a_stale_index_never_applies() -> None:
    """Every kind that carries an index, where it would be applied if it were fresh: else its refusal says nothing."""
    exercised: Counter[type] = Counter()

    @thorough
    @given(long_sequences, st.integers(1, 1000), st.booleans())
    def check(sequence: list[Author], off: int, is_ahead: bool) -> None:
        state = samples.run(State(), INITIAL)[0]
        for author in sequence:
            command = author(state)
            if type(command) in GUARDED:
                current = state.area_index(RULES[type(command)].area)
                assert_stale(state, made_from(command, current + (off if is_ahead else -off)))
            state, result = apply(state, command)
            if type(command) in GUARDED and isinstance(result, Applied):
                assert_stale(state, command)  # a second time
                exercised[type(command)] += 1

    check()
    assert set(exercised) == GUARDED, "a kind of command was never both fresh and stale"


def assert_stale(state: State, command: Command) -> None:
    after, result = apply(state, command)
    assert isinstance(result, Rejected)
    assert result.code == STALE_INDEX
    assert after is state


def test_command_moves_the_index_of_its_area_and_no_other() -> None:
    """A write elsewhere neither makes prepared writes to the CA stale nor wakes who waits for a change of it."""
    exercised: Counter[type] = Counter()

    @thorough
    @given(long_sequences)
    def check(sequence: list[Author]) -> None:
        state = State()
        for command in history(sequence):
            before, (state, result) = state, apply(state, command)
            rule = RULES[type(command)]
            if isinstance(result, Applied):
                exercised[type(command)] += 1
                assert not rule.moves_area or state.area_index(rule.area) == result.index
            moved = {area for area in Area if state.area_index(area) != before.area_index(area)}
            assert moved <= ({rule.area} if rule.moves_area else set())
            if rule.area is not Area.CA:
                assert ca_of(state) == ca_of(before)

    check()
    assert set(exercised) == set(RULES), "a kind of command was never applied"


def ca_of(state: State) -> tuple[object, ...]:
    """All that the CA's commands may change, and every index that tells of it."""
    rest = replace(state, index=0, leaf_index=0, tidied_before=0, acl_index=0, acl=Acl(), nodes_index=0, nodes=Nodes())
    return rest, state.roots_watch_index, state.config and state.config.modify_index


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.binary(max_size=64))
def test_any_bytes_are_a_command_or_refused(data: bytes) -> None:
    for load in (codec.load_command, codec.load_state):
        with contextlib.suppress(codec.CodecError):
            load(data)


@modest
@given(commands, st.data())
def test_any_flipped_byte_gives_a_command_or_is_refused(command: Command, data: st.DataObject) -> None:
    encoded = bytearray(codec.dump_command(command))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = codec.load_command(bytes(encoded))
    except codec.CodecError:
        return
    assert codec.load_command(codec.dump_command(found)) == found
