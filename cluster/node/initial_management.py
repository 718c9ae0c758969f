"""The first token for management, from `acl.initial_management_file`, as soon as this node may make it.

Whoever leads makes it, once in the life of a cluster: it is a bootstrap, so nobody else's comes before or after it, and
a token that an operator has deleted does not come back while the file is still there.
"""

import asyncio
import contextlib
import functools
from typing import Final, NoReturn

from cluster.base.errors import BadRequest, ClusterError
from cluster.base.log import Log
from cluster.base.signals import wait_any
from cluster.node.acl_work import AclWork
from cluster.raft.replica import Replica
from cluster.seal.token_files import TokenFileRefused
from fsm.state import Area

#: While it cannot be made: the file may come.
_AGAIN_SECONDS: Final = 5.0


class InitialManagement:
    def __init__(self, replica: Replica, work: AclWork, log: Log) -> None:
        self._replica = replica
        self._work = work
        self._log = log
        self._said = ""

    async def run(self) -> NoReturn:
        signals = (self._replica.leadership_changed, self._replica.changed[Area.ACL])
        while True:
            await self.look()
            is_wanted = self._is_wanted
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS if is_wanted else None):
                    await wait_any(signals, functools.partial(self._is_still, is_wanted))

    async def look(self) -> None:
        if not self._is_wanted:
            return
        try:
            await self._work.make_initial()
        except (TokenFileRefused, BadRequest) as error:
            if str(error) != self._said:
                self._log("acl.initial_management_failed", reason=str(error))
            self._said = str(error)
        except ClusterError:
            return  # looked at anew, by whoever leads then

    def _is_still(self, wanted: bool) -> bool:
        return self._is_wanted is wanted

    @property
    def _is_wanted(self) -> bool:
        acl = self._replica.state.acl
        return self._replica.leadership.is_ready and acl.key is not None and not acl.bootstrap_index
