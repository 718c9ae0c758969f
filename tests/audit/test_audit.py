"""Known vulnerabilities are found, with a network and without one, and what could not be looked up is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from tests.audit import __main__ as audit
from tests.audit import advisories, online
from tests.audit.advisories import Advisory, Kept, Range
from tests.audit.online import Online, understood

NOTHING = Online(0, (), "1 not known there, such as x")
PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("one", "inside", "outside"),
    [
        (Range(), "0 1 99.9", ""),
        (Range("0", "3.9.2"), "0.1 3.9.1 3.9.2rc1 3.9.2.dev1", "3.9.2 3.9.2.post1 3.10 4"),
        (Range("2.5", "2.5.2"), "2.5 2.5.1", "2.4.9 2.5a1 2.5.2"),
        (Range("1", "", "1.9"), "1 1.9 1.9.0", "1.9.1 0.9"),
        (Range("3"), "3 4", "2.9"),
    ],
)
def test_ranges(one: Range, inside: str, outside: str) -> None:
    assert [version for version in inside.split() if not one.has(Version(version))] == []
    assert [version for version in outside.split() if one.has(Version(version))] == []


def test_advisories_are_read_as_the_schema_has_them() -> None:
    entry = {
        "id": "PYSEC-1",
        "aliases": ["CVE-1"],
        "affected": [
            {
                "package": {"name": "Some_Thing", "ecosystem": "PyPI"},
                "ranges": [
                    {"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "abc"}]},
                    {
                        "type": "ECOSYSTEM",
                        "events": [{"introduced": "0"}, {"fixed": "1"}, {"introduced": 2}, {"introduced": "5"}],
                    },
                ],
                "versions": ["0.1"],
            },
            {"package": {"name": "other", "ecosystem": "PyPI"}, "versions": ["9"]},
            {"package": {"name": "some-thing", "ecosystem": "PyPI"}, "versions": ["7"]},
        ],
    }
    assert advisories._advisory(entry, "some-thing") == Advisory(
        "PYSEC-1", ("CVE-1",), (Range("0", "1"), Range("2"), Range("5")), ("7",)
    )


def test_lock_files_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(
        "# comment==1\nPy_Yaml==6.0.4 \\\n    --hash=sha256:00\n    # via x==3\n"
        "numpy==2.5.5 ; python_full_version >= '3.12' \\\nnumpy==2.4.6 ; python_full_version < '3.12'\n"
    )
    assert advisories.pins_of([lock]) == {"py-yaml": "6.0.4", "numpy": "2.4.6"}


def test_every_package_of_the_lock_files_was_looked_up() -> None:
    kept, pins = advisories.load(), advisories.pins_of(audit.LOCKS)
    assert len(pins) > 60
    assert kept.unknown(pins) == []
    assert sum(map(len, kept.packages.values())) > 50
    # As everybody knows of these.
    found = kept.findings({"requests": "2.19.0", "urllib3": "1.26.17", "aiohttp": "3.8.4", "cryptography": "50"})
    assert any("CVE-2018-18074" in line for line in found)
    assert any(line.startswith("aiohttp 3.8.4: PYSEC-") for line in found)
    assert not [line for line in found if line.startswith("cryptography")]


@pytest.mark.parametrize(
    ("output", "errors", "expected"),
    [
        ("", "ERROR:pip_audit._cli:Connection refused\n", Online(0, (), "ERROR:pip_audit._cli:Connection refused")),
        ("", "", Online(0, (), "it printed nothing")),
        ("[]", "x", Online(0, (), "x")),
        (
            {"dependencies": [{"name": "a", "skip_reason": "no"}, {"name": "b", "version": "1", "vulns": []}]},
            "",
            Online(1, (), "1 not known there, such as a"),
        ),
        (
            {
                "dependencies": [
                    {"name": "b", "version": "1", "vulns": [{"id": "P", "aliases": ["C"], "fix_versions": ["2"]}]}
                ]
            },
            "",
            Online(1, ("b 1: P, C; mended in 2",), ""),
        ),
    ],
)
def test_what_pip_audit_prints(output: object, errors: str, expected: Online) -> None:
    text = output if isinstance(output, str) else json.dumps(output)
    assert understood(text, errors) == expected


@pytest.mark.parametrize(
    ("answer", "pinned", "code", "said"),
    [
        (Online(5, (), ""), "1", 0, "pip-audit: 5 packages, PyPI's advisories of 20"),
        (Online(5, ("b 1: P, C",), ""), "1", 1, "VULNERABLE b 1: P, C"),
        (NOTHING, "2", 0, "1 packages, advisories of 2024-01-02"),
        (NOTHING, "1", 1, "VULNERABLE a 1: K, CVE-1"),
        (Online(4, (), "1 not known there, such as a"), "1", 1, "VULNERABLE a 1: K, CVE-1"),
    ],
)
def test_vulnerabilities_fail_and_a_missing_network_does_not(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: Online,
    pinned: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(online, "ask", lambda _files: answer)
    kept = Kept("2024-01-02", {"a": (Advisory("K", ("CVE-1",), (Range("0", "2"),), ()),)})
    monkeypatch.setattr(advisories, "load", lambda: kept)
    assert audit.audit([], {"a": pinned}) == code
    assert said in capsys.readouterr().out


def test_accepted_advisories_are_named_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    for accepted, code in (("CVE-12", 0), ("P-1", 0), ("CVE-1", 1), ("CVE", 1)):
        monkeypatch.setattr(online, "ask", lambda _files: Online(1, ("b 1: P-1, CVE-12; mended in 2",), ""))
        monkeypatch.setattr(audit, "ACCEPTED", {accepted: "for a reason"})
        assert audit.audit([], {"b": "1"}) == code


def test_what_is_new_in_the_lock_files_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(online, "ask", lambda _files: NOTHING)
    assert audit.audit([], {"quite-new": "1"}) == 0
    assert "nothing is kept about quite-new: " in capsys.readouterr().out


def test_advisories_are_taken_from_a_repository(tmp_path: Path) -> None:
    checkout, path = tmp_path / "database", tmp_path / "kept.json"
    (checkout / "vulns" / "a").mkdir(parents=True)
    (checkout / "vulns" / "a" / "P-1.yaml").write_text(
        "id: P-1\naffected:\n- package: {name: a, ecosystem: PyPI}\n"
        "  ranges:\n  - {type: ECOSYSTEM, events: [{introduced: '0'}, {fixed: '2'}]}\n"
    )
    (checkout / "vulns" / "a" / "P-2.yaml").write_text("id: P-2\nwithdrawn: '2024-01-01T00:00:00Z'\naffected: []\n")
    for command in ("init", "add .", "-c user.name=x -c user.email=x@x commit -m x"):
        subprocess.run(["git", "-C", str(checkout), *command.split()], check=True, capture_output=True)
    kept = advisories.refresh(checkout, ["b", "a"], path)
    assert kept.packages == {"a": (Advisory("P-1", (), (Range("0", "2"),), ()),), "b": ()}
    assert kept == advisories.load(path)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9"])
def test_without_a_network_the_check_passes_and_says_of_which_day_it_is(proxy: str) -> None:
    """The real thing, with nothing behind it."""
    command = ["env", f"HTTPS_PROXY={proxy}", f"https_proxy={proxy}", sys.executable, "-m", "tests.audit"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pip-audit could not ask PyPI about all packages: " in done.stdout
    assert "No module named" not in done.stdout
    assert f"advisories of {advisories.load().date} (tests/audit/advisories.json)" in done.stdout
