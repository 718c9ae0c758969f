"""Tokens: every way to log in, renewal, and what operators are told."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.errors import ConfigInvalid, ProviderUnavailable
from providers.vault.auth import login_request
from providers.vault.config import AuthMethod
from providers.vault.files import CredentialFiles
from providers.vault.upkeep import Upkeep
from tests.kit.fake_vault import TOKEN, FakeVault, failure
from tests.parts.providers.vault.conftest import Caller

LOGIN = "auth/approle/login"
APPROLE: dict[str, Any] = {
    "Token": "",
    "AuthMethod": {"Type": "approle", "Params": {"role_id": "r", "secret_id": "s-secret"}},
}


def request(kind: str, files: Path | str = "", /, **params: object) -> tuple[str, dict[str, str]]:
    """`files` is the node's directory for credentials."""
    return login_request(AuthMethod(kind, f"at/{kind}", params), CredentialFiles(str(files)))


# --- logging in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params", "path", "body"),
    [
        ("approle", {"role_id": "r", "secret_id": "s"}, "at/approle/login", {"role_id": "r", "secret_id": "s"}),
        ("userpass", {"username": "a/b", "password": "p"}, "at/userpass/login/a%2Fb", {"password": "p"}),
        ("ldap", {"username": "ann", "password": "p"}, "at/ldap/login/ann", {"password": "p"}),
        ("kubernetes", {"role": "r", "jwt": "j"}, "at/kubernetes/login", {"role": "r", "jwt": "j"}),
        ("jwt", {"role": "r", "jwt": "j"}, "at/jwt/login", {"role": "r", "jwt": "j"}),
        ("cert", {"name": "web"}, "at/cert/login", {"name": "web"}),
        ("cert", {}, "at/cert/login", {}),
    ],
)
def test_login_of_each_kind(kind: str, params: dict[str, object], path: str, body: dict[str, str]) -> None:
    assert request(kind, **params) == (f"auth/{path}", body)


def test_secrets_in_files_are_read_at_each_login(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for text in ("one", "two"):
        file.write_text(f"{text}\n")
        assert request("approle", tmp_path, role_id="r", secret_id_file_path=str(file))[1]["secret_id"] == text
        assert request("jwt", tmp_path, role="r", path=str(file))[1]["jwt"] == text
        assert request("kubernetes", tmp_path, role="r", token_path=str(file))[1]["jwt"] == text
    file.write_text("")
    with pytest.raises(ProviderUnavailable, match="secret, which is needed to log in to Vault, is empty"):
        request("jwt", tmp_path, role="r", path=str(file))


@pytest.mark.parametrize(
    "text",
    ["quorumca-seal-key:c2VjcmV0", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n", "a c2VjcmV0"],
    ids=["seal", "PEM", "words"],
)
def test_file_that_holds_no_login_is_not_sent(tmp_path: Path, text: str) -> None:
    """Who may configure the CA names the file, and to whom it goes: it must not be any file of this machine."""
    (tmp_path / "file").write_text(text)
    for kind, name in (("jwt", "path"), ("kubernetes", "token_path"), ("approle", "secret_id_file_path")):
        with pytest.raises(ProviderUnavailable, match="holds something else") as caught:
            request(kind, tmp_path, role="r", role_id="r", **{name: str(tmp_path / "file")})
        assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "params", "text"),
    [
        ("userpass", {"password": "p"}, "failed to get 'username' from auth method params"),
        ("ldap", {"username": "ann"}, "failed to get 'password' from auth method params"),
        ("approle", {"role_id": "r"}, "failed to get 'secret_id' from auth method params"),
        ("jwt", {"role": "r"}, "failed to get 'path' from auth method params"),
        ("kubernetes", {"jwt": "j"}, "failed to get 'role' from auth method params"),
        ("approle", {"role_id": 7, "secret_id": "s"}, "AuthMethod.Params.role_id must be a text"),
    ],
)
def test_missing_parameter_is_named(kind: str, params: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigInvalid, match=text):
        request(kind, **params)


def test_missing_parameter_is_found_without_asking_vault(modern: Caller) -> None:
    with pytest.raises(ConfigInvalid, match="failed to get 'username'"):
        modern.provider(Token="", AuthMethod={"Type": "ldap", "Params": {"password": "p"}})
    assert modern.vault.calls == []


@pytest.fixture
def approle(modern: Caller) -> Caller:
    modern.vault.logins[LOGIN] = lambda body: body == {"role_id": "r", "secret_id": "s-secret"}
    return modern


def logins(vault: FakeVault) -> int:
    return vault.calls.count(f"put {LOGIN}")


def test_refused_login_is_said_without_its_secret(approle: Caller) -> None:
    approle.vault.logins[LOGIN] = lambda _: False
    with pytest.raises(ProviderUnavailable, match="error logging in to Vault with auth method approle") as caught:
        approle.provider(**APPROLE)
    assert "s-secret" not in str(caught.value)


def test_login_without_a_token_is_said_in_consuls_words(approle: Caller) -> None:
    approle.vault.replace["login"] = lambda answer: failure(200)
    with pytest.raises(ProviderUnavailable, match="login response did not return client token"):
        approle.provider(**APPROLE)


def test_one_login_serves_until_the_token_is_refused(approle: Caller) -> None:
    provider, _ = approle.primary(**APPROLE)
    provider.sign_leaf(approle.request())
    assert logins(approle.vault) == 1
    [token] = set(approle.vault.tokens) - {TOKEN}
    del approle.vault.tokens[token]  # revoked
    approle.clock.advance(10)
    provider.sign_leaf(approle.request())
    assert logins(approle.vault) == 2


def test_path_that_the_policy_denies_is_not_a_storm_of_logins(approle: Caller) -> None:
    provider, _ = approle.primary(**APPROLE)
    approle.clock.advance(10)
    approle.vault.denied = {"sign/"}
    for _ in range(10):
        with pytest.raises(ProviderUnavailable, match="Vault denies PUT int/"):
            provider.sign_leaf(approle.request())
    assert logins(approle.vault) == 2


def test_closing_revokes_the_token_of_a_login_and_no_other(approle: Caller) -> None:
    approle.provider(**APPROLE).close()
    approle.provider().close()
    assert set(approle.vault.tokens) == {TOKEN}


# --- renewal ------------------------------------------------------------------------------------------------------


def test_token_is_renewed_in_time(approle: Caller) -> None:
    provider, _ = approle.primary(**APPROLE)
    for _ in range(5):
        approle.clock.advance(1300)
        provider._look_after()
        assert approle.vault.calls[-1] != "put auth/token/renew-self"
        approle.clock.advance(1200)
        provider._look_after()
        assert "put auth/token/renew-self" in approle.vault.calls[-3:]
    assert logins(approle.vault) == 1


def test_token_at_its_greatest_lifetime_is_replaced_before_it_ends(approle: Caller) -> None:
    provider, _ = approle.primary(**APPROLE)
    [token] = set(approle.vault.tokens) - {TOKEN}
    approle.vault.tokens[token]["renewed"] = 60  # what is left of it
    approle.clock.advance(2500)
    provider._look_after()
    assert logins(approle.vault) == 2


def test_token_that_has_ended_in_a_long_outage_is_replaced(approle: Caller) -> None:
    provider, _ = approle.primary(**APPROLE)
    approle.clock.advance(4000)
    provider.sign_leaf(approle.request())
    assert logins(approle.vault) == 2


def test_failing_renewal_is_reported_and_tried_again(modern: Caller) -> None:
    modern.vault.tokens[TOKEN] = {"ttl": 3600, "renewable": True}
    provider, _ = modern.primary()
    assert list(provider.warnings()) == []
    modern.vault.denied = {"renew-self"}
    modern.clock.advance(2500)
    provider._look_after()
    [warning] = provider.warnings()
    assert "the Vault token cannot be renewed" in warning
    modern.vault.denied = set()
    provider._look_after()
    assert list(provider.warnings()) == []


@pytest.mark.parametrize(
    ("token", "warned"),
    [({"ttl": 0, "renewable": False}, False), ({"ttl": 3600, "renewable": True}, False), ({"ttl": 3600}, True)],
)
def test_token_that_will_end_is_warned_of(modern: Caller, token: dict[str, object], warned: bool) -> None:
    modern.vault.tokens[TOKEN] = token
    provider = modern.provider()
    expected = ["the Vault token expires at"] if warned else []
    assert [warning[: len("the Vault token expires at")] for warning in provider.warnings()] == expected
    assert TOKEN not in str(provider.warnings())


@pytest.mark.parametrize("away", [failure(503, "Vault is sealed"), failure(429)])
def test_sealed_vault_is_no_refused_login(approle: Caller, away: object, new_caller: Callable[..., Caller]) -> None:
    _, chain = approle.primary(**APPROLE)
    approle.vault.outage = away  # type: ignore[assignment]
    assert approle.provider(**APPROLE).chain() == chain


# --- numbers --------------------------------------------------------------------------------------------------------

NO_LIFETIMES = [1e300, 10**400, 10**5000, float("nan"), float("inf"), -1, -0.5, "3600", "x" * 5000, True, [], {}]


@pytest.mark.parametrize("ttl", NO_LIFETIMES, ids=lambda ttl: type(ttl).__name__)
def test_lifetime_that_is_none_is_refused_in_few_words(modern: Caller, ttl: object) -> None:
    modern.vault.tokens["odd"] = {"ttl": ttl, "renewable": False}
    with pytest.raises(
        ProviderUnavailable, match=r"Vault's answer has a ttl .*: must be a number of seconds"
    ) as caught:
        modern.provider(Token="odd")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("ttl", NO_LIFETIMES, ids=lambda ttl: type(ttl).__name__)
def test_lifetime_that_is_none_in_a_renewal_is_warned_of(modern: Caller, ttl: object) -> None:
    modern.vault.tokens["short"] = {"ttl": 3600, "renewable": True, "renewed": ttl}
    provider, _ = modern.primary(Token="short")
    modern.clock.advance(3000)
    provider._look_after()
    assert any("lease_duration" in text for text in provider.warnings())


@pytest.mark.parametrize("ttl", [0, None, 3600, 292 * 365 * 86_400])
def test_token_with_any_lifetime_can_be_warned_of(modern: Caller, ttl: object) -> None:
    modern.vault.tokens["long"] = {"ttl": ttl, "renewable": False}
    warnings = modern.primary(Token="long")[0].warnings()
    assert bool(warnings) == bool(ttl)


def test_upkeep_outlives_whatever_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.vault.upkeep._LOOK_SECONDS", 0.01)
    looks: list[str] = []
    looked, well = threading.Event(), threading.Event()

    def look() -> None:
        looks.append(upkeep.trouble)
        if len(looks) >= 3:
            looked.set()
        if not well.is_set():
            raise OverflowError("s.secret")

    upkeep = Upkeep(look)
    upkeep.start()
    assert looked.wait(5)
    assert looks[:3] == ["", *(2 * ["looking after the login to Vault fails (OverflowError), and is tried again"])]
    looked.clear()
    well.set()
    assert looked.wait(5)
    deadline = time.monotonic() + 5
    while upkeep.trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    assert upkeep.trouble == ""
    upkeep.stop()
