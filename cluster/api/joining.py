"""How servers come to their certificates: the agent CA, tokens to join with, and joining."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.api.access import Caller


@dataclass(frozen=True, slots=True)
class AgentCAInfo:
    """The agent CA that the cluster signs its servers' certificates with."""

    cert_pem: str
    fingerprint: str  # SHA-256 of the certificate, hex
    cert_ttl_seconds: int
    set_at: int


@dataclass(frozen=True, slots=True)
class JoinTokenWanted:
    """Addresses are `host:port`; of a server that comes back they may be empty, for it is where it was."""

    name: str
    raft_address: str
    rpc_address: str
    ttl_seconds: int
    is_rejoin: bool
    is_forced: bool = False  # though the server is there


@dataclass(frozen=True, slots=True)
class NewJoinToken:
    """Shown this once."""

    secret: str = field(repr=False)
    expires_at: int
    fingerprint: str  # of the agent CA


@dataclass(frozen=True, slots=True)
class JoinAsk:
    """What a machine that is no server yet sends, with the proof that it has a token for this."""

    name: str
    raft_address: str
    rpc_address: str
    csr_pem: str
    server_key: bytes  # of the server that it has met
    proof: bytes


@dataclass(frozen=True, slots=True)
class Founder:
    """One of the servers that the cluster started from: what a node's file must name."""

    name: str
    raft_address: str
    rpc_address: str


@dataclass(frozen=True, slots=True)
class Joined:
    cert_pem: str
    ca_pem: str  # all agent CAs that the servers trust
    founders: Sequence[Founder]
    members: Sequence[Founder]  # the servers of now
    default_policy: str  # of access control, as the server has it that was asked: "allow" or "deny"


class Joining(Protocol):
    """Servers and their certificates."""

    async def agent_ca(self) -> AgentCAInfo | None:
        """None: the cluster was not given one. Raises: NoLeader."""
        ...

    async def set_agent_ca(self, caller: Caller, cert_pem: str, key_pem: str, cert_ttl_seconds: int) -> None:
        """Empty texts take it away. Raises: BadRequest, Refused, NotReady, NoLeader, CommitUnknown."""
        ...

    async def new_join_token(self, caller: Caller, wanted: JoinTokenWanted) -> NewJoinToken:
        """In the place of the one before for this name. Raises: BadRequest, Conflict, Refused, NoLeader,
        CommitUnknown.
        """
        ...

    def ca_pem(self) -> str:
        """The agent CAs that this node trusts. Raises: InternalError."""
        ...

    async def join(self, ask: JoinAsk) -> Joined:
        """Takes the token, signs, and makes the machine a server, as a learner. Raises: PermissionDenied for a token
        that is not good; CSRRejected, Conflict, Refused, NoLeader, CommitUnknown.
        """
        ...
