"""Whatever file a command is given in place of the right one: it says which file it is and what is wrong with it, in
our own words.
"""

import tarfile
from hashlib import sha256
from io import BytesIO
from itertools import product
from pathlib import Path

import pytest

from tests.kit import pki, tls_files
from tests.kit.fake_api import FakeApi
from tests.kit.words import ODD_CONTENTS, assert_plain
from tests.parts.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("private_files")

#: Commands, with the flag's file as FILE. The others are right.
COMMANDS = {
    "agent": "agent --config FILE",
    "doctor": "doctor --config FILE",
    "set-config": "ca set-config -config-file FILE",
    "token": "members --token-file FILE",
    "snapshot": "snapshot inspect FILE",
    "ca": "tls cert create -server -node a -ca FILE -key right-key.pem",
    "ca key": "tls cert create -client -ca right.pem -key FILE",
    "trusted": "members --http-addr https://ADDRESS --ca-file FILE",
    "client certificate": "members --http-addr https://ADDRESS --client-cert FILE --client-key right-key.pem",
    "client key": "members --http-addr https://ADDRESS --client-cert right.pem --client-key FILE",
}
#: An error text must not repeat what may be a secret.
TOKEN = "the ACL token is not allowed: must be printable ASCII without spaces\n"
#: That it is no CSR is for the API to say; that it is no text is not.
CSR = "ca sign --csr FILE"
NO_TEXT = ("UTF-16", "Latin-1", "byte-order mark", "DER", "gzip", "huge")


def _filled(command: str, api: FakeApi, name: str) -> str:
    return command.replace("FILE", name).replace("ADDRESS", api.address.removeprefix("http://"))


@pytest.fixture(autouse=True)
def _right_files(tmp_path: Path) -> None:
    private = pki.key()
    (tmp_path / "right.pem").write_text(pki.pem(pki.root_certificate(private)))
    (tmp_path / "right-key.pem").write_text(pki.key_pem(private))


#: It may well be a token: nobody can tell.
TOKENS = {("token", content) for content in ("list", "number", "half of an object")}


@pytest.mark.parametrize(
    ("command", "content"), [case for case in product(COMMANDS, ODD_CONTENTS) if case not in TOKENS]
)
def test_odd_file_is_named_and_refused_in_plain_words(
    run: Run, api: FakeApi, tmp_path: Path, command: str, content: str
) -> None:
    (tmp_path / "odd.file").write_bytes(ODD_CONTENTS[content])
    before = sorted(tmp_path.iterdir())
    result = run(_filled(COMMANDS[command], api, "odd.file"))
    text = result.err + (result.out if command == "doctor" else "")
    assert result.code != 0
    assert_plain(text)
    assert "odd.file" in text or text == TOKEN
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("command", "kind"),
    # An empty CSR is for the API to refuse.
    [case for case in product([*COMMANDS, "csr"], ["missing", "directory", "device"]) if case != ("csr", "device")],
)
def test_what_is_no_file_is_named(run: Run, api: FakeApi, tmp_path: Path, command: str, kind: str) -> None:
    name = {"missing": "none.file", "directory": "a.directory", "device": "/dev/null"}[kind]
    (tmp_path / "a.directory").mkdir()
    result = run(_filled(COMMANDS.get(command, CSR), api, name))
    text = result.err + (result.out if command == "doctor" else "")
    assert result.code != 0
    assert_plain(text)
    assert name in text


@pytest.mark.parametrize("content", NO_TEXT)
def test_csr_that_is_no_text_is_refused_here(run: Run, api: FakeApi, tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.file").write_bytes(ODD_CONTENTS[content])
    result = run(CSR.replace("FILE", "odd.file"))
    assert result.code == 1
    assert "odd.file" in result.err
    assert_plain(result.err)


def test_encrypted_client_key_is_named(run: Run, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "odd.file").write_bytes(tls_files.encrypted((tmp_path / "right-key.pem").read_bytes(), "pkcs8"))
    result = run(_filled(COMMANDS["client key"], api, "odd.file"))
    assert "odd.file is encrypted" in result.err
    assert_plain(result.err)


METAS = {
    "unknown field": b'{"x": 1}',
    "empty object": b"{}",
    "list": b"[]",
    "number": b"1",
    "no JSON": b"{",
    "byte-order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"a": "\xff"}',
    "deep": b"[" * 20_000,
    "long number": b'{"format": ' + b"9" * 5000 + b"}",
    "wrong types": b'{"format": "x", "index": [], "node": 1}',
}


@pytest.mark.parametrize("state", [b"", b"\xc1", b"\x01", b"\x01\x90", b"\x93\x01\x02\x03", b"\xdd\xff\xff\xff\xff"])
@pytest.mark.parametrize("meta", METAS)
def test_snapshot_with_odd_content_is_refused_in_plain_words(run: Run, tmp_path: Path, meta: str, state: bytes) -> None:
    members = {"meta.json": METAS[meta], "state.bin": state}
    members["SHA256SUMS"] = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in members.items()).encode()
    with tarfile.open(tmp_path / "odd.file", "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
    result = run("snapshot inspect odd.file")
    assert result.code == 1
    assert "odd.file" in result.err
    assert_plain(result.err)
