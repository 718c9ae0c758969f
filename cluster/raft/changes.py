"""Which areas of the state have changed: noticed on the Raft thread, told to those who wait on the owner's loop."""

from collections.abc import Callable, Mapping
from typing import Final

from fsm.state import Area, State

#: Certificates are issued by the thousand in a second. A crossing to the other loop costs more than applying an entry,
#: and wakes everyone who waits: so what changes there within this time is told as one. Other areas change rarely, and
#: are told of at once.
_TOLD_AFTER_SECONDS: Final[Mapping[Area, float]] = {Area.LEAVES: 0.05}


class AreaChanges:
    """For the Raft thread alone.

    `tell` is called after every change of an area's index, once the state that has it is visible; several changes may
    share a call. `call_later` is that of the Raft loop.
    """

    def __init__(self, tell: Callable[[Area], None], call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._tell = tell
        self._call_later = call_later
        self._seen = dict.fromkeys(Area, 0)
        self._due: set[Area] = set()  # a timer runs, which will tell of it

    def note(self, state: State) -> None:
        """The visible state is this one now."""
        for area, seen in self._seen.items():
            index = state.area_index(area)
            if index != seen:
                self._seen[area] = index
                self._changed(area)

    def _changed(self, area: Area) -> None:
        pause = _TOLD_AFTER_SECONDS.get(area)
        if pause is None:
            self._tell(area)
        elif area not in self._due:
            self._due.add(area)
            self._call_later(pause, lambda: self._pause_is_over(area))

    def _pause_is_over(self, area: Area) -> None:
        self._due.remove(area)
        self._tell(area)
