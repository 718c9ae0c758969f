"""How many bytes of request bodies are held while they arrive, in all and of one source.

Every connection may send a body, at its own pace: without a bound, a few thousand of them hold gigabytes. Small bodies
do not count, so that a CSR is read however much somebody else sends.
"""

from typing import Final

from cluster.http.errors import BodiesFull

MAX_HELD_BYTES: Final = 64 << 20
MAX_HELD_PER_SOURCE: Final = MAX_HELD_BYTES // 4
#: Of each body, this much is not counted: a CSR with a large key has a tenth of it.
FREE_BYTES: Final = 16 << 10


class Intake:
    """Of one listener. For its event loop only."""

    def __init__(self) -> None:
        self._by_source: dict[str, int] = {}
        self.held_bytes = 0

    def begin(self, source: str) -> "Body":
        return Body(self, source)

    def _add(self, source: str, count: int) -> None:
        """Raises: BodiesFull."""
        held = self._by_source.get(source, 0) + count
        if held > MAX_HELD_PER_SOURCE or self.held_bytes + count > MAX_HELD_BYTES:
            raise BodiesFull(
                f"too many request bodies are under way: at most {MAX_HELD_BYTES} bytes,"
                f" {MAX_HELD_PER_SOURCE} of one address"
            )
        self._by_source[source] = held
        self.held_bytes += count

    def _remove(self, source: str, count: int) -> None:
        self.held_bytes -= count
        self._by_source[source] -= count
        if not self._by_source[source]:
            del self._by_source[source]


class Body:
    """What is held of one body; whoever has begun one ends it."""

    __slots__ = ("_counted", "_intake", "_source")

    def __init__(self, intake: Intake, source: str) -> None:
        self._intake = intake
        self._source = source
        self._counted = 0

    def grow(self, size: int) -> None:
        """To this size, before it has it. Raises: BodiesFull."""
        if (more := size - FREE_BYTES - self._counted) > 0:
            self._intake._add(self._source, more)
            self._counted += more

    def end(self) -> None:
        """Again is all right."""
        if self._counted:
            self._intake._remove(self._source, self._counted)
            self._counted = 0
