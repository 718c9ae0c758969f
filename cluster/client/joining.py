"""Asking a server on its join port, as a machine that has no certificate, and nothing but a fingerprint to go by.

Two connections. By the first, which proves nothing, come the agent CAs; one of them must have the fingerprint. The
second must be proved by that CA to be with one of the servers, and only then something is asked. The token is sent to
nobody: it signs what is asked, for the key of this server alone, which the cluster compares with those of its members.
"""

import hashlib
import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cluster.base.names import is_node_name
from cluster.base.words import plain
from cluster.client.errors import CommandError, Exit
from cluster.client.texts import printable

_CA_PATH: Final = "/v1/join/ca"
_JOIN_PATH: Final = "/v1/join"
_CONNECT_SECONDS: Final = 5.0
#: Longer than a node keeps a request while a leader is elected.
_ANSWER_SECONDS: Final = 60.0
_MAX_ANSWER_BYTES: Final = 1 << 20
_MAX_ERROR_TEXT: Final = 2000
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_UNSENT: Final = "the token was not used"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who this machine is to be."""

    name: str
    raft_address: str
    rpc_address: str
    csr_pem: str


def parse_fingerprint(text: str) -> str | None:
    """SHA-256 in hex, as we print it, or with colons, as `openssl x509 -fingerprint -sha256` does; None: it is none."""
    found = text.replace(":", "").lower()
    return found if _FINGERPRINT.fullmatch(found) else None


def join(server: str, fingerprint: str, suffix: str, token: str, ask: Wanted) -> dict[str, Any]:
    """`server` is host:port; `suffix` what the name in a server's certificate ends with after its own label.

    Raises: CommandError, which says whether the token was used.
    """
    from cluster.tls.join_proof import JoinStatement, prove
    from cluster.tls.keys import hash_of_certificate

    authority = _found_ca(server, fingerprint)
    context = _context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority)
    with _reaching(server, _UNSENT):
        connection = _connected(server, context)
        _require_server(server, connection.sock.getpeercert(), suffix)
        server_key = hash_of_certificate(connection.sock.getpeercert(binary_form=True))
    body = {
        "Name": ask.name,
        "Address": ask.raft_address,
        "RPC": ask.rpc_address,
        "CSR": ask.csr_pem,
        "ServerKey": server_key.hex(),
        "Proof": prove(
            token, JoinStatement(ask.name, ask.raft_address, ask.rpc_address, ask.csr_pem, server_key)
        ).hex(),
    }
    hint = "the token may have been used up: if this fails again, have another one made"
    with _reaching(server, hint):
        connection.sock.settimeout(_ANSWER_SECONDS)
        connection.request("POST", _JOIN_PATH, json.dumps(body), {"Content-Type": "application/json"})
        status, text = _answer(connection)
    if status != 200:
        raise CommandError(f"{server} refused ({status}): {printable(text[:_MAX_ERROR_TEXT].strip())}")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CommandError(f"{server} did not answer with a JSON object; {hint}")
    return answer


def _found_ca(server: str, fingerprint: str) -> bytes:
    """The agent CA with this fingerprint, DER. Raises: CommandError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    with _reaching(server, _UNSENT):
        connection = _connected(server, _context())
        connection.request("GET", _CA_PATH)
        status, text = _answer(connection)
    if status != 200:
        raise CommandError(f"{server} refused ({status}): {printable(text[:_MAX_ERROR_TEXT])}; {_UNSENT}")
    try:
        found = [cert.public_bytes(Encoding.DER) for cert in x509.load_pem_x509_certificates(text.encode())]
    except ValueError:
        raise CommandError(f"{server} did not answer with certificates: is it a join port? {_UNSENT}") from None
    for der in found:
        if hashlib.sha256(der).hexdigest() == fingerprint:
            return der
    seen = ", ".join(hashlib.sha256(der).hexdigest() for der in found[:8])
    raise CommandError(
        f"-ca-fingerprint {fingerprint} is not that of the agent CA at {server}, which is {seen}: somebody else answers"
        f" there, or the fingerprint is of another CA. {_UNSENT[0].upper()}{_UNSENT[1:]}"
    )


def _context() -> ssl.SSLContext:
    """Trusts nobody, and asks for nothing yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a server is known by another name than its address
    context.verify_mode = ssl.CERT_NONE
    return context


def _connected(server: str, context: ssl.SSLContext) -> Any:
    host, _, port = server.rpartition(":")
    connection = http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=_CONNECT_SECONDS, context=context)
    connection.connect()
    return connection


def _require_server(server: str, certificate: Mapping[str, Any] | None, suffix: str) -> None:
    """Whoever has a client's certificate of the same CA is no server. Raises: CommandError."""
    names = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]
    own = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    if len(own) != 1 or not is_node_name(own[0]):
        raise CommandError(
            f"the certificate at {server} is not that of a server: it names {', '.join(names) or 'nobody'}, and must"
            f" name one that ends with {suffix}. {_UNSENT[0].upper()}{_UNSENT[1:]}"
        )


def _answer(connection: Any) -> tuple[int, str]:
    response = connection.getresponse()
    data = response.read(_MAX_ANSWER_BYTES + 1)
    connection.close()
    if len(data) > _MAX_ANSWER_BYTES:
        raise ValueError("the answer is too long")
    return response.status, data.decode("utf-8", "replace")


@contextmanager
def _reaching(server: str, hint: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise CommandError(
            f"whoever answers at {server} has no certificate of the agent CA with this fingerprint"
            f" ({error.verify_message}); {hint}"
        ) from error
    except OSError as error:
        raise CommandError(f"{server} cannot be reached: {plain(error)}; {hint}", Exit.UNREACHABLE) from error
    except (http.client.HTTPException, ValueError) as error:
        raise CommandError(f"{server} did not answer as a join port does; {hint}", Exit.UNREACHABLE) from error
