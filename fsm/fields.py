"""How a replicated dataclass may grow (see `fsm.codec`)."""

from typing import Final

#: `field(metadata=ADDED)`: came after the first release of its format, and is not written while it has its default.
ADDED: Final = {"added": True}
