"""Which files of a node a configuration may name, and that no path makes a reader wait."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from providers.errors import ConfigInvalid, ProviderUnavailable
from providers.vault.auth import login_request
from providers.vault.config import AuthMethod, TLSOptions
from providers.vault.files import MAX_CA_BYTES, MAX_CREDENTIAL_BYTES, CredentialFiles
from providers.vault.transport import tls_context
from tests.kit import pki
from tests.parts.providers.vault.conftest import Caller

#: Of each method, the parameters that name a file.
PATHS = [
    ("jwt", "path"),
    ("kubernetes", "token_path"),
    ("approle", "role_id_file_path"),
    ("approle", "secret_id_file_path"),
]
OTHERS = {"role": "r", "role_id": "r", "secret_id": "s"}


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / "jwt").write_text("inside\n")
    (tmp_path / "passphrase").write_text("correct-horse\n")
    return directory


def read(directory: Path | str, path: str) -> str:
    return login_request(AuthMethod("jwt", "jwt", {"role": "r", "path": path}), CredentialFiles(str(directory)))[1][
        "jwt"
    ]


@pytest.mark.parametrize(("kind", "name"), PATHS)
def test_no_file_is_read_where_the_node_allows_none(allowed: Path, kind: str, name: str) -> None:
    params = {key: value for key, value in OTHERS.items() if key not in name} | {name: str(allowed / "jwt")}
    with pytest.raises(ConfigInvalid, match=r"jwt may not be read: .*connect\.credentials_dir .* names none"):
        login_request(AuthMethod(kind, kind, params), CredentialFiles())
    assert "inside" in login_request(AuthMethod(kind, kind, params), CredentialFiles(str(allowed)))[1].values()


def test_service_account_of_a_pod_is_under_the_same_rule() -> None:
    with pytest.raises(ConfigInvalid, match=r"kubernetes.io/serviceaccount/token may not be read"):
        login_request(AuthMethod("kubernetes", "kubernetes", {"role": "r"}), CredentialFiles())


def test_paths_below_the_directory_are_read_also_through_links_that_stay_there(allowed: Path) -> None:
    """Kubernetes mounts secrets so: token -> ..data/token, ..data -> ..2026_01_01."""
    (allowed / "..2026").mkdir()
    (allowed / "..2026" / "token").write_text("mounted")
    (allowed / "..data").symlink_to("..2026")
    (allowed / "token").symlink_to("..data/token")
    linked = allowed.with_name("linked")
    linked.symlink_to(allowed)
    for directory in (allowed, linked):
        for path in ("jwt", f"{allowed}/jwt", f"{linked}/jwt", "../credentials/jwt", f"{allowed}/..2026/../jwt"):
            assert read(directory, path) == "inside"
        assert read(directory, "token") == "mounted"


def _link(allowed: Path) -> str:
    (allowed / "link").symlink_to("../passphrase")
    return "link"


def _linked_folder(allowed: Path) -> str:
    (allowed / "folder").symlink_to("..")
    return "folder/passphrase"


@pytest.mark.parametrize(
    "path",
    [
        lambda allowed: str(allowed.parent / "passphrase"),
        lambda _: "../passphrase",
        lambda allowed: f"{allowed}/../passphrase",
        lambda allowed: f"{allowed}-more/../passphrase",
        lambda _: "/proc/self/environ",
        lambda _: "/etc/hostname",
        _link,
        _linked_folder,
        lambda _: "jwt\0",
    ],
)
def test_what_leads_out_of_the_directory_is_refused(allowed: Path, path: Callable[[Path], str]) -> None:
    with pytest.raises(ConfigInvalid, match=r"may not be read: |is no path of a file") as caught:
        read(allowed, path(allowed))
    assert "correct-horse" not in str(caught.value)


def test_link_that_comes_in_between_looking_and_opening_is_not_followed(
    allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.commonpath

    def swap(paths: list[str]) -> str:
        (allowed / "jwt").unlink()
        (allowed / "jwt").symlink_to("../passphrase")
        return real(paths)

    monkeypatch.setattr("os.path.commonpath", swap)
    with pytest.raises(ProviderUnavailable, match=r"cannot be read: "):
        read(allowed, "jwt")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _large(path: Path) -> None:
    path.write_text("x" * (MAX_CA_BYTES + 1))


@pytest.mark.parametrize("make", [_fifo, _socket, Path.mkdir, _large], ids=["fifo", "socket", "folder", "large"])
def test_only_a_plain_file_of_a_login_s_size_is_read_and_nothing_is_waited_for(
    allowed: Path, make: Callable[[Path], object]
) -> None:
    make(allowed / "odd")
    with pytest.raises(ProviderUnavailable, match=r"odd, which is needed to log in to Vault, cannot be read: "):
        read(allowed, "odd")
    odd = str(allowed / "odd")
    for options in (
        TLSOptions(ca_file=odd),
        TLSOptions(cert_file=odd, key_file=odd, files=CredentialFiles(str(allowed))),
    ):
        with pytest.raises(ConfigInvalid, match=r"odd .*cannot be used"):
            tls_context(options)


def test_size_of_a_login_is_bounded(allowed: Path) -> None:
    (allowed / "jwt").write_text("x" * MAX_CREDENTIAL_BYTES)
    assert len(read(allowed, "jwt")) == MAX_CREDENTIAL_BYTES
    (allowed / "jwt").write_text("x" * (MAX_CREDENTIAL_BYTES + 1))
    with pytest.raises(ProviderUnavailable, match=r"it has more than 65536 bytes"):
        read(allowed, "jwt")


def test_own_certificate_and_key_lie_where_logins_do(allowed: Path, tmp_path: Path) -> None:
    """With the node's own they would open the ports of its peers, whose address can be configured as Vault's."""
    private = pki.key()
    text = pki.pem(pki.root_certificate(private, name="client")) + pki.key_pem(private)
    for directory in (allowed, tmp_path):
        (directory / "client.pem").write_text(text)
    inside, outside = str(allowed / "client.pem"), str(tmp_path / "client.pem")
    files = CredentialFiles(str(allowed))
    tls_context(TLSOptions(cert_file=inside, key_file=inside, files=files))
    for cert, key, place in ((inside, outside, files), (outside, inside, files), (inside, inside, CredentialFiles())):
        with pytest.raises(ConfigInvalid, match=r"client\.pem may not be read: .*connect\.credentials_dir"):
            tls_context(TLSOptions(cert_file=cert, key_file=key, files=place))


def test_cas_may_lie_anywhere_and_a_folder_of_very_many_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(pki.pem(pki.root_certificate(pki.key())))
    tls_context(TLSOptions(ca_file=str(tmp_path / "ca.pem")))
    many = tmp_path / "many"
    many.mkdir()
    for number in range(2001):
        os.link(tmp_path / "ca.pem", many / str(number))
    with pytest.raises(ConfigInvalid, match=r"holds more than 2000 files"):
        tls_context(TLSOptions(ca_path=str(many)))
    shutil.rmtree(many)
    with pytest.raises(ConfigInvalid, match=r"many cannot be read: No such file"):
        tls_context(TLSOptions(ca_path=str(many)))


def test_provider_is_not_configured_with_a_file_that_may_not_be_read(modern: Caller, allowed: Path) -> None:
    method = {"Type": "jwt", "Params": {"role": "r", "path": str(allowed / "jwt")}}
    with pytest.raises(ConfigInvalid, match=r"may not be read"):
        modern.provider(Token="", AuthMethod=method)
    assert modern.vault.calls == []
    modern.vault.logins["auth/jwt/login"] = lambda body: body == {"role": "r", "jwt": "inside"}
    modern.credentials_dir = str(allowed)
    modern.provider(Token="", AuthMethod=method)
