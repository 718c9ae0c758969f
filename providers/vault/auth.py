"""Vault tokens: where they come from, how they are kept alive, and what operators must know about them.

A configured token is looked up and renewed. With an auth method the provider logs in by itself, and again when its
token can no longer be renewed or is refused. Tokens live in memory only.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from providers.errors import ConfigInvalid, ProviderError, ProviderUnavailable
from providers.texts import one_line
from providers.vault.config import AuthMethod, VaultConfig
from providers.vault.files import MAX_CREDENTIAL_BYTES, CredentialFiles
from providers.vault.names import is_token, require_segment
from providers.vault.transport import Answer

_KUBERNETES_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # a path
#: A token is renewed when this much of its life is over, as Vault's own agents do.
_RENEW_AFTER: Final = 2 / 3
#: How often a login may follow a refusal: a refused path looks the same as a revoked token.
_LOGIN_PAUSE_SECONDS: Final = 5.0
#: As long as a duration of Go can be, in which Vault counts.
_MAX_LIFETIME_SECONDS: Final = 292 * 365 * 86_400
#: Role and secret ids, JWTs. Who configures the CA says which file goes where: no key or other secret of this machine.
_LOGIN: Final = re.compile(r"[A-Za-z0-9._~-]+")

#: method, path, body, token -> answer. Raises: ProviderUnavailable when there is none.
Send = Callable[[str, str, Mapping[str, Any] | None, str], Answer]


class TokenRefused(ProviderUnavailable):
    """Vault has answered, and does not accept the token or the login."""


def login_request(method: AuthMethod, files: CredentialFiles) -> tuple[str, dict[str, str]]:
    """Path and body of a login. Files are read each time, because what is in them is replaced while we run.

    Raises: ConfigInvalid for a missing parameter, or a file that may not be read; ProviderUnavailable for one that
    cannot be.
    """
    params, path = _Params(method, files), f"auth/{method.mount_path}/login"
    match method.type:
        case "approle":
            return path, {"role_id": params.given_or_file("role_id"), "secret_id": params.given_or_file("secret_id")}
        case "kubernetes":
            jwt = params.optional("jwt") or params.read(params.optional("token_path") or _KUBERNETES_TOKEN)
            return path, {"role": params.required("role"), "jwt": jwt}
        case "jwt":
            return path, {
                "role": params.required("role"),
                "jwt": params.optional("jwt") or params.read(params.required("path")),
            }
        case "userpass" | "ldap":
            username = params.required("username")
            require_segment("AuthMethod.Params.username", username)
            return f"{path}/{quote(username, safe='')}", {"password": params.required("password")}
        case _:  # cert: the connection itself is the proof
            name = params.optional("name")
            return path, {"name": name} if name else {}


@dataclass(frozen=True, slots=True)
class _Params:
    method: AuthMethod
    files: CredentialFiles

    def optional(self, name: str) -> str:
        value = self.method.params.get(name)
        if value is not None and not isinstance(value, str):
            raise ConfigInvalid(f"AuthMethod.Params.{name} must be a text")
        text = (value or "") if name == "password" else (value or "").strip()
        if len(text) > MAX_CREDENTIAL_BYTES:
            raise ConfigInvalid(f"AuthMethod.Params.{name} has more than {MAX_CREDENTIAL_BYTES} characters")
        return text

    def required(self, name: str) -> str:
        value = self.optional(name)
        if not value:
            raise ConfigInvalid(f"failed to get '{name}' from auth method params")
        return value

    def given_or_file(self, name: str) -> str:
        path = self.optional(f"{name}_file_path")
        return self.read(path) if path else self.required(name)

    def read(self, path: str) -> str:
        what = f"{one_line(path)}, which is needed to log in to Vault,"
        try:
            text = self.files.read(path).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ProviderUnavailable(f"{what} cannot be read: {_reason(error)}") from None
        if not text:
            raise ProviderUnavailable(f"{what} is empty")
        if not _LOGIN.fullmatch(text):
            raise ProviderUnavailable(
                f"{what} holds something else: it must be one line of letters, digits and . _ ~ -"
            )
        return text


def _reason(error: OSError | UnicodeDecodeError) -> str:
    """Without the bytes that a decoder has met."""
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no text"


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    ttl_seconds: float  # 0: it has no end
    is_renewable: bool
    since: float  # monotonic
    ends_at: float  # Unix seconds, if it has an end

    @property
    def ends(self) -> float | None:
        return self.since + self.ttl_seconds if self.ttl_seconds else None


class Tokens:
    """The token in use. Thread-safe: several threads sign, one keeps the token alive."""

    def __init__(self, config: VaultConfig, send: Send, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._config = config
        self._send = send
        self._clock = clock
        self._now = now
        self._lock = threading.RLock()
        self._token: _Token | None = None
        self._login_at: float | None = None
        self._trouble = ""

    def current(self) -> str:
        """A token to send. Raises: ProviderError when there is none and none can be had."""
        with self._lock:
            if self._token is None or self._is_over(self._token):
                self._token = self._login() if self._config.auth_method else self._look_up()
            return self._token.value

    def is_replaced(self, refused: str) -> bool:
        """After Vault has refused a call with this token: whether there is another one to try it with.

        Raises: ProviderUnavailable when the token itself is what was wrong, and there is no other.
        """
        with self._lock:
            if self._token is not None and self._token.value != refused:
                return True
            if self._config.auth_method is None:
                self._look_up()
                return False
            if self._login_at is not None and self._clock() < self._login_at + _LOGIN_PAUSE_SECONDS:
                return False
            self._token = self._login()
            return True

    def keep_alive(self) -> None:
        """Renew the token, or log in again, when it is time. Raises: ProviderError; may be called again at once."""
        with self._lock:
            token = self._token
            if token is None or token.ends is None:
                return
            if self._clock() < token.since + _RENEW_AFTER * token.ttl_seconds:
                return
            try:
                self._token = self._renewed(token)
                self._trouble = ""
            except ProviderError as error:
                self._trouble = f"the Vault token cannot be renewed: {error}"
                raise

    def _renewed(self, token: _Token) -> _Token:
        fresh = token
        if token.is_renewable:
            answer = self._send("put", "auth/token/renew-self", {}, token.value)
            if answer.status < 400:
                fresh = self._token_of(answer, "auth", token.value)
            elif answer.status >= 500 or not self._config.auth_method:
                raise ProviderUnavailable(f"Vault answers {answer.status} {answer.errors}")
        assert token.ends is not None
        is_longer = fresh.ends is None or fresh.ends > token.ends + 1.0
        if not is_longer and self._config.auth_method:
            # Its greatest lifetime is reached: the next one is fetched while this one still works.
            return self._login()
        return fresh

    @property
    def warning(self) -> str:
        """What an operator must do something about; empty when the token looks after itself."""
        with self._lock:
            token = self._token
            if self._trouble or token is None or token.ends is None or self._config.auth_method:
                return self._trouble
            ends = datetime.fromtimestamp(token.ends_at, UTC)
            if not token.is_renewable:
                return (
                    f"the Vault token expires at {ends:%Y-%m-%d %H:%M} UTC and is not renewable: "
                    "configure another Token, or an AuthMethod"
                )
            return ""

    def revoke(self) -> None:
        """The token that this object has made, when it is not needed any more; best effort."""
        with self._lock:
            token, self._token = self._token, None
        if token is not None and self._config.auth_method:
            self._send("put", "auth/token/revoke-self", {}, token.value)

    def _is_over(self, token: _Token) -> bool:
        return token.ends is not None and self._clock() >= token.ends

    def _look_up(self) -> _Token:
        answer = self._send("get", "auth/token/lookup-self", None, self._config.token)
        if answer.status >= 400:
            raise _refusal(
                answer,
                f"the Vault token is refused ({answer.status} {answer.errors}): it is wrong, expired or revoked, or "
                "its policy does not allow auth/token/lookup-self",
            )
        self._token = self._token_of(answer, "data", self._config.token)
        return self._token

    def _login(self) -> _Token:
        method = self._config.auth_method
        assert method is not None
        path, body = login_request(method, self._config.tls.files)
        self._login_at = self._clock()
        answer = self._send("put", path, body, "")
        if answer.status >= 400:
            raise _refusal(
                answer,
                f"error logging in to Vault with auth method {method.type} at {path}: {answer.status} {answer.errors}",
            )
        self._trouble = ""
        return self._token_of(answer, "auth", "")

    def _token_of(self, answer: Answer, part: str, value: str) -> _Token:
        """From a login, renewal ("auth") or look-up ("data")."""
        found = answer.body.get(part)
        fields: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        value = value or str(fields.get("client_token") or "")
        if not value:
            raise ProviderUnavailable("login response did not return client token")
        if not is_token(value):
            raise ProviderUnavailable("login response returned a client token that is none")
        seconds = _lifetime(fields, "lease_duration" if part == "auth" else "ttl")
        is_renewable = fields.get("renewable")
        return _Token(value, seconds, is_renewable is True, self._clock(), self._now() + seconds)


def _lifetime(fields: Mapping[str, Any], name: str) -> float:
    """In seconds; 0 for none, as Vault has it. Raises: ProviderUnavailable for what is no lifetime."""
    value = fields.get(name, 0)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (is_number and 0 <= value <= _MAX_LIFETIME_SECONDS):  # a number that is none is not in there
        return float(value or 0)
    what = f"of {len(str(value))} characters" if isinstance(value, str) else one_line(_shown(value), 40)
    raise ProviderUnavailable(
        f"Vault's answer has a {name} {what}: must be a number of seconds, from 0 to {_MAX_LIFETIME_SECONDS}"
    )


def _shown(value: object) -> str:
    """Python does not print an integer of any size."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"of {value.bit_length()} bits"
    return str(value) if isinstance(value, int | float) else f"that is a {type(value).__name__}"


def _refusal(answer: Answer, text: str) -> ProviderUnavailable:
    """A sealed Vault, or one that wants fewer requests, has not judged anything."""
    if answer.status >= 500 or answer.status == 429:
        return ProviderUnavailable(text)
    return TokenRefused(text)
