"""Where this cluster itself listens: auth methods may name any key server but one of these ports, where what is asked
would come from a server.
"""

import asyncio
import contextlib
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from cluster.access.methods.addresses import IPAddress, OwnPorts
from cluster.access.methods.fetch import Resolve, system_resolve
from cluster.base.names import parse_host
from cluster.raft.replica import Replica

_RESOLVE_SECONDS: Final = 1.0


class OwnListeners:
    def __init__(self, replica: Replica, listens_at: Collection[str], resolve: Resolve = system_resolve) -> None:
        """`listens_at`: where this node does, host:port. The others are taken to use the same ports."""
        self._replica = replica
        self._listens_at = tuple(listens_at)
        self._resolve = resolve

    async def now(self) -> OwnPorts:
        """As the cluster is now. A server whose name leads nowhere cannot be asked for anything, either."""
        texts = [*self._listens_at]
        for member in self._replica.members.values():
            texts += (member.raft_address, member.rpc_address)
        places = [place for text in texts if (place := parse_host(text)) is not None]
        found = await asyncio.gather(*(self._addresses(host) for host in {host for host, _ in places}))
        addresses: frozenset[IPAddress] = frozenset().union(*found)
        return OwnPorts(frozenset(port for _, port in places if port), lambda: addresses)

    async def _addresses(self, host: str) -> frozenset[IPAddress]:
        try:
            return frozenset({ip_address(host)})
        except ValueError:
            pass
        texts: Collection[str] = ()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_RESOLVE_SECONDS):
                texts = await self._resolve(host, 0)
        return frozenset(ip_address(text.partition("%")[0]) for text in texts)
