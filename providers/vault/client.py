"""Calls to Vault: token, namespace, circuit breaker; and what each way to fail means for a provider.

Every failure is a ProviderError with the path and Vault's own reason in it, never a token or a secret.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from providers.errors import ProviderError, ProviderRefused, ProviderUnavailable, RateLimited
from providers.vault.auth import Tokens
from providers.vault.breaker import Breaker
from providers.vault.config import VaultConfig
from providers.vault.transport import Answer, Transport, TransportFailure

#: Generating a big RSA key takes Vault seconds; signing does not.
SLOW_SECONDS: Final = 30.0
QUICK_SECONDS: Final = 5.0
#: All the calls of one operation, and a little more for the last one: whoever asked for it waits for a minute, and
#: ends this process then, with what other providers do in it.
OPERATION_SECONDS: Final = 40.0
_RETRY_SECONDS: Final = 1.0


class VaultRefused(ProviderRefused):
    """Vault answered, and did not do it; callers that expect this look at `status`."""

    def __init__(self, text: str, answer: Answer) -> None:
        super().__init__(text)
        self.answer = answer

    @property
    def status(self) -> int:
        return self.answer.status


class VaultFailed(ProviderUnavailable, VaultRefused):
    """The same, for a reason that can pass: to who expects no refusal it is an outage."""

    def __init__(self, text: str, answer: Answer) -> None:
        Exception.__init__(self, text)
        self.retry_after_seconds = answer.retry_after_seconds or _RETRY_SECONDS
        self.answer = answer


class VaultClient:
    """One for each configuration. May be used by several threads at once."""

    def __init__(
        self,
        config: VaultConfig,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._transport = transport
        self._clock = clock
        self._breaker = Breaker(clock)
        self._closing = threading.Event()
        self._operation = threading.local()
        self.tokens = Tokens(config, self._send_for_token, clock, now)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        namespace: str = "",
        timeout_seconds: float = SLOW_SECONDS,
    ) -> Answer:
        """The answer to a call that was done.

        Raises: VaultRefused, ProviderUnavailable, RateLimited.
        """
        if self._closing.is_set():
            raise ProviderUnavailable("the connection to Vault is closed")
        token = self.tokens.current()
        answer = self._send(method, path, body, token, namespace, timeout_seconds)
        if answer.status == 403 and self.tokens.is_replaced(token):
            answer = self._send(method, path, body, self.tokens.current(), namespace, timeout_seconds)
        if answer.status < 400:
            return answer
        raise self._refusal(answer, f"{method.upper()} {path}", namespace)

    @contextlib.contextmanager
    def operation(self, until: float | None = None) -> Iterator[None]:
        """What this thread calls inside is done by then, or fails; within another operation, by the end of that."""
        outer = self.operation_ends
        ends = [one for one in (outer, until) if one is not None] or [self._clock() + OPERATION_SECONDS]
        self._operation.until = min(ends)
        try:
            yield
        finally:
            self._operation.until = outer

    @property
    def operation_ends(self) -> float | None:
        """When this thread's operation must be done."""
        until: float | None = getattr(self._operation, "until", None)
        return until

    @property
    def trouble(self) -> str:
        """Why Vault cannot be used; empty when it can."""
        return self._breaker.reason

    def close(self) -> None:
        self._closing.set()
        if not self._breaker.is_open:
            with contextlib.suppress(ProviderError):  # it ends by itself
                self.tokens.revoke()
        self._transport.close()

    def _send_for_token(self, method: str, path: str, body: Mapping[str, Any] | None, token: str) -> Answer:
        return self._send(method, path, body, token, self._config.namespace, QUICK_SECONDS)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        token: str,
        namespace: str,
        timeout_seconds: float,
    ) -> Answer:
        if (until := self.operation_ends) is not None:
            timeout_seconds = min(timeout_seconds, until - self._clock())
            if timeout_seconds <= 0:
                what = f"{method.upper()} {path} was still to be done after {OPERATION_SECONDS:.0f} s"
                raise ProviderUnavailable(f"Vault is too slow: {what}")
        is_try = self._breaker.enter()
        try:
            answer = self._transport.send(
                method, path, body=body, token=token, namespace=namespace, timeout_seconds=timeout_seconds
            )
        except TransportFailure as error:
            hint = ": check Address, CAFile, CAPath, CertFile, KeyFile and TLSServerName" if error.is_tls else ""
            text = f"Vault is unavailable: {error}{hint}"
            self._breaker.failed(text, was_try=is_try)
            raise ProviderUnavailable(text, self._breaker.pause_seconds or _RETRY_SECONDS) from None
        if _is_outage(answer):
            self._breaker.failed(f"Vault is unavailable: {_reason(answer)}", was_try=is_try)
        else:
            self._breaker.succeeded()
        return answer

    def _refusal(self, answer: Answer, what: str, namespace: str) -> ProviderError:
        where = f"{what} in namespace {namespace}" if namespace else what
        match answer.status:
            case 429:
                text = f"operation rate limited by CA provider: {_reason(answer)}"
                return RateLimited(text, answer.retry_after_seconds or _RETRY_SECONDS)
            case 403:
                return VaultRefused(
                    f"Vault denies {where} ({_reason(answer)}): the policy of the token does not allow it, "
                    "or the path does not exist",
                    answer,
                )
            case status if _is_outage(answer):
                pause = answer.retry_after_seconds or self._breaker.pause_seconds or _RETRY_SECONDS
                return ProviderUnavailable(f"Vault is unavailable: {_reason(answer)} ({status} to {where})", pause)
            case status:
                kind = VaultRefused if _is_for_good(answer) else VaultFailed
                return kind(f"Vault answers {status} to {where}: {_reason(answer)}", answer)


def _is_outage(answer: Answer) -> bool:
    """Whether nothing would be answered otherwise: sealed, starting, or without an active node; or a proxy's error."""
    if answer.status in (502, 503, 504):
        return True
    return answer.status >= 500 and any(text in answer.errors for text in _NOT_ACTIVE)


def _is_for_good(answer: Answer) -> bool:
    """Whether the same call will be refused again: 4xx but for those that ask for patience.

    Vault gives 500, too, for what is wrong with a request; only some of its reasons are known here.
    """
    if answer.status >= 500:
        return any(text in answer.errors for text in _WRONG_FOR_GOOD)
    return answer.status not in _PASSING


#: Time-out, conflict, a replica that lags behind, too early, locked.
_PASSING: Final = frozenset({408, 409, 412, 423, 425})
_WRONG_FOR_GOOD: Final = ("max path length", "unsupported path", "unsupported operation")
#: A standby says the fourth while the active node is gone and no other has been elected.
_NOT_ACTIVE: Final = (
    "local node not active",
    "node not active",
    "no active node",
    "error during forwarding RPC request",
    "Vault is sealed",
)


def _reason(answer: Answer) -> str:
    return answer.errors or f"status {answer.status} without a reason"
