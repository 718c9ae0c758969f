"""One HTTP request to Vault and its answer: hvac's adapter, TLS as configured, nothing interpreted.

hvac and what it needs are imported when the first transport is made, so that nodes without this provider do not pay
for them.
"""

import json
import ssl
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from providers.errors import ConfigInvalid
from providers.vault.config import TLSOptions

_CONNECT_SECONDS: Final = 3.0
_MAX_REDIRECTS: Final = 2  # a standby node sends to the active one; more is a loop
_MAX_ANSWER_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 64 << 10
#: More than the threads that sign at once.
_CONNECTIONS: Final = 16


class TransportFailure(Exception):
    """No answer. The text says why and names the address; `is_tls` when the two ends did not agree on TLS."""

    def __init__(self, text: str, *, is_tls: bool = False) -> None:
        super().__init__(text)
        self.is_tls = is_tls


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str = field(default="", repr=False)  # may hold a token
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of a JSON answer
    retry_after_seconds: float = 0.0

    @property
    def data(self) -> Mapping[str, Any]:
        found = self.body.get("data")
        return found if isinstance(found, Mapping) else {}

    @property
    def errors(self) -> str:
        """What Vault gave as reasons, on one line."""
        found = self.body.get("errors")
        texts = [str(item) for item in found] if isinstance(found, list) else []
        return " ".join("; ".join(texts).split())


class Transport(Protocol):
    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        token: str,
        namespace: str,
        timeout_seconds: float,
    ) -> Answer:
        """`path` without the API version. May be called by several threads at once. Raises: TransportFailure."""
        ...

    def close(self) -> None: ...


class HvacTransport:
    """The real one."""

    def __init__(self, address: str, tls: TLSOptions) -> None:
        """Raises: ConfigInvalid when a TLS file cannot be used."""
        import hvac.adapters
        import urllib3.exceptions

        self._address = address
        if tls.skip_verify:
            # The operator has said so; a line on stderr for each request would say no more.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        context = tls_context(tls) if address.startswith("https:") else None
        self._adapter = hvac.adapters.RawAdapter(address, session=_session(context, tls.server_name))

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        token: str,
        namespace: str,
        timeout_seconds: float,
    ) -> Answer:
        import requests

        headers = {"X-Vault-Token": token, "X-Vault-Namespace": namespace}
        try:
            response = self._adapter.request(
                method,
                f"/v1/{path}",
                headers={name: value for name, value in headers.items() if value},
                raise_exception=False,
                json=body,
                timeout=(_CONNECT_SECONDS, timeout_seconds),
                stream=True,
            )
            with response:
                return _answer(response)
        except requests.exceptions.SSLError as error:
            raise TransportFailure(f"no TLS connection to {self._address}: {_cause(error)}", is_tls=True) from None
        except requests.exceptions.Timeout:
            raise TransportFailure(f"{self._address} does not answer in time") from None
        except (requests.exceptions.RequestException, OSError) as error:
            raise TransportFailure(f"{self._address} cannot be reached: {_cause(error)}") from None

    def close(self) -> None:
        self._adapter.close()


def tls_context(tls: TLSOptions) -> ssl.SSLContext:
    """Only the named CAs are trusted if any is named, else those of the system. Raises: ConfigInvalid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not (tls.ca_file or tls.ca_path):
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca_file:
        _load_ca(context, "CAFile", Path(tls.ca_file))
    if tls.ca_path:
        # Every file in it, whatever its name, as Go does; OpenSSL would want names that are hashes.
        files = sorted(path for path in _listing(Path(tls.ca_path)) if path.is_file())
        if not files:
            raise ConfigInvalid(f"CAPath {tls.ca_path} holds no file")
        for path in files:
            _load_ca(context, "CAPath", path)
    if tls.cert_file:

        def refuse() -> NoReturn:
            # Left to itself, OpenSSL asks for a passphrase at the terminal, and the worker waits there.
            raise ConfigInvalid(f"KeyFile {tls.key_file} is encrypted: it must be given without a passphrase")

        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, refuse)
        except (OSError, ssl.SSLError) as error:
            raise ConfigInvalid(
                f"CertFile {tls.cert_file} and KeyFile {tls.key_file} cannot be used: {error}"
            ) from error
    if tls.skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _listing(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise ConfigInvalid(f"CAPath {directory} cannot be read: {error.strerror}") from error


def _load_ca(context: ssl.SSLContext, key: str, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigInvalid(f"{key} {path} cannot be used: {error}") from error


def _session(context: ssl.SSLContext | None, server_name: str) -> Any:
    import requests
    from requests.adapters import HTTPAdapter

    class _TLSAdapter(HTTPAdapter):
        """requests knows files to trust, not contexts: it must not add its own CAs to the configured ones."""

        def cert_verify(self, *_: object) -> None: ...

        def build_connection_pool_key_attributes(self, *arguments: Any, **named: Any) -> Any:
            host, _ = super().build_connection_pool_key_attributes(*arguments, **named)
            return host, {"ssl_context": context, "server_hostname": server_name or None}

    class _Session(requests.Session):
        def get_redirect_target(self, response: Any) -> Any:
            target = super().get_redirect_target(response)
            if target and context is not None and not target.startswith(("https:", "/")):
                raise TransportFailure(f"{response.url} sends to {target}, which is not TLS: not followed")
            return target

    session = _Session()
    session.max_redirects = _MAX_REDIRECTS
    session.mount("https://", _TLSAdapter(pool_maxsize=_CONNECTIONS))
    session.mount("http://", HTTPAdapter(pool_maxsize=_CONNECTIONS))
    return session


def _answer(response: Any) -> Answer:
    """Raises: TransportFailure; what requests and sockets raise while the rest arrives."""
    content = bytearray()
    for piece in response.iter_content(_PIECE_BYTES):
        content += piece
        if len(content) > _MAX_ANSWER_BYTES:
            raise TransportFailure(f"{response.url} answered with more than {_MAX_ANSWER_BYTES} bytes")
    body: object = None
    if "json" in response.headers.get("Content-Type", ""):
        try:
            body = json.loads(content)
        except ValueError:
            body = None
    return Answer(
        status=response.status_code,
        text=content.decode(errors="replace"),
        body=body if isinstance(body, dict) else {},
        retry_after_seconds=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _cause(error: BaseException) -> str:
    """The innermost reason, without the layers of wrapping of three libraries."""
    reason: object = error
    while True:
        inner = getattr(reason, "reason", None) or next(iter(getattr(reason, "args", ())), None)
        if not isinstance(inner, BaseException):
            return str(reason).split(": ", 1)[-1] if "object at 0x" in str(reason) else str(reason)
        reason = inner
