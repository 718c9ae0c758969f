"""Files with tokens, as `quorumca doctor --config` finds them."""

from pathlib import Path

import pytest

from cluster.base.config import parse_config
from cluster.doctor.findings import Finding, Severity
from cluster.doctor.token_files import check_token_files
from tests.kit.node_config import minimal

SECRET = "6f7b9c1e-0d5a-4c3c-8d5a-0123456789ab"


def found(path: Path, key: str) -> list[Finding]:
    return list(check_token_files(parse_config(minimal(acl={key: str(path)}), source="t")))


@pytest.mark.parametrize("key", ["agent_token_file", "initial_management_file"])
def test_sound_files_are_nothing_to_tell(tmp_path: Path, key: str) -> None:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    assert found(path, key) == []
    assert list(check_token_files(parse_config(minimal(), source="t"))) == []


@pytest.mark.parametrize(
    ("key", "content", "mode", "severity", "said"),
    [
        ("agent_token_file", "", 0o600, Severity.CRITICAL, "holds no token: must be one line"),
        ("agent_token_file", SECRET, 0o644, Severity.CRITICAL, "others can get at it (mode 0644, "),
        ("agent_token_file", None, 0, Severity.CRITICAL, "acl.agent_token_file is not there"),
        ("initial_management_file", "letmein", 0o600, Severity.CRITICAL, "holds no SecretID: must be a UUID"),
        ("initial_management_file", SECRET, 0o640, Severity.CRITICAL, "its group can get at it (mode 0640, "),
        ("initial_management_file", None, 0, Severity.NOTE, "acl.initial_management_file is not there"),
    ],
)
def test_what_keeps_the_node_from_starting_is_named(
    tmp_path: Path, key: str, content: str | None, mode: int, severity: Severity, said: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    [finding] = found(path, key)
    assert (finding.severity, finding.code, finding.subject) == (severity, "acl-token", str(path))
    assert finding.what.startswith(said)
    assert "letmein" not in str(finding)
    assert SECRET not in str(finding)


def test_file_that_somebody_else_may_read_is_not_said_to_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cluster.seal.secret_files.os.open", refuse)
    [finding] = found(tmp_path / "token", "agent_token_file")
    assert (finding.severity, finding.what) == (Severity.NOTE, "acl.agent_token_file cannot be read by you")
