"""Where this cluster itself listens: auth methods may name any key server but one of these ports, where what is asked
would come from a server.
"""

import asyncio
import socket
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from cluster.access.methods.addresses import IPAddress, OwnPorts
from cluster.access.methods.resolving import Names, Resolve
from cluster.base.names import parse_host
from cluster.raft.replica import Replica

_RESOLVE_SECONDS: Final = 1.0
#: Apart from those that methods have, or their hosts could keep the servers' own from being looked up.
_LOOKUPS: Final = 32
#: There is no such name, or it has no address.
_NOWHERE: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class OwnListeners:
    def __init__(self, replica: Replica, listens_at: Collection[str], resolve: Resolve | None = None) -> None:
        """`listens_at`: where this node does, host:port. The others are taken to use the same ports."""
        self._replica = replica
        self._listens_at = tuple(listens_at)
        self._resolve = resolve or Names(places=_LOOKUPS)
        self._last: dict[str, frozenset[IPAddress]] = {}

    async def now(self) -> OwnPorts:
        """As the cluster is now. A server whose name leads nowhere cannot be asked for anything, either; one whose name
        cannot be looked up is where it was, and if that is not known nothing is said to be no port of it.

        Raises: OSError.
        """
        texts = [*self._listens_at]
        for member in self._replica.members.values():
            texts += (member.raft_address, member.rpc_address)
        places = [place for text in texts if (place := parse_host(text)) is not None]
        hosts = [*{host for host, _ in places}]
        found = await asyncio.gather(*map(self._addresses, hosts))
        self._last = {host: known for host, known in zip(hosts, found, strict=True) if known}
        addresses: frozenset[IPAddress] = frozenset().union(*found)
        return OwnPorts(frozenset(port for _, port in places if port), lambda: addresses)

    async def _addresses(self, host: str) -> frozenset[IPAddress]:
        try:
            return frozenset({ip_address(host)})
        except ValueError:
            pass
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                texts = await self._resolve(host, 0)
        except OSError as error:  # TimeoutError is one
            if isinstance(error, socket.gaierror) and error.errno in _NOWHERE:
                return frozenset()
            if (last := self._last.get(host)) is not None:
                return last
            raise OSError(
                None, f"the name of a server, {host}, cannot be looked up: so it is not known where no port of it is"
            ) from error
        return frozenset(ip_address(text.partition("%")[0]) for text in texts)
