"""Node-to-node TLS: who a peer is, as its certificate says, and the contexts both node-to-node ports share.

A server's certificate carries the DNS name `<node>.server.<datacenter>.<domain>`, which `quorumca tls cert create
-server -node` makes, as Consul's does. Names of another role, datacenter or CA get nowhere.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.base.names import is_node_name


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: trusted CA, this node's certificate (with its chain) and key."""

    ca: str
    cert: str
    key: str


class NodeTls:
    """This node's identity, and how it recognises others. Contexts keep working while `reload` replaces the files."""

    def __init__(self, files: TlsFiles, datacenter: str, domain: str) -> None:
        """Raises: OSError, ssl.SSLError when a file cannot be used."""
        self._files = files
        self._suffix = f".server.{datacenter}.{domain}"
        self.server_context = _context(ssl.PROTOCOL_TLS_SERVER)
        self.client_context = _context(ssl.PROTOCOL_TLS_CLIENT)
        self.reload()

    def reload(self) -> None:
        """Read the files again, for the connections made from now on."""
        for context in (self.server_context, self.client_context):
            context.load_verify_locations(self._files.ca)
            context.load_cert_chain(self._files.cert, self._files.key)

    def server_name(self, node: str) -> str:
        """The name that `node`'s certificate must carry."""
        return node + self._suffix

    def peer_name(self, certificate: Mapping[str, Any] | None) -> str | None:
        """The server of this datacenter that a verified certificate names, or None.

        `certificate` is what `SSLObject.getpeercert()` returns.
        """
        alternatives = (certificate or {}).get("subjectAltName", ())
        names = {
            value.removesuffix(self._suffix)
            for kind, value in alternatives
            if kind == "DNS" and value.endswith(self._suffix)
        }
        names = {name for name in names if is_node_name(name)}
        return names.pop() if len(names) == 1 else None


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # Tickets would let a connection be resumed after its certificate has expired or its CA was replaced.
        context.num_tickets = 0
    return context
