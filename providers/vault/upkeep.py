"""A thread that looks after a provider between calls: most nodes sign nothing for hours, and tokens expire."""

import threading
from collections.abc import Callable
from typing import Final

_LOOK_SECONDS: Final = 5.0


class Upkeep:
    """Calls `look` every few seconds until stopped, whatever it raises."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vault-upkeep", daemon=True)
        self.trouble = ""  # of the last look; the process of a provider has no log

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a look that is under way: it may be held up by Vault."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self._look()
                self.trouble = ""
            except Exception as error:
                # The text may hold anything.
                self.trouble = f"looking after the login to Vault fails ({type(error).__name__}), and is tried again"
