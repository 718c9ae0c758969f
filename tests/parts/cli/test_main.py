import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from cluster.cli import main as cli_main
from cluster.cli import version as version_command
from cluster.client.errors import CommandError, Exit, failing_as
from tests.parts.cli.conftest import Run


def test_version(run: Run) -> None:
    result = run("version")
    assert (result.code, result.out) == (0, f"quorumca {version('quorumca')}\n")


def test_help_lists_commands_and_exit_codes(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for word in (*cli_main.GROUPS, *(code.meaning for code in Exit)):
        assert word in result.out


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["ca"], "required: COMMAND"),
        (["ca", "nonsense"], "invalid choice: 'nonsense'"),
        (["ca", "roots", "--for", "json"], "unrecognized arguments: --for json"),
        (["ca", "roots", "--forma", "json"], "usage: quorumca ca roots "),
        (["acl", "token", "create", "-rules", "x"], "usage: quorumca acl token create "),
        (["dev", "add-node", "-nodes", "3"], "usage: quorumca dev add-node "),
        (["-nonsense", "ca", "roots"], "usage: quorumca [-h] COMMAND"),
        (["acl", "binding-rule", "create", "-bind-type", "x"], "(choose from 'service', 'node', 'policy', 'role')"),
        (["acl", "auth-method", "create", "-token-locality", "x"], "(choose from 'local', 'global')"),
        (["ca", "roots", "--format", "xml"], "argument --format: invalid choice: 'xml' (choose from"),
        (["ca", "certs", "-limit", "0"], "argument --limit: '0' is not allowed: must be a whole number from 1 to 1000"),
        (["ca", "roots", "-token", "a", "-token-file", "b"], "--token-file: not allowed with argument --token"),
    ],
)
def test_usage_errors(run: Run, argv: list[str], text: str) -> None:
    result = run(*argv)
    assert (result.code, result.out) == (Exit.USAGE, "")
    assert text in result.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (CommandError("no"), 1, "no\n"),
        (CommandError("gone", Exit.UNREACHABLE), 3, "gone\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_exit_codes(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    def fail(_args: object) -> int:
        raise error

    monkeypatch.setattr(version_command, "run", fail)
    result = run("version")
    assert (result.code, result.out, result.err) == (code, "", text)


def test_failing_as_keeps_the_exit_code() -> None:
    with pytest.raises(CommandError, match=r"^Error doing: no$") as failed, failing_as("Error doing"):
        raise CommandError("no", Exit.UNREACHABLE)
    assert failed.value.code is Exit.UNREACHABLE


def test_main_imports_nothing_heavy() -> None:
    """A node keeps what it imports for as long as it runs."""
    script = (
        "import sys; from cluster.cli.main import main; main(['version'])\n"
        "heavy = {'rich', 'cryptography', 'msgspec', 'http.client', 'ssl', 'asyncio', 'aiohttp'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_reader_that_closes_early_is_no_traceback() -> None:
    script = (
        "import sys; from cluster.cli.main import main\n"
        "sys.stdin.read()\n"  # returns when the reader is gone
        "sys.exit(main(['version']))"
    )
    pipe, buffered = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, env=buffered
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == Exit.FAILED


def test_package_can_be_run_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "cluster", "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"quorumca {version('quorumca')}\n", "")
