"""From a command of the leader to a committed change of the CA, or to an error that says why there is none."""

from typing import Final, Protocol

from cluster.base.errors import LostRace, Refused
from cluster.raft.node import MAX_PROPOSAL_BYTES
from cluster.raft.replica import packed_command
from fsm.apply import STALE_INDEX
from fsm.commands import Applied, Command, Rejected

_COMMIT_SECONDS: Final = 10.0
#: Consul's.
LOST_RACE: Final = "could not atomically update roots and config"


class Proposer(Protocol):
    """The replicated log, as whoever writes sees it."""

    async def propose(self, command: Command, *, timeout: float) -> Applied | Rejected: ...


async def commit(replica: Proposer, command: Command) -> Applied:
    """Propose, and wait until a majority has it.

    Raises: LostRace when the CA has changed since the command's author looked at it, Refused when it is impossible now,
    NotLeader, NoLeader, Overloaded (none of these has had an effect); CommitUnknown.
    """
    result = await replica.propose(command, timeout=_COMMIT_SECONDS)
    if isinstance(result, Applied):
        return result
    if result.code == STALE_INDEX:
        raise LostRace(LOST_RACE)
    raise Refused(f"{result.code}: {result.detail}")


def require_writable(command: Command) -> None:
    """Whether the log would take this command, which is to be made later. Raises: Refused."""
    require_room(len(packed_command(command)))


def require_room(size: int) -> None:
    """For a command of so many bytes. Raises: Refused."""
    if size > MAX_PROPOSAL_BYTES:
        raise Refused(
            f"the rotation would write about {size} bytes at once, more than {MAX_PROPOSAL_BYTES}: possible with a"
            " smaller root or configuration, or with fewer trusted roots (quorumca ca distrust)"
        )
