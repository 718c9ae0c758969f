"""A small client for one node's HTTP API: one request, one bounded answer, errors in a person's words.

Nothing is retried: whether a write without an answer took effect is for the operator to look up.
"""

import http.client
import json
import socket
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from cluster.cli.errors import CommandError, Exit
from cluster.cli.output import printable, waiting

if TYPE_CHECKING:
    import ssl

_CONNECT_SECONDS: Final = 5.0
#: Longer than a node keeps a request while a leader is elected, or a CA provider makes a key.
_ANSWER_SECONDS: Final = 60.0
_MAX_ANSWER_BYTES: Final = 64 << 20
_MAX_ERROR_TEXT: Final = 2000
_MAYBE_DONE: Final = "; it may or may not have been done: look before you send it again"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the API is."""

    scheme: str
    host: str
    port: int

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
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            raise CommandError(f"TLS files cannot be used ({files}): {error}") from error
        return context


@dataclass(frozen=True, slots=True)
class Api:
    """The API of one node. `query` goes with every request. `is_quiet`: whoever asks shows that it waits."""

    origin: Origin
    token: str = field(default="", repr=False)
    tls: TlsOptions = TlsOptions()
    query: Mapping[str, str] = field(default_factory=dict)
    is_quiet: bool = False

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
        text = self.text(method, path, query=query, body=body, accept=accept)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise CommandError(f"{self.origin} did not answer with a JSON object: {_shortened(text)}")
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
        """The answer's body. Raises: CommandError for a status not in `accept`, in the words of Consul's client."""
        with nullcontext() if self.is_quiet else waiting(f"Waiting for {self.origin}"):
            status, text = self._exchange(method, _target(path, {**self.query, **(query or {})}), body)
        if status not in accept:
            raise CommandError(f"Unexpected response code: {status} ({_shortened(text.strip())})")
        return text

    def _exchange(self, method: str, target: str, body: Any) -> tuple[int, str]:
        headers = {"Accept": "*/*", "Content-Type": "application/json"}
        if self.token:
            headers["X-Consul-Token"] = self.token
        with self._reaching():
            sock = self._connect()
        connection = http.client.HTTPConnection(self.origin.host, self.origin.port)
        connection.sock = sock
        try:
            with self._reaching("" if method == "GET" else _MAYBE_DONE):
                connection.request(method, target, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                data = response.read(_MAX_ANSWER_BYTES + 1)
                # Given a size, `read` does not say when the connection ends early.
                if response.length and len(data) <= _MAX_ANSWER_BYTES:
                    raise http.client.IncompleteRead(data, response.length)
        finally:
            connection.close()
        if len(data) > _MAX_ANSWER_BYTES:
            raise CommandError(f"the answer of {self.origin} is larger than {_MAX_ANSWER_BYTES} bytes")
        return response.status, data.decode("utf-8", errors="replace")

    @contextmanager
    def _reaching(self, hint: str = "") -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise CommandError(f"no answer from {self.origin} in time{hint}", Exit.UNREACHABLE) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise CommandError(f"cannot reach {self.origin}: {_reason(error)}{hint}", Exit.UNREACHABLE) from error

    def _connect(self) -> socket.socket:
        """Connected here and not by http.client: connecting has its own time limit, and TLS its own server name."""
        sock = socket.create_connection((self.origin.host, self.origin.port), timeout=_CONNECT_SECONDS)
        try:
            if self.origin.scheme == "https":
                sock = self.tls.context().wrap_socket(sock, server_hostname=self.tls.server_name or self.origin.host)
            sock.settimeout(_ANSWER_SECONDS)
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


def _target(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _shortened(text: str) -> str:
    return printable(text[:_MAX_ERROR_TEXT])


def _reason(error: Exception) -> str:
    match error:
        case OSError(strerror=str(text)):
            return text
        case ConnectionError() | http.client.IncompleteRead():
            return "the connection was closed before the whole answer was there"
        case ValueError():  # a UnicodeError of the IDNA codec
            return f"the name cannot be used: {error}"
        case _:
            return "it does not speak HTTP; is this the port of the HTTP API, and is it http or https?"
