"""The pages that people read first: their lines, and where their links lead."""

import re
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parents[3]
PAGES: Final = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "tests/README.md",
    "docs/acl.md",
    "docs/consul-compat.md",
    "docs/production.md",
    "docs/recovery.md",
    "docs/rotation.md",
    "docs/security.md",
    "docs/vault.md",
    "deploy/RUNBOOK.md",
)
_LINK: Final = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING: Final = re.compile(r"^#+ (.*)$", re.MULTILINE)
#: What a terminal or a review shows side by side.
_WIDTH: Final = 120


def anchors(markdown: str) -> set[str]:
    """What the headings are called in links."""
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(markdown)}


def test_lines_of_the_readme_fit() -> None:
    lines = (PROJECT / "README.md").read_text().splitlines()
    assert [line for line in lines if len(line) > _WIDTH] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = PROJECT / name
    for target, anchor in _LINK.findall(page.read_text()):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), f"{target}#{anchor}"


def test_the_readme_leads_to_the_other_pages() -> None:
    linked = {target for target, _ in _LINK.findall((PROJECT / "README.md").read_text())}
    assert set(PAGES) - {"README.md"} <= linked
