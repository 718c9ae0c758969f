"""One HTTP request to Vault and its answer: hvac's adapter, TLS as configured, nothing interpreted.

hvac and what it needs are imported when the first transport is made, so that nodes without this provider do not pay
for them.
"""

import itertools
import json
import os
import ssl
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urljoin, urlsplit

from providers.errors import ConfigInvalid
from providers.texts import one_line
from providers.vault.config import TLSOptions
from providers.vault.exchange import Deadlines, Exchange, TooMuch, connection_classes
from providers.vault.files import opened_ca, path_of
from providers.vault.sent import SentSecrets

_CONNECT_SECONDS: Final = 3.0
_MAX_REDIRECTS: Final = 2  # within one origin; more is a loop
_MAX_ANSWER_BYTES: Final = 1 << 20
#: With heads, trailers, and what frames the pieces.
_MAX_EXCHANGE_BYTES: Final = _MAX_ANSWER_BYTES + (512 << 10)
_PIECE_BYTES: Final = 64 << 10
#: CAs of a system are a few hundred, each with a link of its hash.
_MAX_CA_FILES: Final = 2000
_MAX_REASONS: Final = 8
_MAX_PAUSE_SECONDS: Final = 3600
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
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
        texts = [str(item) for item in found[:_MAX_REASONS]] if isinstance(found, list) else []
        return one_line("; ".join(texts))


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
        self._deadlines = Deadlines()
        self._secrets = SentSecrets()
        session = _session(context, tls.server_name, self._deadlines)
        # Not left to the library: it follows to anywhere, with every header.
        self._adapter = hvac.adapters.RawAdapter(address, session=session, allow_redirects=False)

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
        import urllib3

        self._secrets.note(token, path, body)
        exchange = Exchange(
            time.monotonic() + _CONNECT_SECONDS + timeout_seconds, _CONNECT_SECONDS, _MAX_EXCHANGE_BYTES
        )
        where = f"/v1/{path}"
        headers = {"X-Vault-Token": token, "X-Vault-Namespace": namespace, "Accept-Encoding": "identity"}
        named: dict[str, Any] = {
            "headers": {name: value for name, value in headers.items() if value},
            "raise_exception": False,
            "json": body,
            "timeout": (_CONNECT_SECONDS, timeout_seconds),
            "stream": True,
        }
        try:
            with self._deadlines.exchange(exchange):
                answer = self._exchanged(method, where, named)
        except TooMuch:
            raise TransportFailure(f"{self._address} answered with more than {_MAX_EXCHANGE_BYTES} bytes") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # First: a connection that has been cut fails in any way.
            is_late = exchange.is_over or isinstance(
                error, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError
            )
            if is_late:
                raise TransportFailure(f"{self._address} does not answer in time") from None
            if isinstance(error, requests.exceptions.SSLError):
                raise TransportFailure(
                    f"no TLS connection to {self._address}: {self._cause(error)}", is_tls=True
                ) from None
            raise TransportFailure(f"{self._address} cannot be reached: {self._cause(error)}") from None
        if exchange.is_over:  # a connection that has been cut looks like the end of an answer, too
            raise TransportFailure(f"{self._address} does not answer in time")
        return answer

    def _exchanged(self, method: str, where: str, named: Mapping[str, Any]) -> Answer:
        for _ in range(1 + _MAX_REDIRECTS):
            with self._adapter.request(method, where, **named) as response:
                if response.status_code not in _REDIRECTS:
                    return _answer(response, self._secrets)
                where = self._redirected(where, response.headers.get("Location", ""))
        raise TransportFailure(f"{self._address} sends on more than {_MAX_REDIRECTS} times")

    def _redirected(self, where: str, location: str) -> str:
        """Where to go on with what was to be sent. Raises: TransportFailure, ValueError.

        Only below the configured address: the token, or the login, was given for that and no other, and another path
        of the same server may be somebody else's.
        """
        target = urljoin(f"{self._address}{where}", location)
        path, base = urlsplit(target).path, urlsplit(self._address).path
        if _origin(target) != _origin(self._address) or not path.startswith(f"{base}/v1/") or "/../" in f"{path}/":
            scheme, host, port = _origin(target)
            elsewhere = one_line(self._secrets.hidden(f"{scheme}://{host}:{port}"))
            raise TransportFailure(
                f"{self._address} sends to {elsewhere}, which is not followed: what is sent"
                " was given for the configured Address alone. Configure that of the active node, or of a load balancer"
            )
        return path.removeprefix(base)

    def _cause(self, error: BaseException) -> str:
        """What libraries say of a request that they do not make quotes it, a header with a token perhaps."""
        if isinstance(error, ValueError):
            return f"no such request can be made ({type(error).__name__})"
        return self._secrets.hidden(_cause(error))

    def close(self) -> None:
        self._adapter.close()


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


def tls_context(tls: TLSOptions) -> ssl.SSLContext:
    """Only the named CAs are trusted if any is named, else those of the system. Raises: ConfigInvalid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not (tls.ca_file or tls.ca_path):
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca_file:
        _load_ca(context, "CAFile", tls.ca_file)
    if tls.ca_path:
        # Every file in it, whatever its name, as Go does; OpenSSL would want names that are hashes.
        for path in _listing(tls.ca_path):
            _load_ca(context, "CAPath", path)
    if tls.cert_file:
        _load_own(context, tls)
    if tls.skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _listing(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            files = sorted(entry.path for entry in itertools.islice(entries, _MAX_CA_FILES + 1) if entry.is_file())
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"CAPath {one_line(directory)} cannot be read: {_why(error)}") from error
    if not files:
        raise ConfigInvalid(f"CAPath {one_line(directory)} holds no file")
    if len(files) > _MAX_CA_FILES:
        raise ConfigInvalid(f"CAPath {one_line(directory)} holds more than {_MAX_CA_FILES} files")
    return files


def _load_ca(context: ssl.SSLContext, key: str, path: str) -> None:
    try:
        with opened_ca(path) as descriptor:
            context.load_verify_locations(path_of(descriptor))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; a zero byte in a path is a ValueError
        raise ConfigInvalid(f"{key} {one_line(path)} cannot be used: {_why(error)}") from error


def _load_own(context: ssl.SSLContext, tls: TLSOptions) -> None:
    """Our own certificate and key: with them we log in, so they lie where files of a login do."""

    def refuse() -> NoReturn:
        # Left to itself, OpenSSL asks for a passphrase at the terminal, and the worker waits there.
        raise ConfigInvalid(f"KeyFile {one_line(tls.key_file)} is encrypted: it must be given without a passphrase")

    try:
        with tls.files.opened(tls.cert_file) as cert, tls.files.opened(tls.key_file) as key:
            context.load_cert_chain(path_of(cert), path_of(key), refuse)
    except OSError as error:
        names = f"CertFile {one_line(tls.cert_file)} and KeyFile {one_line(tls.key_file)}"
        raise ConfigInvalid(f"{names} cannot be used: {_why(error)}") from error


def _why(error: OSError | ValueError) -> str:
    """Without the name of the file, which may be a number of this process."""
    return one_line((error.strerror if isinstance(error, OSError) else None) or error)


def _session(context: ssl.SSLContext | None, server_name: str, deadlines: Deadlines) -> Any:
    import requests
    from requests.adapters import HTTPAdapter

    plain_pool, tls_pool = connection_classes(deadlines)

    class _Adapter(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
            super().init_poolmanager(*arguments, **named)
            self.poolmanager.pool_classes_by_scheme = {"http": plain_pool, "https": tls_pool}

    class _TLSAdapter(_Adapter):
        """requests knows files to trust, not contexts: it must not add its own CAs to the configured ones."""

        def cert_verify(self, *_: object) -> None: ...

        def build_connection_pool_key_attributes(self, *arguments: Any, **named: Any) -> Any:
            host, _ = super().build_connection_pool_key_attributes(*arguments, **named)
            return host, {"ssl_context": context, "server_hostname": server_name or None}

    session = requests.Session()
    # No proxy, password file or CA that the environment names: a secret goes to the configured address, directly.
    session.trust_env = False
    session.mount("https://", _TLSAdapter(pool_maxsize=_CONNECTIONS))
    session.mount("http://", _Adapter(pool_maxsize=_CONNECTIONS))
    return session


def _answer(response: Any, secrets: SentSecrets) -> Answer:
    """Raises: TransportFailure; what urllib3 and sockets raise while the rest arrives."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        # It was not asked for, and a little of it may be very much.
        raise TransportFailure(f"{response.url} answered in an encoding that was not asked for")
    content = bytearray()
    while piece := response.raw.read1(_PIECE_BYTES, decode_content=False):
        content += piece
        if len(content) > _MAX_ANSWER_BYTES:
            raise TransportFailure(f"{response.url} answered with more than {_MAX_ANSWER_BYTES} bytes")
    body: object = None
    if "json" in response.headers.get("Content-Type", ""):
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
    return Answer(
        status=response.status_code,
        text=secrets.token_hidden(content.decode(errors="replace")),
        body=secrets.hidden_in(body) if isinstance(body, dict) else {},
        retry_after_seconds=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float:
    is_number = text.isascii() and text.isdigit() and len(text) < len(str(_MAX_PAUSE_SECONDS)) + 1
    return min(float(text), _MAX_PAUSE_SECONDS) if is_number else 0.0


def _cause(error: BaseException) -> str:
    """The innermost reason, without the layers of wrapping of three libraries."""
    reason: object = error
    while True:
        inner = getattr(reason, "reason", None) or next(iter(getattr(reason, "args", ())), None)
        if not isinstance(inner, BaseException):
            text = str(reason)
            return one_line(text.split(": ", 1)[-1] if "object at 0x" in text else text)
        reason = inner
