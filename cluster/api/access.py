"""Who asks, and what that allows: the questions that endpoints and operations put, and no answer of their own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, Protocol

from cluster.base.errors import PermissionDenied
from cluster.base.requester import with_accessor

#: Characters of a SecretID, which is a UUID: nobody has a longer one.
MAX_SECRET_ID: Final = 64


class Level(IntEnum):
    """What a rule allows. A higher one includes those below it; `deny` is nothing at all."""

    DENY = 0
    READ = 1
    LIST = 2  # keys only
    WRITE = 3

    @property
    def word(self) -> str:
        return self.name.lower()


class Resource(StrEnum):
    """What rules are about. Most of them are Consul's and stand for nothing here."""

    ACL = "acl"
    AGENT = "agent"
    EVENT = "event"
    IDENTITY = "identity"
    KEY = "key"
    KEYRING = "keyring"
    MESH = "mesh"
    NODE = "node"
    OPERATOR = "operator"
    PEERING = "peering"
    QUERY = "query"
    SERVICE = "service"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Right:
    """`operator:write`; with a name when it is asked for: `service:write` on "web"."""

    resource: Resource
    level: Level
    is_free_while_open: bool = False

    def __str__(self) -> str:
        return f"{self.resource}:{self.level.word}"


OPERATOR_READ: Final = Right(Resource.OPERATOR, Level.READ)
OPERATOR_WRITE: Final = Right(Resource.OPERATOR, Level.WRITE)
ACL_READ: Final = Right(Resource.ACL, Level.READ)
ACL_WRITE: Final = Right(Resource.ACL, Level.WRITE)
SERVICE_READ: Final = Right(Resource.SERVICE, Level.READ)
SERVICE_WRITE: Final = Right(Resource.SERVICE, Level.WRITE)
NODE_READ: Final = Right(Resource.NODE, Level.READ)
MESH_WRITE: Final = Right(Resource.MESH, Level.WRITE)
NODE_WRITE: Final = Right(Resource.NODE, Level.WRITE)
AGENT_READ: Final = Right(Resource.AGENT, Level.READ)
AGENT_WRITE: Final = Right(Resource.AGENT, Level.WRITE)
#: A snapshot has everything in it that there is. While a cluster is open to everybody, it is so, too.
SNAPSHOT: Final = Right(Resource.ACL, Level.WRITE, is_free_while_open=True)
#: To say which machines get a server's certificate: whoever has one can put anything into the log, rights too.
SERVER_CERTIFICATES: Final = SNAPSHOT


@dataclass(frozen=True, slots=True)
class GivenNames:
    """Where a level is given on a resource that is about names: on these, and on some of those that begin so."""

    exact: tuple[str, ...]
    prefixes: tuple[str, ...]


class Rules(Protocol):
    """What a caller's rules say."""

    def allows(self, resource: Resource, level: Level, name: str = "") -> bool: ...

    def names_given(self, resource: Resource, level: Level) -> GivenNames:
        """Found once for a set of rules, however often it is asked."""
        ...

    def gives_any(self, resource: Resource, level: Level) -> bool:
        """Whether there is a name at all on which it is given."""
        ...

    def intends(self, level: Level, name: str) -> bool: ...

    def ttl_max_seconds(self, service: str) -> int:
        """Of this service's certificates; 0: as the CA is configured."""
        ...

    @property
    def grant(self) -> bytes:
        """What certificates may be had, as `providers.grants.Grant` packs it."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has sent a request, by its token, as of the moment at which it was judged.

    `secret_id` goes with what is asked of the leader, which judges by itself: what a member says of a caller counts
    for nothing. It is kept for no longer than the request.
    """

    secret_id: str = field(repr=False)
    accessor_id: str
    rules: Rules = field(repr=False)
    expires_at: int = 0  # Unix seconds; 0: never
    is_anonymous: bool = False
    #: Nobody has bootstrapped access control, and what no rule denies is allowed: there is nobody to ask for rights.
    is_of_open_cluster: bool = False
    #: From where, as it is recorded (`base/requester.py`): on the leader, by the word of the server that was asked.
    asked_from: str = field(default="", compare=False)
    #: By what it was judged; None: by what has no successor that could be told apart.
    judged_by: object = field(default=None, repr=False, compare=False)

    @property
    def accessor_on_record(self) -> str:
        """ "" where nobody is asked for a token."""
        return "" if self.is_of_open_cluster else self.accessor_id

    @property
    def by(self) -> str:
        """For the log: who has had something done, as `ca.signed` says it."""
        return with_accessor(self.asked_from, self.accessor_on_record)

    def may(self, right: Right, name: str = "") -> bool:
        if right.is_free_while_open and self.is_of_open_cluster:
            return True
        return self.rules.allows(right.resource, right.level, name)

    def may_some(self, right: Right) -> bool:
        """False: whatever the name, it is refused."""
        return self.rules.gives_any(right.resource, right.level)

    def require(self, right: Right, name: str | None = None) -> None:
        """Raises: PermissionDenied, in Consul's words."""
        if not self.may(right, name or ""):
            raise self.refusal(right, name)

    def refusal(self, right: Right, name: str | None = None) -> PermissionDenied:
        denied = self.denied(f"lacks permission '{right}'{_on(name)}")
        if self.is_of_open_cluster and right.resource is Resource.ACL:
            return PermissionDenied(f"{denied} Access control must be bootstrapped first (quorumca acl bootstrap)")
        return denied

    def denied(self, lack: str) -> PermissionDenied:
        """`lack` goes on where it was said who asks."""
        if self.is_anonymous:
            return PermissionDenied(
                f"Permission denied: anonymous token {lack}. The anonymous token is used implicitly when a request does"
                " not specify a token."
            )
        return PermissionDenied(f"Permission denied: token with AccessorID '{self.accessor_id}' {lack}")


def _on(name: str | None) -> str:
    return f' on "{name}"' if name is not None else ""


#: Who asks, as things are when it is called. Raises: TokenUnknown, NotReady, Outdated.
Judge = Callable[[], Caller]


class Access(Protocol):
    """Where a node learns who a token belongs to."""

    @property
    def allows_by_default(self) -> bool:
        """What holds where no rule speaks of something."""
        ...

    def caller_here(self, secret_id: str) -> Caller:
        """As `caller`, by what this node knows, which may lag. Costs one keyed hash, and asks nobody.

        Raises: TokenUnknown, NotReady; Outdated where this node has been cut off for too long to know.
        """
        ...

    async def caller(self, secret_id: str) -> Caller:
        """Of a request that brings this SecretID; "" where it brings none.

        Raises: TokenUnknown, for one that has expired, too; NotReady, NoLeader, Outdated while that cannot be known.
        """
        ...

    def put_agent_token(self, kind: str, secret_id: str, caller: Caller) -> None:
        """Of this node itself, in memory; "" takes one away. `caller` is who gives it: a recovery token counts for as
        long as that may give one. Raises: NotFound for a kind that there is not.
        """
        ...

    @property
    def has_recovery_token(self) -> bool:
        """Whether there is one that counts."""
        ...

    def judged_again(self, caller: Caller) -> Caller:
        """The same as things are now, on this node. Raises: TokenUnknown, Outdated."""
        ...
