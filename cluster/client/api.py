"""A small client for one node's HTTP API: one request, one bounded answer, errors in a person's words.

Nothing is retried: whether a write without an answer took effect is for the operator to look up.
"""

import http.client
import json
import socket
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlencode

from cluster.base.names import is_loopback
from cluster.client.errors import Answered, CommandError, Exit
from cluster.client.texts import printable

if TYPE_CHECKING:
    import ssl

_CONNECT_SECONDS: Final = 5.0
#: Longer than a node keeps a request while a leader is elected, or a CA provider makes a key.
_ANSWER_SECONDS: Final = 60.0
#: A large file is made before it is sent, and taken apart before it is answered.
_TRANSFER_SECONDS: Final = 1800.0
_CHUNK_BYTES: Final = 256 << 10
_MAX_ANSWER_BYTES: Final = 64 << 20
_MAX_ERROR_TEXT: Final = 2000
_MAYBE_DONE: Final = "; it may or may not have been done: look before you send it again"


#: As OpenSSL names them: of the server, to a client whose certificate it does not take.
_HANDSHAKE_ALERTS: Final = (
    "ACCESS_DENIED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "HANDSHAKE_FAILURE",
    "NO_CERTIFICATE",
    "UNKNOWN_CA",
    "UNSUPPORTED_CERTIFICATE",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the API is."""

    scheme: str
    host: str
    port: int

    @property
    def is_private(self) -> bool:
        """What is sent there can be read by nobody on the way."""
        return self.scheme == "https" or is_loopback(f"{self.host}:{self.port}")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Paths of PEM files, and the name that the server's certificate must carry; empty: the system's, none, the
    host.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""

    def context(self) -> "ssl.SSLContext":
        """Raises: CommandError."""
        import ssl

        from cluster.tls.contexts import PemFile, TlsFileRefused, load_pair, no_authorities

        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:  # ssl.SSLError is one
            raise CommandError(no_authorities(PemFile("--ca-file", self.ca_file), error)) from error
        try:
            if self.cert_file:
                load_pair(context, PemFile("--client-cert", self.cert_file), PemFile("--client-key", self.key_file))
        except TlsFileRefused as error:
            raise CommandError(str(error)) from error
        return context


@dataclass(frozen=True, slots=True)
class Api:
    """The API of one node. `query` goes with every request; `waiting` shows a person, given a text, that it takes
    time.
    """

    origin: Origin
    token: str = field(default="", repr=False)
    tls: TlsOptions = TlsOptions()
    #: Secrets that requests hold besides the token: no error repeats them.
    hidden: tuple[str, ...] = field(default=(), repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    waiting: Callable[[str], AbstractContextManager[object]] = field(default=nullcontext, repr=False, compare=False)

    def json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: Container[int] = (200,),
    ) -> dict[str, Any]:
        """The JSON object that answers. Raises: CommandError, also when the answer is something else."""
        return self._object(self.text(method, path, query=query, body=body, accept=accept))

    def find(self, path: str) -> dict[str, Any] | None:
        """The JSON object that a GET finds; None when the server has no such thing. Raises: CommandError."""
        status, text = self._answered("GET", path, None, None)
        if status == 404:
            return None
        if status != 200:
            raise self._unexpected(status, text)
        return self._object(text)

    def array(self, path: str, *, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The JSON objects that a GET lists; null counts as none. Raises: CommandError."""
        text = self.text("GET", path, query=query)
        answer = [] if text.strip() == "null" else _parsed(text)
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise CommandError(f"{self.origin} did not answer with a JSON array of objects: {_shortened(text)}")
        return answer

    def texts(self, path: str) -> list[str]:
        """The texts that a GET lists. Raises: CommandError."""
        text = self.text("GET", path)
        answer = _parsed(text)
        if not isinstance(answer, list) or not all(isinstance(item, str) for item in answer):
            raise CommandError(f"{self.origin} did not answer with a JSON array of texts: {_shortened(text)}")
        return answer

    def text(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: Container[int] = (200,),
    ) -> str:
        """The answer's body. Raises: Answered for a status not in `accept`, in the words of Consul's client;
        CommandError.
        """
        status, text = self._answered(method, path, query, body)
        if status not in accept:
            raise self._unexpected(status, text)
        return text

    def _answered(self, method: str, path: str, query: Mapping[str, str] | None, body: Any) -> tuple[int, str]:
        with self.waiting(f"Waiting for {self.origin}"):
            return self._exchange(method, _target(path, {**self.query, **(query or {})}), body)

    def _object(self, text: str) -> dict[str, Any]:
        answer = _parsed(text)
        if not isinstance(answer, dict):
            raise CommandError(f"{self.origin} did not answer with a JSON object: {_shortened(text)}")
        return answer

    def clock_ahead(self, path: str) -> tuple[float, float] | None:
        """By how many seconds the server's clock is ahead of ours, at least and at most: its Date is of some moment
        between our request and the answer, and has no fractions. None when it does not say. Raises: CommandError.
        """
        with self._connected(_ANSWER_SECONDS) as connection, self._reaching():
            sent = time.time()
            connection.request("GET", _target(path, self.query), None, self._headers("*/*"))
            response = connection.getresponse()
            received = time.time()
        try:
            date = parsedate_to_datetime(response.getheader("Date", "")).timestamp()
        except (TypeError, ValueError):
            return None
        return date - received, date + 1 - sent

    def download(self, path: str, to: BinaryIO, limit_bytes: int) -> None:
        """The body of a GET's answer, into a file and never whole in memory. Raises: CommandError."""
        with (
            self.waiting(f"Receiving from {self.origin}"),
            self._connected(_TRANSFER_SECONDS) as connection,
            self._reaching(),
        ):
            connection.request("GET", _target(path, self.query), None, self._headers("*/*"))
            response = connection.getresponse()
            if response.status != 200:
                raise self._unexpected(response.status, self._answer_text(response))
            size = 0
            while data := _read(response, _CHUNK_BYTES):
                size += len(data)
                if size > limit_bytes:
                    raise CommandError(f"the answer of {self.origin} is larger than {limit_bytes} bytes")
                with _own_errors():
                    to.write(data)

    def upload(self, path: str, source: BinaryIO, size_bytes: int, *, query: Mapping[str, str] | None = None) -> str:
        """PUT a file, never whole in memory; the answer's body. Raises: CommandError."""
        headers = {**self._headers("application/octet-stream"), "Content-Length": str(size_bytes)}
        with (
            self.waiting(f"Sending to {self.origin}"),
            self._connected(_TRANSFER_SECONDS) as connection,
            self._reaching(_MAYBE_DONE),
        ):
            # It may refuse before it has read all, and close: its answer says why.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("PUT", _target(path, {**self.query, **(query or {})}), source, headers)
            response = connection.getresponse()
            text = self._answer_text(response)
        if response.status != 200:
            raise self._unexpected(response.status, text)
        return text

    def _unexpected(self, status: int, text: str) -> Answered:
        # Whatever has answered, a proxy perhaps, may quote the request.
        for secret in filter(None, (self.token, *self.hidden)):
            text = text.replace(secret, "<hidden>")
        return Answered(f"Unexpected response code: {status} ({_shortened(text.strip())})", status)

    def _exchange(self, method: str, target: str, body: Any) -> tuple[int, str]:
        hint = "" if method == "GET" else _MAYBE_DONE
        with self._connected(_ANSWER_SECONDS) as connection, self._reaching(hint):
            data = None if body is None else json.dumps(body)
            connection.request(method, target, data, self._headers("application/json"))
            response = connection.getresponse()
            text = self._answer_text(response)
        return response.status, text

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": "*/*", "Content-Type": content_type}
        return {**headers, "X-Consul-Token": self.token} if self.token else headers

    @contextmanager
    def _connected(self, answer_seconds: float) -> Iterator[http.client.HTTPConnection]:
        with self._reaching():
            sock = self._connect(answer_seconds)
        connection = http.client.HTTPConnection(self.origin.host, self.origin.port)
        connection.sock = sock
        try:
            yield connection
        finally:
            connection.close()

    def _answer_text(self, response: http.client.HTTPResponse) -> str:
        data = _read(response, _MAX_ANSWER_BYTES + 1)
        if len(data) > _MAX_ANSWER_BYTES:
            raise CommandError(f"the answer of {self.origin} is larger than {_MAX_ANSWER_BYTES} bytes")
        return data.decode("utf-8", errors="replace")

    @contextmanager
    def _reaching(self, hint: str = "") -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise CommandError(f"no answer from {self.origin} in time{hint}", Exit.UNREACHABLE) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            hint = "" if _is_refused_by_tls(error) else hint
            reason = f"{_reason(error)}{self._perhaps_tls(error)}{hint}"
            raise CommandError(f"cannot reach {self.origin}: {reason}", Exit.UNREACHABLE) from error

    def _perhaps_tls(self, error: Exception) -> str:
        """A port with TLS ends a connection in clear without a word, or with one that is no HTTP."""
        is_ended = isinstance(error, ConnectionResetError | http.client.BadStatusLine)
        if self.origin.scheme == "https" or not is_ended:
            return ""
        return f"; the port may speak TLS: try https://{str(self.origin).partition('://')[2]}"

    def _connect(self, answer_seconds: float) -> socket.socket:
        """Connected here and not by http.client: connecting has its own time limit, and TLS its own server name."""
        sock = socket.create_connection((self.origin.host, self.origin.port), timeout=_CONNECT_SECONDS)
        try:
            if self.origin.scheme == "https":
                sock = self.tls.context().wrap_socket(sock, server_hostname=self.tls.server_name or self.origin.host)
            sock.settimeout(answer_seconds)
        except BaseException:
            sock.close()
            raise
        return sock


def objects(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects in an answer; null counts as empty. Raises: CommandError."""
    found = answer.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise CommandError(f"the server's answer is not understood: {key} is not a list of objects")
    return found


def _parsed(text: str) -> Any:
    """None when it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read(response: http.client.HTTPResponse, size: int) -> bytes:
    """At most `size` bytes. Raises: IncompleteRead, which `read` itself does not when it is given a size."""
    data = response.read(size)
    if len(data) < size and response.length:
        raise http.client.IncompleteRead(data, response.length)
    return data


@contextmanager
def _own_errors() -> Iterator[None]:
    """Trouble with our own file is not the server's."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"the file cannot be written: {error.strerror}") from error


def _target(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _shortened(text: str) -> str:
    return printable(text[:_MAX_ERROR_TEXT])


def _is_refused_by_tls(error: Exception) -> bool:
    """Whether the handshake was refused: nothing that was sent after it has been read. With TLS 1.3 a client hears of
    it only once it has sent its request (RFC 8446 4.4.2.4, 6.2).
    """
    reason = getattr(error, "reason", None) or ""
    return any(f"_ALERT_{alert}" in reason for alert in _HANDSHAKE_ALERTS)


def _reason(error: Exception) -> str:
    match error:
        case OSError(strerror=str(text)):
            return text
        case ConnectionError() | http.client.IncompleteRead():
            return "the connection was closed before the whole answer was there"
        case ValueError():  # a UnicodeError of the IDNA codec
            return "the name cannot be used: it is no host name or IP address"
        case _:
            return "it does not speak HTTP; is this the port of the HTTP API, and is it http or https?"
