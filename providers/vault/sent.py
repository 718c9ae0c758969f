"""What has been sent to Vault and must not come back into a log, an answer or the state, whoever repeats it."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

HIDDEN: Final = "(a secret that was sent)"
#: Of a login; a role is none.
_OF_A_LOGIN: Final = frozenset({"role_id", "secret_id", "jwt", "password"})
#: Logins follow each other, each with another token perhaps.
_KEPT: Final = 32
#: A shorter one cannot be told from a word.
_SHORTEST: Final = 6
#: Outside of reasons, which are only shown, words count: a token is longer than they are.
_SHORTEST_TOKEN: Final = 16
_MAX_DEPTH: Final = 32


class SentSecrets:
    """Of one transport. May be used by several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: deque[str] = deque(maxlen=_KEPT)
        self._of_logins: deque[str] = deque(maxlen=_KEPT)

    def note(self, token: str, path: str, body: Mapping[str, Any] | None) -> None:
        """Before a request is sent."""
        self._keep(self._tokens, token)
        if path.startswith("auth/") and body:
            for name, value in body.items():
                if name in _OF_A_LOGIN and isinstance(value, str):
                    self._keep(self._of_logins, value)

    def _keep(self, kept: deque[str], secret: str) -> None:
        with self._lock:
            if len(secret) >= _SHORTEST and secret not in kept:
                kept.append(secret)

    def hidden(self, text: str) -> str:
        """A text that is shown, without them; before it is cut, or half of one would be left."""
        with self._lock:
            secrets = [*self._tokens, *self._of_logins]
        return _without(text, secrets)

    def token_hidden(self, text: str) -> str:
        """A text that is used."""
        with self._lock:
            secrets = [token for token in self._tokens if len(token) >= _SHORTEST_TOKEN]
        return _without(text, secrets)

    def hidden_in(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Everywhere in an answer but in `auth`, which is where Vault gives what is to be sent next."""
        found = {key: value if key == "auth" else self._hidden(value, self.token_hidden) for key, value in body.items()}
        if "errors" in found:
            found["errors"] = self._hidden(found["errors"], self.hidden)
        return found

    def _hidden(self, value: Any, hide: Callable[[str], str], depth: int = 0) -> Any:
        if isinstance(value, str):
            return hide(value)
        if isinstance(value, dict | list) and depth >= _MAX_DEPTH:
            return None  # nothing that Vault answers is so deep
        if isinstance(value, dict):
            return {hide(key): self._hidden(inner, hide, depth + 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._hidden(inner, hide, depth + 1) for inner in value]
        return value


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
