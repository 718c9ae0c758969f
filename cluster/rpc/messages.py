"""How what the leader answers crosses between nodes, as msgpack values."""

from collections.abc import Sequence
from typing import Any, Final

from cluster.api.ca import RotateRequest, RotationPlan, Uptake
from cluster.api.leaves import IssuedCert
from cluster.api.servers import ClusterInfo, ServerInfo

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


def pack_rotate(request: RotateRequest) -> list[Any]:
    return [request.key_type, request.key_bits, request.is_forced, request.is_staged, request.wait_seconds]


def pack_uptake(uptake: Uptake) -> list[Any]:
    return [uptake.watchers, uptake.watchers_seen, uptake.identities, uptake.identities_renewed]


def pack_plan(plan: RotationPlan) -> list[Any]:
    return [
        plan.active_root_id,
        plan.provider,
        plan.key_type,
        plan.key_bits,
        plan.is_forced,
        plan.is_staged,
        plan.chain_bytes,
        plan.max_chain_bytes,
        plan.links,
        plan.trusted_roots,
        plan.affected_leaves,
        plan.retired_until,
        list(plan.risks),
    ]


def unpack_plan(packed: Sequence[Any]) -> RotationPlan:
    values = [*packed[:-1], tuple(packed[-1])]
    return RotationPlan(*values)
