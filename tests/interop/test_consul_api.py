"""The tests that Consul's own api package has of access control, run against our nodes: api/acl_test.go, all of it.

They are taken from the module that goclient/go.mod pins, where Go has put it, and never kept here. `consul` on their
PATH is a node of ours (consul_program.py). In a copy of the sources a few lines are other ones, each for a reason:

* The token for management is a UUID. Theirs is "root", which Consul takes with a warning, and we do not.
* What a read shows of a SecretID is `<hidden>`: it is kept as a hash, and shown once, by what makes the token. Four
  tests (CreateReadDelete, CreateUpdate, List, Clone) compare what a read shows with what was made; here they expect
  `<hidden>` in that one field, and all the rest as it is.
* There is no gossip, and so no check named serfHealth in a catalog that could be waited for: a leader is.
* A node may take longer than two seconds to listen, on a machine that does something else as well.
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.interop.go import MODULE, build_tests, download, go, needs_go, run

pytestmark = [pytest.mark.slow, needs_go]

_PROJECT: Final = Path(__file__).resolve().parents[2]
_CONSUL: Final = "github.com/hashicorp/consul"
_RUN_SECONDS: Final = 300.0
_ROOT: Final = "5ca1ab1e-0000-4000-8000-000000000001"
_ACL_TESTS: Final = "api/acl_test.go"


@dataclass(frozen=True)
class Edit:
    """`times`: how often the pattern is there. With another number they are not the sources that are known."""

    pattern: str
    replacement: str
    times: int


_EDITS: Final[Mapping[str, Sequence[Edit]]] = {
    "api/api_test.go": [Edit(r'"root"', f'"{_ROOT}"', 6)],
    _ACL_TESTS: [
        Edit(r'"root"', f'"{_ROOT}"', 2),
        Edit(r"require\.Equal\(t, (created|cloned), read\)", r"require.Equal(t, asRead(\1), read)", 6),
        Edit(r"created\d?\.SecretID, (updated|token\d)\.SecretID", r'"<hidden>", \1.SecretID', 4),
    ],
    "sdk/testutil/server.go": [
        Edit(
            r"(func \(s \*TestServer\) WaitForSerfCheck\(t testing\.TB\) \{\n)",
            r"\1\tif s != nil {\n\t\ts.WaitForLeader(t)\n\t\treturn\n\t}\n",
            1,
        ),
        Edit(r"retry\.TwoSeconds\(\)", "&retry.Timer{Timeout: 60 * time.Second, Wait: 50 * time.Millisecond}", 1),
        Edit(r"\t\tfailed = false\n", r"\t\treturn nil\n", 1),
    ],
}
_AS_READ: Final = """package api

// asRead is what a read shows of a token that was made; of all else just that.
func asRead[T any](made T) T {
	if token, ok := any(made).(*ACLToken); ok {
		shown := *token
		shown.SecretID = "<hidden>"
		return any(&shown).(T)
	}
	return made
}
"""
_CONSUL_PROGRAM: Final = """#!/bin/sh
PYTHONPATH='{project}' exec '{python}' -P -m tests.interop.consul_program "$@"
"""


async def test_every_acl_test_of_consuls_api_package(tmp_path: Path) -> None:
    await download()
    sources = tmp_path / "sources"
    await _copy(sources)
    names = re.findall(r"^func (Test\w+)\(", (sources / _ACL_TESTS).read_text(), re.MULTILINE)
    assert len(names) == 12, names
    program = tmp_path / "api.test"
    await build_tests(program, f"{_CONSUL}/api", "-modfile", str(sources / "go.mod"))
    code, output = await run(
        _RUN_SECONDS,
        str(program),
        "-test.v",
        "-test.parallel=1",
        f"-test.run=^({'|'.join(names)})$",
        directory=sources / "api",
        PATH=f"{_bin(tmp_path)}:/usr/bin:/bin",
        TMPDIR=str(_made(tmp_path / "servers")),
    )
    print(output)
    assert code == 0, output
    assert sorted(re.findall(r"^--- PASS: (\w+) ", output, re.MULTILINE)) == sorted(names)


async def _copy(sources: Path) -> None:
    """The two modules with their edits, and a go.mod by which they take the place of those that were downloaded."""
    _made(sources)
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(MODULE / name, sources / name)
    for part in ("api", "sdk"):
        original = await go("list", "-m", "-f", "{{.Dir}}", f"{_CONSUL}/{part}")
        for file in Path(original).rglob("*"):  # they may not be written to, so no copytree
            if file.is_file():
                copy = sources / part / file.relative_to(original)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        await go("mod", "edit", f"-replace={_CONSUL}/{part}={sources / part}", str(sources / "go.mod"))
    for path, edits in _EDITS.items():
        text = (sources / path).read_text()
        for edit in edits:
            text, times = re.subn(edit.pattern, edit.replacement, text)
            assert times == edit.times, f"{path} has {edit.pattern} {times} times"
        (sources / path).write_text(text)
    (sources / "api" / "as_read_test.go").write_text(_AS_READ)


def _bin(directory: Path) -> Path:
    """Where the only `consul` is."""
    program = _made(directory / "bin") / "consul"
    program.write_text(_CONSUL_PROGRAM.format(project=_PROJECT, python=sys.executable))
    program.chmod(0o755)
    return program.parent


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
