import json
import sys

import pytest

from cluster.cli.output import note, print_json, print_success, print_table, waiting
from cluster.client.texts import printable

ROWS = [("web", True, None, 3), ("a-long-name", False, "", "[red]x")]


@pytest.fixture
def _no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it fails."""
    for module in ("rich", "rich.console", "rich.table", "rich.text"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.usefixtures("_no_rich")
def test_table_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Things", ("Name", "Active", "Note", "N"), ROWS)
    assert capsys.readouterr().out == (
        "Things\nName         Active  Note  N\nweb          true    -     3\na-long-name  false   -     [red]x\n"
    )


def test_empty_table_is_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(None, ("Name", "N"), [])
    assert capsys.readouterr().out == "Name  N\n"


def test_table_on_a_terminal_is_drawn_with_the_same_texts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    print_table("[Things]", ("Name", "Active", "Note", "N"), ROWS)
    drawn = capsys.readouterr().out
    for text in ("[Things]", "a-long-name", "false", "[red]x", "─"):
        assert text in drawn


def test_cells_and_notes_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("\x1b[2J", ("Name",), [("a\x1b]0;x\x07\nb",)])
    note("\x9b31m")
    captured = capsys.readouterr()
    assert captured.out == "\ufffd[2J\nName\na\ufffd]0;x\ufffd b\n"
    assert captured.err == "\ufffd31m\n"
    assert printable("two\nlines") == "two\nlines"


def test_json_keeps_order_and_is_tab_indented(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"b": 1, "a": ["ä\x1b"]})
    text = capsys.readouterr().out
    assert text == '{\n\t"b": 1,\n\t"a": [\n\t\t"\\u00e4\\u001b"\n\t]\n}\n'


def test_success_in_words_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_success("Done!", as_json=False)
    assert capsys.readouterr().out == "Done!\n"
    print_success("Done!", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"Success": True}


@pytest.mark.usefixtures("_no_rich")
def test_waiting_is_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("Waiting for a node"):
        pass
    assert capsys.readouterr() == ("", "")


def test_waiting_on_a_terminal_shows_the_text_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with waiting("Waiting for [node]"):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Waiting for [node]" in captured.err
