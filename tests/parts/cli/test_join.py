"""`quorumca join`, with a cluster that signs and no network; `quorumca operator join-token` and `agent-ca`."""

import shlex
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.base.config import load_config
from cluster.cli import join as module
from cluster.cli.main import main
from cluster.client.errors import CommandError, Exit
from cluster.client.joining import Wanted
from cluster.tls.certificates import new_ca
from cluster.tls.node_certs import sign_node
from tests.kit.fake_api import FakeApi
from tests.parts.cli.conftest import Run

CA: Final = new_ca(datetime.now(UTC).replace(microsecond=0), 30)
FINGERPRINT: Final = "ab" * 32
SERVER: Final = {"Name": "node-1", "Address": "10.0.0.1:8300", "RPC": "10.0.0.1:8400"}


class Signing:
    """In the place of the network."""

    def __init__(self) -> None:
        self.asked: list[Wanted] = []
        self.of: list[tuple[str, str, str, str]] = []  # server, fingerprint, suffix, token
        self.changes: dict[str, Any] = {}
        self.refusal: CommandError | None = None

    def __call__(self, server: str, fingerprint: str, suffix: str, token: str, ask: Wanted) -> dict[str, Any]:
        self.asked.append(ask)
        self.of.append((server, fingerprint, suffix, token))
        if self.refusal is not None:
            raise self.refusal
        cert_pem, _ = sign_node(
            CA.cert_pem, CA.key_pem, ask.csr_pem, node=ask.name, datacenter="dc1", domain="consul", addresses=[],
            present_pem="", now=int(datetime.now(UTC).timestamp()), ttl_seconds=3600,
        )  # fmt: skip
        return {
            "Certificate": cert_pem,
            "CA": CA.cert_pem,
            "Founders": [SERVER],
            "Members": [SERVER],
            "DefaultPolicy": "deny",
            **self.changes,
        }


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> Signing:
    made = Signing()
    monkeypatch.setattr(module, "join", made)
    return made


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "token").write_text("5ec7e7\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "seal.key").write_text("a seal key\n")
    return [
        *("join", "-server", "10.0.0.1:8600", "-ca-fingerprint", FINGERPRINT),
        *("-token-file", str(tmp_path / "token"), "-name", "node-4"),
        *("-address", "10.0.0.4:8300", "-rpc", "10.0.0.4:8400", "-dir", str(tmp_path / "n4")),
        *("-seal-key-file", str(tmp_path / "seal.key")),
    ]


def test_files_of_a_node_are_made_for_it_alone_and_its_settings_load(
    signing: Signing, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    directory = tmp_path / "n4"
    modes = {str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}
    assert modes["data"] == 0o700
    assert {modes[name] for name in ("key.pem", "data/seal.key")} == {0o600}
    assert not any(mode & 0o077 for mode in modes.values())
    config = load_config(directory / "config.toml", {})
    assert (config.node_name, config.raft_address, config.rpc_address) == ("node-4", "10.0.0.4:8300", "10.0.0.4:8400")
    assert [(server.name, server.raft, server.rpc) for server in config.servers] == [tuple(SERVER.values())]
    assert config.tls.renew
    assert (directory / "data" / "seal.key").read_text() == "a seal key\n"
    [asked] = signing.asked
    assert signing.of == [("10.0.0.1:8600", FINGERPRINT, ".server.dc1.consul", "5ec7e7")]
    assert "PRIVATE" not in str(asked), "the key never leaves"
    assert f"quorumca agent --config {directory / 'config.toml'}" in capsys.readouterr().out


@pytest.mark.parametrize("policy", ["allow", "deny"])
@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.4"])
def test_what_is_allowed_by_default_is_as_the_cluster_has_it(
    signing: Signing, words: list[str], tmp_path: Path, policy: str, host: str
) -> None:
    signing.changes["DefaultPolicy"] = policy
    assert main([*words, "-address", f"{host}:8300", "-rpc", f"{host}:8400"]) == 0
    assert load_config(tmp_path / "n4" / "config.toml", {}).allows_by_default is (policy == "allow")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda signing: setattr(signing, "refusal", CommandError("the join token was used")),
        lambda signing: signing.changes.update(Certificate=CA.cert_pem),
        lambda signing: signing.changes.update(Certificate=7),
        lambda signing: signing.changes.update(CA=""),
        lambda signing: signing.changes.update(Founders=None),
        lambda signing: signing.changes.update(Founders=[{"Name": "x"}]),
        lambda signing: signing.changes.update(DefaultPolicy=None),
        lambda signing: signing.changes.update(DefaultPolicy="some"),
    ],
)
def test_nothing_is_left_of_a_join_that_has_failed(
    signing: Signing, words: list[str], tmp_path: Path, spoil: Callable[[Signing], None]
) -> None:
    spoil(signing)
    assert main(words) == 1
    assert not (tmp_path / "n4").exists()


def test_token_is_not_used_for_a_place_that_is_taken(signing: Signing, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "n4").mkdir()
    (tmp_path / "n4" / "precious").touch()
    assert main(words) == 1
    assert signing.asked == []
    assert [path.name for path in (tmp_path / "n4").iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (["-ca-fingerprint", "abc"], "SHA-256"),
        (["-name", "Node"], "DNS label"),
        (["-address", "x"], "host:port"),
        (["-server", "x"], "host:port"),
        (["-new-key"], "--rejoin"),
        (["-config", "x"], "--rejoin"),
        (["-rejoin"], "--rejoin needs --config"),
        (["-rejoin", "-config", "x"], "the file of --config says so"),
        (["-token", "x"], "not allowed with"),
        (["-seal-key-file", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_flags_are_named_and_the_token_stays_good(
    signing: Signing, words: list[str], changes: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *changes]) in (Exit.USAGE, Exit.FAILED)
    assert text in capsys.readouterr().err
    assert signing.asked == []


@pytest.fixture
def joined(signing: Signing, words: list[str], tmp_path: Path) -> Path:
    assert main(words) == 0
    signing.asked.clear()
    return tmp_path / "n4"


def rejoin(joined: Path, *more: str) -> int:
    token = ("-server", "10.0.0.1:8600", "-ca-fingerprint", FINGERPRINT, "-token", "another")
    return main(["join", "-rejoin", "-config", str(joined / "config.toml"), *token, *more])


def test_server_that_comes_back_keeps_its_key(signing: Signing, joined: Path) -> None:
    cert, key = (joined / "cert.pem").read_text(), (joined / "key.pem").read_text()
    assert rejoin(joined) == 0
    [asked] = signing.asked
    assert (asked.name, asked.raft_address, asked.rpc_address) == ("node-4", "10.0.0.4:8300", "10.0.0.4:8400")
    assert (joined / "key.pem").read_text() == key
    assert (joined / "cert.pem").read_text() != cert


def test_server_that_comes_back_has_another_key_if_it_is_asked_for(signing: Signing, joined: Path) -> None:
    key = (joined / "key.pem").read_text()
    assert rejoin(joined, "-new-key") == 0
    assert (joined / "key.pem").read_text() != key
    assert stat.S_IMODE((joined / "key.pem").stat().st_mode) == 0o600
    assert rejoin(joined) == 0, "certificate and key fit each other"


def test_files_stay_as_they_are_when_coming_back_fails(signing: Signing, joined: Path) -> None:
    before = {path: path.read_bytes() for path in joined.rglob("*") if path.is_file()}
    signing.refusal = CommandError("the join token was used")
    assert rejoin(joined, "-new-key") == 1
    signing.refusal = None
    signing.changes["Certificate"] = CA.cert_pem
    assert rejoin(joined, "-new-key") == 1
    assert {path: path.read_bytes() for path in joined.rglob("*") if path.is_file()} == before


# -- on a server


AGENT_CA: Final = "/v1/operator/agent-ca"
JOIN_TOKEN: Final = "/v1/operator/join-token"
ANSWER: Final = {
    "Token": "5ec7e7",
    "Name": "node-4",
    "ExpirationTime": "2026-12-01T00:15:00Z",
    "CAFingerprint": FINGERPRINT,
    "JoinAddress": "10.0.0.1:8600",
    "Datacenter": "dc1",
    "Domain": "consul",
}


def printed(run: Run, *flags: str) -> list[str]:
    """The words of the command that is printed, flags as pairs; the token is by itself, for no list of processes."""
    result = run("operator join-token -name node-4", *flags)
    assert result.code == 0, result
    assert [line.strip() for line in result.out.splitlines() if ANSWER["Token"] in line] == [ANSWER["Token"]]
    assert result.out.splitlines()[2].strip() == ANSWER["Token"]  # docs/join.md takes it from there
    [line] = [line for line in result.out.splitlines() if line.strip().startswith("quorumca join")]
    return shlex.split(line)


def test_whole_command_is_printed(run: Run, api: FakeApi) -> None:
    api.answer("PUT", JOIN_TOKEN, ANSWER)
    words = printed(run, "-address", "10.0.0.4:8300", "-rpc", "10.0.0.4:8400", "-ttl", "5m")
    assert api.last.body == {
        "Name": "node-4", "Address": "10.0.0.4:8300", "RPC": "10.0.0.4:8400", "TTL": "5m", "Rejoin": False,
    }  # fmt: skip
    assert words == [
        *("quorumca", "join", "-server", "10.0.0.1:8600", "-ca-fingerprint", FINGERPRINT, "-token-file", "-"),
        *("-name", "node-4", "-address", "10.0.0.4:8300", "-rpc", "10.0.0.4:8400", "-seal-key-file", "seal.key"),
    ]


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_server_without_a_join_port_is_said_to_have_none(run: Run, api: FakeApi, form: str) -> None:
    api.answer("PUT", JOIN_TOKEN, {**ANSWER, "JoinAddress": ""})
    result = run("operator join-token -name node-4 -rejoin -format", form)
    assert (result.code, ANSWER["Token"] in result.out, ANSWER["Token"] in result.err) == (0, True, False)
    assert "The server that was asked has no join port" in result.err
    assert "set address under [join] in the file of a server" in result.err
    if form == "pretty":
        assert "JOIN_ADDRESS_OF_A_SERVER" in result.out
    api.answer("PUT", JOIN_TOKEN, ANSWER)
    assert run("operator join-token -name node-4 -rejoin -format", form).err == ""


def test_command_for_a_server_that_comes_back_has_no_more_than_it_needs(run: Run, api: FakeApi) -> None:
    api.answer("PUT", JOIN_TOKEN, ANSWER)
    words = printed(run, "-rejoin")
    assert api.last.body == {"Name": "node-4", "Rejoin": True}
    assert words[-3:] == ["-rejoin", "-config", "config.toml"]
    assert "-name" not in words


def test_whoever_takes_the_place_of_a_server_that_is_there_says_so(run: Run, api: FakeApi) -> None:
    api.answer("PUT", JOIN_TOKEN, ANSWER)
    printed(run, "-rejoin", "-force")
    assert api.last.body == {"Name": "node-4", "Rejoin": True, "Force": True}


@pytest.mark.parametrize("flags", ["-address 10.0.0.4:8300", "-rpc 10.0.0.4:8400", "", "-force"])
def test_token_is_for_addresses_that_are_said(run: Run, flags: str) -> None:
    assert run(f"operator join-token -name node-4 {flags}").code == Exit.USAGE


def test_unusual_names_of_servers_are_said(run: Run, api: FakeApi) -> None:
    api.answer("PUT", JOIN_TOKEN, {**ANSWER, "Datacenter": "dc2", "Domain": "example"})
    words = printed(run, "-address", "10.0.0.4:8300", "-rpc", "10.0.0.4:8400")
    assert words[words.index("-datacenter") + 1] == "dc2"
    assert words[words.index("-domain") + 1] == "example"


def test_secrets_go_to_no_other_machine_in_clear(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for words in ("operator join-token -name n -rejoin", "operator agent-ca set -ca f -key f"):
        result = run(f"{words} -http-addr http://10.0.0.1:8500")
        assert result.code == Exit.USAGE
        assert "in clear" in result.err


def test_agent_ca_is_handed_over_and_its_key_not_repeated(run: Run, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CA.cert_pem)
    (tmp_path / "key.pem").write_text(CA.key_pem)
    api.answer("PUT", AGENT_CA)
    words = "operator agent-ca set -ca ca.pem -key key.pem -node-cert-ttl 48h"
    assert run(words).code == 0
    assert api.last.body == {"Certificate": CA.cert_pem, "PrivateKey": CA.key_pem, "NodeCertTTL": "48h"}
    api.answer("PUT", AGENT_CA, f"no: {CA.key_pem}", 400)
    assert "PRIVATE" not in run(words).err


def test_agent_ca_is_read_and_removed(run: Run, api: FakeApi) -> None:
    api.answer("GET", AGENT_CA, {"Certificate": "PEM\n", "Fingerprint": FINGERPRINT, "NodeCertTTL": "72h"})
    assert FINGERPRINT in run("operator agent-ca read").out
    api.answer("DELETE", AGENT_CA)
    assert run("operator agent-ca remove").code == 0
    assert (api.last.method, api.last.path) == ("DELETE", AGENT_CA)
