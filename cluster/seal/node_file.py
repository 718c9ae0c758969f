"""`node.json`: whose data a data directory holds."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.base.words import plain


class NodeFile:
    """`node.json` in the data directory: whose data this is, and which seal it needs."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "node.json"

    def read(self) -> dict[str, Any] | None:
        """None in a new data directory. Raises: OSError, ValueError."""
        try:
            facts = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise ValueError(plain(error)) from error
        if not isinstance(facts, dict):
            raise ValueError("it must hold a JSON object")
        return facts

    def write(self, facts: Mapping[str, Any]) -> None:
        temporary = self._path.with_suffix(".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
