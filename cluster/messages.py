"""How what the leader answers crosses between nodes, as msgpack values."""

from collections.abc import Sequence
from typing import Any, Final

from cluster.api import ClusterInfo, IssuedCert, ServerInfo

#: Serials are 127 bits or more, msgpack integers end at 64.
_SERIAL_BYTES: Final = 20


def pack_cert(cert: IssuedCert) -> list[Any]:
    return [
        cert.serial.to_bytes(_SERIAL_BYTES, "big"),
        cert.cert_pem,
        cert.kind,
        cert.name,
        cert.spiffe_id,
        cert.not_before,
        cert.not_after,
        cert.index,
    ]


def unpack_cert(packed: Sequence[Any]) -> IssuedCert:
    serial, *rest = packed
    return IssuedCert(int.from_bytes(serial, "big"), *rest)


def pack_cluster(info: ClusterInfo) -> list[Any]:
    servers = [
        [
            server.name,
            server.raft_address,
            server.rpc_address,
            server.is_leader,
            server.is_voter,
            server.is_healthy,
            server.last_contact_ms,
            server.last_term,
            server.last_index,
            server.stable_since,
        ]
        for server in info.servers
    ]
    return [servers, info.log_index]


def unpack_cluster(packed: Sequence[Any]) -> ClusterInfo:
    servers, log_index = packed
    return ClusterInfo(tuple(ServerInfo(*server) for server in servers), log_index)
