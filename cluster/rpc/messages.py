"""Every operation between nodes, with its request and its answer.

The order of the fields is the wire's (operation.py). A field is added at the end, with a default, and never taken away
or given another meaning while a release that knows it may run beside this one; tests/unit/rpc/golden holds each
message as the releases wrote it.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Meta, msgpack, structs

from cluster.api.access import ACL_WRITE, OPERATOR_READ, OPERATOR_WRITE, SERVER_CERTIFICATES, SNAPSHOT
from cluster.api.ca import RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.leaves import IssuedCert
from cluster.api.seals import NodeSeal
from cluster.api.servers import ClusterInfo, ServerInfo
from cluster.base.requester import recorded
from cluster.rpc.operation import Judged, Message, Operation
from cluster.tls.join_proof import PROOF_BYTES, SERVER_KEY_BYTES
from cluster.tls.keys import KEY_BYTES
from fsm.fields import FIRST_SECOND, LAST_SECOND
from fsm.leaves import MAX_RECORDS, MAX_REQUESTER, LeafRecord

#: Keys of RSA 4096 take seconds, a rotation is waited for, and what it made is removed from a backend that may hang.
_CONFIGURE_SECONDS: Final = 60.0
_RESTORE_SECONDS: Final = 10.0
#: A passphrase is stretched on every node, and the nodes are asked one after the other where that cannot be at once.
_RESEAL_SECONDS: Final = 30.0

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
#: No shorter than what a CSR may hold: a name is part of a URI of 2048 bytes, whose trust domain may be replaced.
Name = Annotated[str, Meta(max_length=4096)]
Address = Annotated[str, Meta(max_length=512)]
Uri = Annotated[str, Meta(max_length=4096)]
Pem = Annotated[str, Meta(max_length=1 << 19)]
#: What HTTP takes is no longer than any of these: what the leader does not understand is nobody's mistake but ours.
MAX_JSON: Final = 1 << 20
Json = Annotated[str, Meta(max_length=MAX_JSON)]
#: Big-endian. Serials are 127 bits or more, and msgpack's integers end at 64 bits.
Serial = Annotated[bytes, Meta(min_length=1, max_length=20)]
#: Of a certificate to be made: 127 random bits and the one before them (signing/serials.py). A shorter one may be
#: guessed, or be that of another certificate.
NewSerial = Annotated[bytes, Meta(min_length=16, max_length=20)]
#: Tells one write from another.
RequestId = Annotated[bytes, Meta(max_length=64)]
#: Who asked, in the words of the node that was asked.
Requester = Annotated[str, Meta(max_length=MAX_REQUESTER)]
#: Unix seconds that can be shown as a date.
Moment = Annotated[int, Meta(ge=FIRST_SECOND, le=LAST_SECOND)]
KeyId = Annotated[bytes, Meta(max_length=256)]
Digest = Annotated[bytes, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=1 << 16)]
#: Members of the state map, servers, risks: far more than there are.
_MANY: Final = 1024
_SERIAL_BYTES: Final = 20
#: No more fits into a message (envelope.py), nor into a log entry.
MAX_STATE_BYTES: Final = 4 << 20


class Nothing(Message, frozen=True):
    """There is nothing to ask for, or to answer beyond that it is done."""


DONE: Final = Nothing()


# -- leaves


class SignRequest(Message, frozen=True):
    csr_pem: Pem
    #: Names the request, wherever and however often it is sent. While servers of the release before take part, it is
    #: the certificate's serial, too (`signing/serials.py`).
    request_id: NewSerial
    requested_by: Requester

    def as_told_by(self, peer: str) -> "SignRequest":
        """Who asked is that server's word, and is recorded as that. Without a name: as if the leader knew it itself."""
        return structs.replace(self, requested_by=recorded(self.requested_by, peer))


class SignAnswer(Message, frozen=True):
    """An IssuedCert."""

    serial: Serial
    cert_pem: Pem
    kind: Name
    name: Name
    spiffe_id: Uri
    not_before: Moment
    not_after: Moment
    index: Count

    @classmethod
    def of(cls, cert: IssuedCert) -> "SignAnswer":
        return cls(
            serial=cert.serial.to_bytes(_SERIAL_BYTES, "big"),
            cert_pem=cert.cert_pem,
            kind=cert.kind,
            name=cert.name,
            spiffe_id=cert.spiffe_id,
            not_before=cert.not_before,
            not_after=cert.not_after,
            index=cert.index,
        )

    def value(self) -> IssuedCert:
        return IssuedCert(**{**structs.asdict(self), "serial": int.from_bytes(self.serial, "big")})


# -- the CA


class ConfigureRequest(Message, frozen=True):
    """A ConfigUpdate, and which write it is."""

    provider: Name
    config: Json  # as text: JSON's numbers have no bounds, msgpack's do
    state: Annotated[Mapping[Name, Text], Meta(max_length=_MANY)] | None
    force_without_cross_signing: bool
    modify_index: Annotated[int, Meta(ge=0)]
    is_staged: bool
    wait_seconds: Count
    request_id: RequestId
    ca_index: Count
    is_repeat: bool


class PlanRequest(Message, frozen=True):
    """A RotateRequest."""

    key_type: Name | None
    key_bits: Count | None
    is_forced: bool
    is_staged: bool
    wait_seconds: Count

    @classmethod
    def of(cls, wanted: RotateRequest) -> "PlanRequest":
        return cls(
            key_type=wanted.key_type,
            key_bits=wanted.key_bits,
            is_forced=wanted.is_forced,
            is_staged=wanted.is_staged,
            wait_seconds=wanted.wait_seconds,
        )

    def value(self) -> RotateRequest:
        return RotateRequest(**structs.asdict(self))


class PlanAnswer(Message, frozen=True):
    """A RotationPlan."""

    active_root_id: Name
    provider: Name
    key_type: Name
    key_bits: Count
    is_forced: bool
    is_staged: bool
    chain_bytes: Count
    max_chain_bytes: Count
    links: Count
    trusted_roots: Count
    affected_leaves: Count
    retired_until: Count
    risks: Annotated[tuple[Text, ...], Meta(max_length=_MANY)]

    @classmethod
    def of(cls, plan: RotationPlan) -> "PlanAnswer":
        return cls(**{name: getattr(plan, name) for name in cls.__struct_fields__})

    def value(self) -> RotationPlan:
        return RotationPlan(**structs.asdict(self))


class RotationRequest(Message, frozen=True):
    """A RotateRequest, and which write it is."""

    key_type: Name | None
    key_bits: Count | None
    is_forced: bool
    is_staged: bool
    wait_seconds: Count
    request_id: RequestId
    ca_index: Count
    is_repeat: bool

    def value(self) -> RotateRequest:
        return RotateRequest(self.key_type, self.key_bits, self.is_forced, self.is_staged, self.wait_seconds)


class SteerRequest(Message, frozen=True):
    steering: Steering


class UptakeMessage(Message, frozen=True):
    watchers: Count
    watchers_seen: Count
    identities: Count
    identities_renewed: Count


class UptakeAnswer(Message, frozen=True):
    """None unless a published root waits for its clients."""

    uptake: UptakeMessage | None

    @classmethod
    def of(cls, uptake: Uptake | None) -> "UptakeAnswer":
        if uptake is None:
            return cls(None)
        return cls(UptakeMessage(uptake.watchers, uptake.watchers_seen, uptake.identities, uptake.identities_renewed))

    def value(self) -> Uptake | None:
        return None if self.uptake is None else Uptake(**structs.asdict(self.uptake))


class DistrustRequest(Message, frozen=True):
    root_id: Name


class WatchersRequest(Message, frozen=True):
    """Asks how many blocking queries on the roots wait on this node, and how many have seen this publication."""

    published_index: Count


class WatchersAnswer(Message, frozen=True):
    waiting: Count
    seen: Count


# -- the seal


class SealCheckRequest(Message, frozen=True):
    """Asks whether this node has the key-encryption key of a seal."""

    source: Name
    kek_id: Name
    salt: Annotated[bytes, Meta(max_length=64)]


class SealCheckAnswer(Message, frozen=True):
    problem: Name  # why it has not; empty if it has


class RotateSealRequest(Message, frozen=True):
    """Changes the data key, and the key-encryption key with it unless that stays."""

    base: Annotated[bytes, Meta(max_length=64)]  # which seal it is to follow: a repetition finds another
    keeps_key: bool


class SealStatusAnswer(Message, frozen=True):
    """A NodeSeal."""

    node: Name
    source: Name
    key_id: Name
    seal_id: Name
    is_settled: bool
    to_do: Name

    @classmethod
    def of(cls, seal: NodeSeal) -> "SealStatusAnswer":
        return cls(**{name: getattr(seal, name) for name in cls.__struct_fields__})

    def value(self) -> NodeSeal:
        return NodeSeal(**structs.asdict(self))


# -- backups


class RowMessage(Message, frozen=True):
    """A LeafRecord."""

    serial: Serial
    kind: Count
    name: Name
    spiffe_id: Uri
    public_key_sha256: Digest
    not_before: Moment
    not_after: Moment
    requested_by: Requester
    request_id: RequestId

    @classmethod
    def of(cls, record: LeafRecord) -> "RowMessage":
        return cls(**{name: getattr(record, name) for name in cls.__struct_fields__})

    def value(self) -> LeafRecord:
        return LeafRecord(**structs.asdict(self))


class RestoreRowsRequest(Message, frozen=True):
    """Of the release before, which proves nothing: it is always refused."""

    issuer_key_id: KeyId
    rows: Annotated[list[RowMessage], Meta(max_length=MAX_RECORDS)]


class ProvenRowsRequest(Message, frozen=True):
    """Certificates of a snapshot, for the record."""

    issuer_key_id: KeyId
    rows: Annotated[list[RowMessage], Meta(max_length=MAX_RECORDS)]
    trust_domain: Name  # of the cluster that they are for, as it is now
    ca_index: Count  # of its CA
    proof: Annotated[bytes, Meta(max_length=32)]  # that whoever sends it has the cluster's data key

    def unproven(self) -> bytes:
        """What the proof is over: everything else."""
        fields = [self.issuer_key_id, self.rows, self.trust_domain, self.ca_index]
        return b"quorumca restore rows 1" + msgpack.encode(fields)


class RestoreRequest(Message, frozen=True):
    """Of the release before, which does not say how the snapshot was judged: it is always refused."""

    state: Annotated[bytes, Meta(max_length=MAX_STATE_BYTES)]  # as fsm.codec writes it


class JudgedRestoreRequest(Message, frozen=True):
    """Puts a saved CA in the place of the cluster's, with what the leader needs to judge it once more."""

    state: Annotated[bytes, Meta(max_length=MAX_STATE_BYTES)]  # as fsm.codec writes it
    sums: Annotated[bytes, Meta(max_length=1024)]  # of the snapshot's parts: what its MAC is over
    mac: Annotated[str, Meta(max_length=64)]  # in hex; empty for a snapshot without one
    is_forced: bool  # whoever asked has been told what the snapshot adds, and means it
    ca_index: Count  # of the CA beside which the node that was asked has judged it
    proof: Annotated[bytes, Meta(max_length=32)]  # that this node has the cluster's data key, not a certificate alone

    def unproven(self) -> bytes:
        """What the proof is over: everything else."""
        return b"quorumca restore 1" + self._fields()

    def _fields(self) -> bytes:
        fields = [self.state, self.sums, self.mac, self.is_forced, self.ca_index]
        return msgpack.encode(fields)


class CheckedRestoreRequest(JudgedRestoreRequest, frozen=True):
    """Whether the leader would take it. What proves this is no proof for the other."""

    def unproven(self) -> bytes:
        return b"quorumca restore check 1" + self._fields()


# -- servers


class ServerMessage(Message, frozen=True):
    """A ServerInfo."""

    name: Name
    raft_address: Address
    rpc_address: Address
    is_leader: bool
    is_voter: bool
    is_healthy: bool
    last_contact_ms: Count | None
    last_term: Count
    last_index: Count
    stable_since: Count

    @classmethod
    def of(cls, info: ServerInfo) -> "ServerMessage":
        return cls(**{name: getattr(info, name) for name in cls.__struct_fields__})

    def value(self) -> ServerInfo:
        return ServerInfo(**structs.asdict(self))


class ClusterAnswer(Message, frozen=True):
    """A ClusterInfo."""

    servers: Annotated[list[ServerMessage], Meta(max_length=_MANY)]
    log_index: Count

    @classmethod
    def of(cls, info: ClusterInfo) -> "ClusterAnswer":
        return cls([ServerMessage.of(server) for server in info.servers], info.log_index)

    def value(self) -> ClusterInfo:
        return ClusterInfo(tuple(server.value() for server in self.servers), self.log_index)


class TransferRequest(Message, frozen=True):
    name: Name | None


class AddPeerRequest(Message, frozen=True):
    name: Name
    raft_address: Address
    rpc_address: Address


class RemovePeerRequest(Message, frozen=True):
    name: Name | None
    raft_address: Address | None


class AnnounceKeyRequest(Message, frozen=True):
    """The server that asks is about to use another key."""

    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    name: Name  # of the server itself

    def as_told_by(self, peer: str) -> "AnnounceKeyRequest":
        """Nobody speaks for another server."""
        return structs.replace(self, name=peer)


# -- access control


class AclPutRequest(Message, frozen=True):
    """An object of a client, to be made, or to take the place of the one with this key."""

    table: Name  # of fsm.acl.ACL_TABLES
    key: Name  # empty for a new one
    body: Json


class AclDeleteRequest(Message, frozen=True):
    table: Name
    key: Name


class AclCloneRequest(Message, frozen=True):
    accessor_id: Name
    description: Text


class AclBootstrapRequest(Message, frozen=True):
    secret_id: Name  # empty: one is drawn


class AclLoginRequest(Message, frozen=True):
    method: Name
    bearer_token: Text
    meta: Annotated[Mapping[Name, Text], Meta(max_length=_MANY)]


class AclKeyAnswer(Message, frozen=True):
    """What was written; of a new token, its SecretID, too, which is shown this once."""

    key: Name
    secret_id: Name = ""


# -- servers and their certificates


class AgentCARequest(Message, frozen=True):
    """Empty texts: it is taken away."""

    cert_pem: Pem
    key_pem: Pem
    cert_ttl_seconds: Count


class JoinTokenRequest(Message, frozen=True):
    name: Name
    raft_address: Address
    rpc_address: Address
    ttl_seconds: Count
    is_rejoin: bool
    is_forced: bool  # though the server is there


class JoinTokenAnswer(Message, frozen=True):
    secret: Name
    expires_at: Moment
    fingerprint: Name  # of the agent CA


class JoinRequest(Message, frozen=True):
    """Of a machine that is no server yet: what it says counts for as much as its proof (`tls/join_proof.py`)."""

    name: Name
    raft_address: Address
    rpc_address: Address
    csr_pem: Pem
    server_key: Annotated[bytes, Meta(min_length=SERVER_KEY_BYTES, max_length=SERVER_KEY_BYTES)]
    proof: Annotated[bytes, Meta(min_length=PROOF_BYTES, max_length=PROOF_BYTES)]
    through: Name  # the server that the machine has asked

    def as_told_by(self, peer: str) -> "JoinRequest":
        """Whoever brings it is the server that was asked."""
        return structs.replace(self, through=peer)


class RenewNodeRequest(Message, frozen=True):
    """A server asks for another certificate with the key that it is known by."""

    csr_pem: Pem
    present_pem: Pem
    name: Name  # of the server itself

    def as_told_by(self, peer: str) -> "RenewNodeRequest":
        """Nobody asks for another server."""
        return structs.replace(self, name=peer)


class NodeCertAnswer(Message, frozen=True):
    cert_pem: Pem


SIGN: Final = Operation(
    "sign",
    SignRequest,
    SignAnswer,
    needs=Judged.BY_ITSELF,
    is_repeatable=True,
    is_batched=True,
    as_told_by=SignRequest.as_told_by,
)
CONFIGURE: Final = Operation(
    "configure", ConfigureRequest, Nothing, needs=OPERATOR_WRITE, is_repeatable=True, seconds=_CONFIGURE_SECONDS
)
PLAN_ROTATION: Final = Operation("plan_rotation", PlanRequest, PlanAnswer, needs=OPERATOR_WRITE, is_repeatable=True)
ROTATE: Final = Operation(
    "rotate", RotationRequest, Nothing, needs=OPERATOR_WRITE, is_repeatable=True, seconds=_CONFIGURE_SECONDS
)
STEER_ROTATION: Final = Operation(
    "steer_rotation", SteerRequest, Nothing, needs=OPERATOR_WRITE, seconds=_CONFIGURE_SECONDS
)
ROTATION_UPTAKE: Final = Operation("rotation_uptake", Nothing, UptakeAnswer, needs=OPERATOR_READ, is_repeatable=True)
DISTRUST_ROOT: Final = Operation(
    "distrust_root", DistrustRequest, Nothing, needs=OPERATOR_WRITE, seconds=_CONFIGURE_SECONDS
)
WATCHERS: Final = Operation(
    "watchers", WatchersRequest, WatchersAnswer, needs=Judged.BETWEEN_SERVERS, needs_leader=False
)
SEAL_CHECK: Final = Operation(
    "seal_check", SealCheckRequest, SealCheckAnswer, needs=Judged.BETWEEN_SERVERS, needs_leader=False
)
SEAL_STATUS: Final = Operation(
    "seal_status", Nothing, SealStatusAnswer, needs=Judged.BETWEEN_SERVERS, needs_leader=False
)
ROTATE_SEAL: Final = Operation(
    "rotate_seal", RotateSealRequest, Nothing, needs=OPERATOR_WRITE, is_repeatable=True, seconds=_RESEAL_SECONDS
)
RESTORE_ROWS: Final = Operation("restore_rows", RestoreRowsRequest, Nothing, needs=SNAPSHOT, is_repeatable=True)
RESTORE_PROVEN_ROWS: Final = Operation(
    "restore_proven_rows", ProvenRowsRequest, Nothing, needs=SNAPSHOT, is_repeatable=True
)
RESTORE_CHECKED: Final = Operation(
    "restore_checked", CheckedRestoreRequest, Nothing, needs=SNAPSHOT, is_repeatable=True, seconds=_RESTORE_SECONDS
)
RESTORE_CA: Final = Operation("restore_ca", RestoreRequest, Nothing, needs=SNAPSHOT, seconds=_RESTORE_SECONDS)
RESTORE_JUDGED: Final = Operation(
    "restore_judged", JudgedRestoreRequest, Nothing, needs=SNAPSHOT, seconds=_RESTORE_SECONDS
)
CLUSTER: Final = Operation("cluster", Nothing, ClusterAnswer, needs=Judged.BETWEEN_SERVERS, is_repeatable=True)
TRANSFER: Final = Operation("transfer", TransferRequest, Nothing, needs=OPERATOR_WRITE)
ADD_PEER: Final = Operation("add_peer", AddPeerRequest, Nothing, needs=OPERATOR_WRITE, is_repeatable=True)
REMOVE_PEER: Final = Operation("remove_peer", RemovePeerRequest, Nothing, needs=OPERATOR_WRITE)
ANNOUNCE_KEY: Final = Operation(
    "announce_key",
    AnnounceKeyRequest,
    Nothing,
    needs=Judged.BETWEEN_SERVERS,
    is_repeatable=True,
    as_told_by=AnnounceKeyRequest.as_told_by,
)

ACL_PUT: Final = Operation("acl_put", AclPutRequest, AclKeyAnswer, needs=ACL_WRITE)
ACL_DELETE: Final = Operation("acl_delete", AclDeleteRequest, Nothing, needs=Judged.BY_ITSELF)
ACL_CLONE: Final = Operation("acl_clone", AclCloneRequest, AclKeyAnswer, needs=ACL_WRITE)
ACL_BOOTSTRAP: Final = Operation("acl_bootstrap", AclBootstrapRequest, AclKeyAnswer, needs=Judged.OPEN)
ACL_LOGIN: Final = Operation("acl_login", AclLoginRequest, AclKeyAnswer, needs=Judged.OPEN)
ACL_LOGOUT: Final = Operation("acl_logout", Nothing, Nothing, needs=Judged.BY_ITSELF)

SET_AGENT_CA: Final = Operation("set_agent_ca", AgentCARequest, Nothing, needs=SERVER_CERTIFICATES)
JOIN_TOKEN: Final = Operation("join_token", JoinTokenRequest, JoinTokenAnswer, needs=SERVER_CERTIFICATES)
JOIN: Final = Operation("join", JoinRequest, NodeCertAnswer, needs=Judged.OPEN, as_told_by=JoinRequest.as_told_by)
RENEW_NODE: Final = Operation(
    "renew_node",
    RenewNodeRequest,
    NodeCertAnswer,
    needs=Judged.BETWEEN_SERVERS,
    is_repeatable=True,
    as_told_by=RenewNodeRequest.as_told_by,
)
