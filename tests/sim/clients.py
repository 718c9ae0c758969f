"""Who uses the simulated CA: the leader's own work, services that want certificates, operators."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cluster.raft.node import Outcome, Proposal
from fsm import codec
from fsm.commands import Applied, Command
from fsm.duties import next_duty
from fsm.leaves import LeafKind, LeafRecord, RecordLeaves
from fsm.state import State
from tests.chaos import history as register
from tests.sim import authority
from tests.sim.cluster import SimCluster, SimNode
from tests.sim.model import config_value

_GIVE_UP_SECONDS: Final = 0.6
_THINK_SECONDS: Final = 0.05
_WORK_SECONDS: Final = (0.0, 0.002, 0.02)
#: How often a leader that has nothing to do looks again.
_LOOK_SECONDS: Final = 0.05
_LONG_SECONDS: Final = 10_000_000  # outlives the run
_TRIES: Final = 4

_Done = Callable[[Any], None]


class Proposer:
    """Proposes commands, waits for them as a client does, and has every answer judged."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count(1)
        #: What was done to the register, for the judge of linearizability; by number, as some of it has no answer yet.
        self._register: dict[int, register.Operation] = {}

    @property
    def register(self) -> list[register.Operation]:
        """Everything that was done to the register, with what its clients know at this moment."""
        return list(self._register.values())

    def number(self) -> int:
        """Never the same twice."""
        return next(self._numbers)

    def propose(self, node: SimNode, command: Command, done: _Done) -> bool:
        """False if the very same command was proposed before. `done` gets a result of `fsm.apply`, or an Outcome."""
        data = codec.dump_command(command)
        history, invariants = self._cluster.history, self._cluster.invariants
        if data in history.operations:
            return False
        operation = history.invoke(data)

        def finish(outcome: Any) -> None:
            if operation.outcome is None:
                invariants.finish(operation, outcome)
                done(outcome)

        # An answer leaves a process behind the step that gave it, unless the process has ended meanwhile.
        proposal = Proposal(data, lambda outcome: node.after(0, finish, outcome))
        node.propose(proposal)

        def give_up() -> None:
            """As `Replica.propose` does at its time-out."""
            if operation.outcome is None:
                proposal.is_cancelled = True
                finish(Outcome.UNKNOWN if proposal.is_in_log else Outcome.OVERLOADED)

        self._cluster.scheduler.after(_GIVE_UP_SECONDS, give_up)
        return True

    def swap(self, node: SimNode, command: Command, expected: int, value: int, done: _Done = lambda _: None) -> None:
        """Propose what changes the register from one value to another, and note what came of it."""
        number, invoked = self.number(), self._cluster.scheduler.now

        def note(outcome: register.Outcome) -> None:
            now = self._cluster.scheduler.now
            told = register.Operation("client", register.Kind.SWAP, outcome, value, invoked, now, expected)
            self._register[number] = told

        def finish(outcome: Any) -> None:
            note(_told(outcome))
            done(outcome)

        note(register.Outcome.UNKNOWN)
        self.propose(node, command, finish)

    def read(self, node: SimNode, *, with_ledger: bool) -> None:
        """A linearizable read of the state, and of the ledger beside it."""
        floor, invoked = self._cluster.history.floor, self._cluster.scheduler.now

        def finish(log_index: int, state: State, bulk: object) -> None:
            self._cluster.invariants.finish_read(node, floor, log_index, bulk)
            value, now = config_value(state), self._cluster.scheduler.now
            seen = register.Operation("client", register.Kind.READ, register.Outcome.OK, value, invoked, now)
            self._register[self.number()] = seen

        def done(log_index: int | None) -> None:
            if log_index is not None:
                bulk = node.machine.bulk() if with_ledger else None
                node.after(0, finish, log_index, node.machine.state, bulk)

        node.read(done)


def _told(outcome: Any) -> register.Outcome:
    if isinstance(outcome, Applied):
        return register.Outcome.OK
    return register.Outcome.UNKNOWN if outcome is Outcome.UNKNOWN else register.Outcome.NOT_DONE


class LeaderWork:
    """Every node's own: while it leads it does the next duty, as cluster/ca/leader.py does.

    Nothing of it outlives the process, and nothing is remembered between two looks.
    """

    def __init__(self, cluster: SimCluster, proposer: Proposer) -> None:
        self._cluster = cluster
        self._proposer = proposer
        self._is_running = True
        self.duties_done = 0
        cluster.on_start = self._started
        for node in cluster.nodes.values():
            if node.is_up:
                self._started(node)

    def stop(self) -> None:
        self._is_running = False

    def _started(self, node: SimNode) -> None:
        node.after(_LOOK_SECONDS * node.rng.random(), self._look, node)

    def _look(self, node: SimNode) -> None:
        if not self._is_running:
            return
        state: State = node.machine.state
        duty = next_duty(state, node.wall_time(), authority.POLICY) if node.is_ready_leader else None
        if duty is None:
            node.after(_LOOK_SECONDS, self._look, node)
            return
        name = f"{node.id}{node.life}.{self._proposer.number()}"
        command = authority.command_for(duty, state, node.wall_time(), name)
        node.after(node.rng.choice(_WORK_SECONDS), self._commit, node, state, command)

    def _commit(self, node: SimNode, state: State, command: Command) -> None:
        life = node.life

        def done(outcome: Any) -> None:
            self.duties_done += isinstance(outcome, Applied)
            if node.life == life:
                node.after(_LOOK_SECONDS if outcome is Outcome.UNKNOWN else 0, self._look, node)

        if state.config is None and state.seal is not None:
            value = authority.value_in(command.config.provider_id)  # type: ignore[union-attr]
            self._proposer.swap(node, command, 0, value, done)
        elif not self._proposer.propose(node, command, done):
            node.after(_LOOK_SECONDS, self._look, node)


@dataclass(slots=True)
class _Request:
    """What a service wants: the same certificates however often it has to ask."""

    serials: tuple[bytes, ...]
    seconds: int
    tries: int = 0


class Client:
    """One service or operator: does one thing after another, on any node."""

    def __init__(self, cluster: SimCluster, proposer: Proposer, number: int) -> None:
        self._cluster = cluster
        self._proposer = proposer
        self._number = number
        self._rng = random.Random(f"{cluster.seed}/client {number}")
        self._again: list[_Request] = []
        self._tried = 0
        self._is_running = True
        self._later()

    def stop(self) -> None:
        self._is_running = False

    def _later(self) -> None:
        self._cluster.scheduler.after(self._rng.expovariate(1 / _THINK_SECONDS), self._next)

    def _next(self) -> None:
        if not self._is_running:
            return
        node = self._node()
        if node is not None:
            kind = self._rng.random()
            if kind < 0.3:
                self._proposer.read(node, with_ledger=self._rng.random() < 0.3)
            elif kind < 0.75:
                self._issue(node)
            elif kind < 0.95:
                self._set_config(node)
            else:
                self._rotate(node)
        self._later()

    def _node(self) -> SimNode | None:
        nodes = [node for node in self._cluster.nodes.values() if node.is_up]
        leaders = [node for node in nodes if node.is_leader]
        return self._rng.choice(leaders if leaders and self._rng.random() < 0.85 else nodes) if nodes else None

    # -- certificates

    def _issue(self, node: SimNode) -> None:
        """Sign, record, answer; or once more what may have been recorded already."""
        root = node.machine.state.active_root
        if root is None:
            return
        rng = self._rng
        if self._again and rng.random() < 0.7:
            request = self._again.pop(0)
        else:
            serials = tuple(rng.randbytes(12) for _ in range(rng.choice((1, 1, 2, 5))))
            # Asked for again only if it cannot expire in between: a tidied serial is forgotten.
            request = _Request(serials, rng.choice((500, 3000, _LONG_SECONDS)))
        if node.is_up:
            node.after(rng.choice(_WORK_SECONDS), self._record, node, root.key_id.encode(), request)

    def _record(self, node: SimNode, issuer: bytes, request: _Request) -> None:
        request.tries += 1
        self._tried += 1
        now = node.wall_time()
        records = tuple(
            LeafRecord(
                serial=serial,
                kind=LeafKind.SERVICE,
                name="web",
                spiffe_id=f"spiffe://web/{position}",
                public_key_sha256=serial,
                not_before=now,
                not_after=now + request.seconds,
                requested_by=f"{self._number}/{self._tried}",  # tells attempts apart
                request_id=b"request " + serial if position % 2 else b"",
            )
            for position, serial in enumerate(request.serials)
        )

        def done(outcome: Any) -> None:
            is_unsure = outcome is Outcome.UNKNOWN or (isinstance(outcome, Applied) and self._rng.random() < 0.1)
            if is_unsure and request.seconds == _LONG_SECONDS and request.tries < _TRIES:
                self._again.append(request)

        self._proposer.propose(node, RecordLeaves(issuer, records), done)

    # -- operators

    def _set_config(self, node: SimNode) -> None:
        """From the state of this node, which may be an old one: then it must be refused."""
        state: State = node.machine.state
        if state.config is not None:
            value = self._proposer.number()
            self._proposer.swap(node, authority.set_config(state, value), config_value(state), value)

    def _rotate(self, node: SimNode) -> None:
        state: State = node.machine.state
        if state.active_root is None:
            return
        name = f"op{self._number}.{self._proposer.number()}"
        now = node.wall_time()
        if state.rotation is None:
            command = authority.begin_rotation(state, now, name, is_staged=self._rng.random() < 0.5)
        elif self._rng.random() < 0.5:
            command = authority.abort_rotation(state, now, name)
        else:
            return
        self._proposer.propose(node, command, lambda _: None)
