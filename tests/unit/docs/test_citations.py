"""What comments and documents cite can be opened: sections of docs/consul-compat.md, and tests, that there are."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parents[3]
COMPAT: Final = PROJECT / "docs" / "consul-compat.md"
#: Documents that say which test holds them to what they say.
WITH_TESTS: Final = (COMPAT, PROJECT / "SECURITY.md")
_FOLDERS: Final = ("cluster", "fsm", "providers", "tests", "benchmarks", "docs", "deploy")
_SUFFIXES: Final = (".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".service", ".go")

#: A line's end inside a sentence, in prose and in comments.
_BREAK: Final = re.compile(r"[ \t]*\n[ \t]*(?:(?:#:?|//|>|\*)[ \t]+)?")
_HEADING: Final = re.compile(r"^#{2,3} (\d+(?:\.\d+)?)\.? \S", re.MULTILINE)
_NUMBER: Final = r"\d+(?:\.\d+)?"
#: `consul-compat 4.2`, `docs/consul-compat.md 1.2 and 3`, `consul-compat 2, 10.2 to 10.5`.
_CITATION: Final = re.compile(rf"\bconsul-compat(?:\.md)? ({_NUMBER}(?:(?:, | and | to ){_NUMBER})*)")
#: Papers that are not in this repository, in the forms in which its comments once cited them.
_ELSEWHERE: Final = re.compile(
    rf"\b(?:spec|design)(?:,? (?:rules? |sections? )?{_NUMBER}|: | card\b| says\b)"
    r"|\brules of (?:the )?spec\b|\b(?:of|in) the spec\b|\bones of the design\b|\bas the (?:spec|design) says\b",
    re.IGNORECASE,
)
_NAMED_TEST: Final = re.compile(r"`(test_\w+)`")
_TEST: Final = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
#: Looks like the name of a test, and is a key of the CA's configuration.
_NO_TESTS: Final = frozenset({"test_state"})


def sections(text: str) -> list[str]:
    """Numbers of the headings, in order."""
    return _HEADING.findall(text)


def cited(text: str) -> list[str]:
    """Numbers of the sections that this text cites."""
    groups = _CITATION.findall(_BREAK.sub(" ", text))
    return [number for group in groups for number in re.findall(_NUMBER, group)]


def cites_elsewhere(text: str) -> list[str]:
    return [found[0] for found in _ELSEWHERE.finditer(_BREAK.sub(" ", text))]


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of everything that people read; this file shows what is not allowed."""
    below = (path for folder in _FOLDERS for path in (PROJECT / folder).rglob("*"))
    for path in sorted(itertools.chain(PROJECT.glob("*.md"), (PROJECT / ".ci").glob("*"), below)):
        is_text = path.suffix in _SUFFIXES and "corpus" not in path.parts and "results" not in path.parts
        if path.is_file() and (is_text or path.parent.name == ".ci") and path != Path(__file__):
            yield str(path.relative_to(PROJECT)), path.read_text(encoding="utf-8")


def test_every_section_that_is_cited_is_there() -> None:
    known = set(sections(COMPAT.read_text()))
    wrong = {name: lost for name, text in sources() if (lost := [n for n in cited(text) if n not in known])}
    assert wrong == {}


def test_enough_is_cited_for_this_to_look_in_the_right_places() -> None:
    assert sum(len(cited(text)) for name, text in sources() if name.endswith(".py")) > 50


def test_nothing_cites_what_is_not_in_this_repository() -> None:
    wrong = {name: found for name, text in sources() if (found := cites_elsewhere(text))}
    assert wrong == {}


def test_sections_are_numbered_in_order_and_without_gaps() -> None:
    numbers = [[int(part) for part in number.split(".")] for number in sections(COMPAT.read_text())]
    assert numbers == sorted(numbers)
    assert [number[0] for number in numbers if len(number) == 1] == list(range(1, numbers[-1][0] + 1))
    for chapter, group in itertools.groupby(numbers, key=lambda number: number[0]):
        members = [number[1] for number in group if len(number) == 2]
        assert members == list(range(1, len(members) + 1)), f"section {chapter}"


def test_references_within_the_page_lead_somewhere() -> None:
    text = COMPAT.read_text()
    known = set(sections(text))
    differs = re.findall(rf"\bDiffers: ({_NUMBER}[^.]*(?:\.\d[^.]*)*)\.", _BREAK.sub(" ", text))
    assert len(differs) > 10
    assert [n for group in differs for n in re.findall(r"\d+\.\d+", group) if n not in known] == []


@pytest.mark.parametrize("document", WITH_TESTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    named = set(_NAMED_TEST.findall(document.read_text())) - _NO_TESTS
    tests = {name for path in (PROJECT / "tests").rglob("test_*.py") for name in _TEST.findall(path.read_text())}
    assert named
    assert named - tests == set()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("the order (consul-compat 4.2).", ["4.2"]),
        ("see docs/consul-compat.md 1.2 and 3, which", ["1.2", "3"]),
        ("stands (docs/consul-compat.md 2, 10.2 to 10.5).", ["2", "10.2", "10.5"]),
        ("another one (consul-compat 3, rule 10b).", ["3"]),
        ("# cut in two (consul-compat\n    # 11.7).", ["11.7"]),
        ("docs/consul-compat.md has all of it. 12 nodes", []),
    ],
)
def test_citations_are_found(text: str, numbers: list[str]) -> None:
    assert cited(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "Consul's order (spec 4.2).",
        "on purpose (spec section 3)",
        '"""Design 9.3."""',
        "the rules of spec\n# section 3",
        "# the profile (design\n    # 9.5)",
        "unique (spec: CA common name)",
        "as the design says",
        "stricter ones of the design",
    ],
)
def test_papers_from_elsewhere_are_found(text: str) -> None:
    assert cites_elsewhere(text)


@pytest.mark.parametrize(
    "text", ["RFC 5480 section 4", "spec = find_spec(name)", "DESIGN.md (G1 to G7)", "a design of 3 parts"]
)
def test_other_words_are_left_alone(text: str) -> None:
    assert not cites_elsewhere(text)
