"""How the CA of this node is, for operators. The leader's loop writes it; the API and waiting requests read it."""

from dataclasses import dataclass

from cluster.base.signals import Signal


@dataclass(frozen=True, slots=True)
class CAHealth:
    """A node that does not lead has nothing to say: everything is empty."""

    #: Why the CA cannot be brought up; empty when nothing is wrong.
    trouble: str = ""
    #: `State.ca_index` of the CA that is in trouble: a change after it may have been the cure.
    ca_index: int = 0
    #: What an operator should do something about although the CA works.
    warnings: tuple[str, ...] = ()


class HealthBoard:
    """Holds the present value; `changed` wakes whoever waits for another."""

    def __init__(self) -> None:
        self.now = CAHealth()
        self.changed = Signal()

    def show(self, health: CAHealth) -> None:
        if health != self.now:
            self.now = health
            self.changed.fire()
