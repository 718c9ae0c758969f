"""How servers come to their certificates: the agent CA, where it was handed to the cluster, and tokens to join with.

The agent CA is who the servers are to each other, and not the mesh's. Its key is here sealed with the cluster's data
key, so that whoever leads can renew the servers' certificates; a cluster that was not given one leaves them to its
operators. Of a join token only the public half of its key is here. Times are Unix seconds.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Final

from fsm.acl import Uuid
from fsm.fields import Digest, Index, Length, Pem, Sealed, Text, Time, Within

#: Tokens that may be out at a time: a server is added at a time, and there are at most nine.
MAX_JOIN_TOKENS: Final = 64
#: Of certificates that the cluster makes for its servers. The longest is half a year: they are renewed by themselves.
LEAST_TTL_SECONDS: Final = 5
MOST_TTL_SECONDS: Final = 180 * 86_400

_NODE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

NodeName = Annotated[str, Text(1, 63, _NODE_NAME)]
#: host:port; empty for a server that comes back, which is where it was.
Address = Annotated[str, Text(0, 255)]
#: Ed25519, raw (RFC 8032 5.1.5).
PublicKey = Annotated[Digest, Length(32, 32)]
CertTtl = Annotated[int, Within(LEAST_TTL_SECONDS, MOST_TTL_SECONDS)]


@dataclass(frozen=True, slots=True)
class AgentCA:
    """The certificate, and the key under the cluster's data key."""

    cert_pem: Pem
    sealed: Sealed = field(repr=False)
    cert_ttl_seconds: CertTtl
    set_at: Time


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Good for one certificate, for the server of this name."""

    public_key: PublicKey
    name: NodeName
    raft_address: Address
    rpc_address: Address
    is_rejoin: bool  # for a server that is one already; any other one is for a name that is nobody's
    is_forced: bool  # also while the leader hears from that server
    expires_at: Time
    made_by: Uuid | None  # AccessorID of the token that it ends with; None: nobody was asked for one

    def is_expired(self, now: float) -> bool:
        return now >= self.expires_at


JoinTokens = Annotated[tuple[JoinToken, ...], Length(0, MAX_JOIN_TOKENS)]


@dataclass(frozen=True, slots=True)
class Nodes:
    agent_ca: AgentCA | None = None
    join_tokens: JoinTokens = ()  # in the order of their names, one for each


# -- commands


@dataclass(frozen=True, slots=True)
class SetAgentCA:
    """In the place of the one before; None takes it away. `ca_index`: that of the state by whose data key its key was
    sealed, which another write may have replaced since.
    """

    ca_index: Index
    agent_ca: AgentCA | None


@dataclass(frozen=True, slots=True)
class AddJoinToken:
    """In the place of the one before for the same name. Those that have expired by `now` are dropped."""

    token: JoinToken
    now: Time


@dataclass(frozen=True, slots=True)
class TakeJoinToken:
    """Used up, for a server of this name, at `now`. It is the log that says who was first."""

    public_key: PublicKey
    name: NodeName
    now: Time


NodesCommand = SetAgentCA | AddJoinToken | TakeJoinToken
