"""Names of events, as the product's source has them: every one of the same form, and none with a level but no line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cluster
from cluster.base.telemetry import _LEVELS

PRODUCT = Path(cluster.__file__).parent
_NAME = re.compile(r"[a-z]+\.[a-z]+(_[a-z]+)*")
_LOGS = ("log", "_log", "log_seldom", "_log_seldom")


def events_in(function: ast.AST) -> Iterator[str]:
    """The first argument of every call of a log: a text, one of two texts, or a variable that is set to such."""
    texts: dict[str, list[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            texts.setdefault(node.targets[0].id, []).extend(texts_of(node.value))
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and name_of(node.func) in _LOGS:
            event = node.args[0]
            found = texts.get(event.id, []) if isinstance(event, ast.Name) else texts_of(event)
            assert found, f"line {node.lineno}: {ast.unparse(event)} cannot be followed to a text"
            yield from found


def texts_of(value: ast.expr) -> list[str]:
    match value:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=body, orelse=other):
            return texts_of(body) + texts_of(other)
    return []


def name_of(function: ast.expr) -> str:
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def logged() -> set[str]:
    found: set[str] = set()
    for path in PRODUCT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.update(events_in(node))
    return found


def test_every_event_with_a_level_is_logged_somewhere() -> None:
    assert set(_LEVELS) - logged() == set()


def test_events_are_named_noun_dot_verb() -> None:
    found = logged()
    assert len(found) > 50
    assert [event for event in sorted(found | set(_LEVELS)) if not _NAME.fullmatch(event)] == []
