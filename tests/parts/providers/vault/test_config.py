"""Configuration: Consul's rules in Consul's order and words, then ours."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from providers.errors import ConfigInvalid, Malformed
from providers.vault.config import AuthMethod, Place, TLSOptions, VaultConfig, destination
from providers.vault.files import CredentialFiles
from providers.vault.transport import tls_context
from tests.kit import pki
from tests.parts.providers.vault.conftest import CONFIG

METHOD = {"Type": "approle", "Params": {"role_id": "r", "secret_id": "s"}}
NO_LOGIN = "must provide a Vault token or configure a Vault auth method"
TWO_LOGINS = "only one of Vault token or Vault auth method can be provided, but not both"
NO_ROOT = "must provide a valid path to a root PKI backend"
NO_INTERMEDIATE = "must provide a valid path for the intermediate PKI backend"


def parse(raw: Mapping[str, object], *, is_primary: bool = True) -> VaultConfig:
    return VaultConfig.parse(raw, is_primary=is_primary)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        # Each also breaks every rule that comes later.
        ({"LeafCertTTL": "1m"}, NO_LOGIN),
        ({"LeafCertTTL": "1m", "Token": "", "AuthMethod": ""}, NO_LOGIN),
        ({"LeafCertTTL": "1m", "Token": "t", "AuthMethod": METHOD}, TWO_LOGINS),
        ({"LeafCertTTL": "1m", "Token": "t"}, NO_ROOT),
        ({"LeafCertTTL": "1m", "Token": "t", "RootPKIPath": "root"}, NO_INTERMEDIATE),
        (
            {"LeafCertTTL": "1m", "Token": "t", "RootPKIPath": "root", "IntermediatePKIPath": "int"},
            "leaf cert TTL must be greater or equal than 1h0m0s",
        ),
        ({**CONFIG, "Address": "vault:8200"}, 'Address is "vault:8200": must be a URL'),
        ({**CONFIG, "Address": "https://"}, "must be a URL"),
        ({**CONFIG, "Address": "https://vault:x"}, "must be a URL"),
        ({**CONFIG, "Address": ""}, 'Address is ""'),
        ({**CONFIG, "IntermediatePKIPath": "/root"}, "must be two mounts"),
        ({**CONFIG, "CertFile": "c.pem"}, "CertFile and KeyFile go together"),
        ({**CONFIG, "TLSSkipVerify": []}, "TLSSkipVerify"),
    ],
)
def test_first_broken_rule_is_reported(raw: Mapping[str, object], text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(raw)
    assert text in str(caught.value)


SECRET = "s.0123456789abcdef"


@pytest.mark.parametrize("token", [f"{SECRET}\n", f" {SECRET}", f"\t{SECRET}\r\n"])
def test_blanks_around_a_token_do_not_matter(token: str) -> None:
    assert parse({**CONFIG, "Token": token}).token == SECRET


@pytest.mark.parametrize(
    "token", [f"{SECRET} x", f"{SECRET}\nx", f"{SECRET}\u20ac", f"{SECRET}\0", f"\ud800{SECRET}", SECRET + 9000 * "x"]
)
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(Malformed, match=r"^Token is none that Vault gives: must be visible ASCII") as caught:
        parse({**CONFIG, "Token": token})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["Namespace", "RootPKINamespace", "IntermediatePKINamespace"])
@pytest.mark.parametrize("text", ["a b", "a\nX-Vault-Token: x", "\u20ac", "\ud800", 600 * "x"])
def test_what_is_no_namespace_is_refused(name: str, text: str) -> None:
    with pytest.raises(Malformed, match=f'^{name} is ".*": must be visible ASCII'):
        parse({**CONFIG, name: text})


ODD_PATHS = ["kv/foo#", "kv?x", "a/../kv", "..", ".", "a//b", "a%2fb", "a\\b", "a\ud800", "a\0", "a\nb", 300 * "x"]


@pytest.mark.parametrize("path", ODD_PATHS)
@pytest.mark.parametrize("name", ["RootPKIPath", "IntermediatePKIPath", "MountPath"])
def test_mount_path_that_could_be_taken_for_another_is_refused(name: str, path: str) -> None:
    raw: dict[str, object] = {**CONFIG, name: path}
    if name == "MountPath":
        raw = {**CONFIG, "Token": "", "AuthMethod": {**METHOD, "MountPath": path}}
    with pytest.raises(Malformed, match=f'{name} is ".*": must be parts between slashes'):
        parse(raw).require_paths(())


@pytest.mark.parametrize("path", ["k8s:prod", "pki@dc1", "pki int", "a;b", "team+x", "\u20ac", "a/b/c"])
def test_mount_path_that_vault_takes_is_taken(path: str) -> None:
    raw = {**CONFIG, "Token": "", "RootPKIPath": path, "AuthMethod": {**METHOD, "MountPath": path}}
    parse(raw).require_paths(())


@pytest.mark.parametrize("path", ODD_PATHS)
def test_way_to_log_in_of_a_ca_that_is_there_is_not_one_that_is_cut_off(path: str) -> None:
    config = parse({**CONFIG, "Token": "", "AuthMethod": {**METHOD, "MountPath": path}})
    with pytest.raises(Malformed, match="MountPath"):
        config.require_paths({config.root, config.intermediate})


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("root", "other", True),
        ("pki/root", "/pki/other/", True),
        ("root", "ns1/root", False),
        ("ns1/root", "root", False),
        ("a/b/root", "a/root", False),
    ],
)
@pytest.mark.parametrize("name", ["RootPKIPath", "IntermediatePKIPath"])
def test_what_may_be_a_namespace_in_a_mount_path_is_part_of_the_destination(
    name: str, before: str, after: str, *, is_same: bool
) -> None:
    old, new = (destination({**CONFIG, name: path}) for path in (before, after))
    assert (old == new) == is_same


def test_mount_path_of_a_ca_that_is_there_stays() -> None:
    config = parse({**CONFIG, "RootPKIPath": "team#x", "IntermediatePKIPath": "int?x"})
    config.require_paths({config.root, config.intermediate})
    with pytest.raises(Malformed, match="IntermediatePKIPath"):
        config.require_paths({config.root})


@pytest.mark.parametrize(
    "address", ["https://vault:8200/#", "https://vault:8200/?x", "https://va ult", "https://vault/\n"]
)
def test_address_that_would_cut_a_path_off_is_refused(address: str) -> None:
    if address.endswith("\n"):
        assert parse({**CONFIG, "Address": address}).address == "https://vault"
        return
    with pytest.raises(ConfigInvalid, match="must be a URL"):
        parse({**CONFIG, "Address": address})


def test_secondary_needs_no_root_path() -> None:
    raw = {**CONFIG, "RootPKIPath": ""}
    with pytest.raises(ConfigInvalid, match=NO_ROOT):
        parse(raw)
    assert parse(raw, is_primary=False).root == Place("", "")


def test_keys_match_in_any_case_and_slashes_do_not_matter() -> None:
    config = parse(
        {
            "address": "https://vault:8200/",
            "TOKEN": "t",
            "rootpkipath": "/a/root/",
            "IntermediatePKIPath": "int",
            "Namespace": "team/",
            "RootPKINamespace": "top",
            "CAFile": "ca.pem",
            "TLSServerName": "vault.test",
            "TLSSkipVerify": "true",
        }
    )
    assert config.address == "https://vault:8200"
    assert (config.root, config.intermediate) == (Place("top", "a/root"), Place("team", "int"))
    assert config.tls == TLSOptions(ca_file="ca.pem", server_name="vault.test", skip_verify=True)


@pytest.mark.parametrize(
    "raw",
    [
        {"AuthMethod": {"Type": "approle", "MountPath": "role/", "Params": METHOD["Params"]}},
        {"auth_method": {"type": "approle", "mount_path": "role", "params": METHOD["Params"]}},
        {"AuthMethod": [{"Type": "approle", "MountPath": "role", "Params": METHOD["Params"]}]},
    ],
)
def test_auth_method_has_consuls_spellings(raw: Mapping[str, object]) -> None:
    config = parse({**CONFIG, "Token": "", **raw})
    assert config.auth_method == AuthMethod("approle", "role", {"role_id": "r", "secret_id": "s"})


def test_mount_path_defaults_to_the_type() -> None:
    method = parse({**CONFIG, "Token": "", "AuthMethod": METHOD}).auth_method
    assert method is not None
    assert method.mount_path == "approle"


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ({"Type": "aws"}, 'auth method "aws" is not supported yet: it must be one of approle, kubernetes, userpass'),
        ({"Type": "azure"}, "is not supported yet"),
        ({"Type": "gcp"}, "is not supported yet"),
        ({"Type": "token"}, 'auth method "token" is not supported: it must be one of'),
        ({"Type": ""}, "is not supported: it must be one of"),
        ({"Type": "cert"}, "needs CertFile and KeyFile"),
        ({"Type": "approle", "Params": "x"}, "AuthMethod.Params must be a map"),
        ("x", "AuthMethod must be a map of Type, MountPath and Params"),
    ],
)
def test_auth_method_that_cannot_be_used_is_refused(method: object, text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse({**CONFIG, "Token": "", "AuthMethod": method})
    assert text in str(caught.value)


def test_secrets_are_not_shown() -> None:
    assert CONFIG["Token"] not in repr(parse(CONFIG))
    assert "secret_id" not in repr(parse({**CONFIG, "Token": "", "AuthMethod": METHOD}))


# --- TLS files ----------------------------------------------------------------------------------------------------


def test_every_file_of_ca_path_is_trusted_whatever_its_name(tmp_path: Path) -> None:
    for number in (1, 2):
        root = pki.root_certificate(pki.key(number=number), name=f"root {number}")
        (tmp_path / f"any-{number}.txt").write_text(pki.pem(root))
    assert len(tls_context(TLSOptions(ca_path=str(tmp_path))).get_ca_certs()) == 2


def test_only_named_cas_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("ca.pem", "system.pem")):
        (tmp_path / name).write_text(pki.pem(pki.root_certificate(pki.key(number=number), name=name)))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    [trusted] = tls_context(TLSOptions(ca_file=str(tmp_path / "ca.pem"))).get_ca_certs()
    assert trusted["subject"] == ((("commonName", "ca.pem"),),)
    [trusted] = tls_context(TLSOptions()).get_ca_certs()
    assert trusted["subject"] == ((("commonName", "system.pem"),),)


def test_certificate_is_checked_unless_the_operator_says_otherwise() -> None:
    strict, careless = tls_context(TLSOptions()), tls_context(TLSOptions(skip_verify=True))
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (careless.verify_mode, careless.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("name", ["ca_file", "ca_path", "cert_file"])
@pytest.mark.parametrize("content", ["missing", "nonsense"])
def test_tls_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / "the-file"
    if content == "nonsense":
        if name == "ca_path":
            path.mkdir()
            (path / "a").write_text("nonsense")
        else:
            path.write_text("nonsense")
    options = {
        "ca_file": TLSOptions(ca_file=str(path)),
        "ca_path": TLSOptions(ca_path=str(path)),
        "cert_file": TLSOptions(cert_file=str(path), key_file=str(path), files=CredentialFiles(str(tmp_path))),
    }[name]
    with pytest.raises(ConfigInvalid, match="the-file"):
        tls_context(options)


def test_empty_ca_path_trusts_nobody(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="holds no file"):
        tls_context(TLSOptions(ca_path=str(tmp_path)))
