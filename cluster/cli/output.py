"""What the commands print: tables, JSON, notes, and a sign of life while waiting.

Results go to stdout; notes, errors and the spinner go to stderr. rich is imported only to draw on a terminal: it is
large, and a script that reads our output must not get its box characters.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from cluster.client.texts import printable

_GAP: Final = "  "


def print_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns. A cell is shown as text; None as `-`, booleans as in JSON."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _draw_table(title, columns, cells)
        return
    if title is not None:
        print(printable(title))
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in (columns, *cells):
        print(_GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_json(value: Any, indent: int | str = "\t") -> None:
    """Indented by tabs, as most commands of Consul; keys in the order given."""
    print(json.dumps(value, indent=indent))


def print_success(text: str, *, as_json: bool) -> None:
    """For commands that only do something: Consul's words, or their JSON."""
    if as_json:
        print_json({"Success": True})
    else:
        print(text)


def note(text: str) -> None:
    """For the person at the terminal, not for the script that reads the result."""
    print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner on stderr while the block runs; nothing at all when stderr is not a terminal."""
    with progress(text):
        yield


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """As `waiting`, with a function that changes the text."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(printable(text))) as status:
        yield lambda changed: status.update(Text(printable(changed)))


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return str(value).lower()
        case _:
            return printable(str(value)).replace("\n", " ")


def _draw_table(title: str | None, columns: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=None if title is None else Text(printable(title)), title_justify="left")
    for column in columns:
        # Identifiers are there to be copied: break them rather than cut them off.
        table.add_column(Text(column), overflow="fold")
    for row in cells:
        # Text, or rich would read [brackets] in a cell as markup.
        table.add_row(*map(Text, row))
    Console().print(table)
