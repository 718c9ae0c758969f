"""What auth methods may not ask: this cluster itself, by whatever name and wherever its servers are at the moment."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from cluster.access.methods.addresses import why_not
from cluster.access.methods.fetch import HttpsFetch
from cluster.access.methods.fetching import FetchFailed, Request
from cluster.node import own_ports
from cluster.node.own_ports import OwnListeners
from cluster.raft.membership import Member


@dataclass
class Servers:
    members: dict[str, Member] = field(default_factory=dict)


async def resolve(host: str, _port: int) -> Sequence[str]:
    if host != "node-2.internal":
        raise socket.gaierror(socket.EAI_NONAME, host)
    return ["10.0.0.2", "fe80::2%eth0"]


@pytest.fixture
def listeners() -> OwnListeners:
    servers: Any = Servers(
        {
            "node-1": Member("node-1", "10.0.0.1:8300", "10.0.0.1:8400"),
            "node-2": Member("node-2", "node-2.internal:8301", "node-2.internal:8401"),
            "gone": Member("gone", "gone.internal:8302", "[2001:db8::3]:8402"),
        }
    )
    return OwnListeners(servers, ("0.0.0.0:8500", "10.0.0.1:8400"), resolve)


@pytest.mark.parametrize(
    ("address", "port", "is_own"),
    [
        ("10.0.0.1", 8300, True),
        ("10.0.0.1", 8500, True),
        ("10.0.0.2", 8400, True),
        ("::ffff:10.0.0.2", 8401, True),
        ("2001:db8::3", 8302, True),
        ("127.0.0.1", 8500, True),
        ("127.0.0.9", 8402, True),
        ("::1", 8500, True),
        ("10.0.0.1", 443, False),
        ("10.0.0.9", 8500, False),
        ("127.0.0.1", 8200, False),
    ],
)
async def test_ports_of_the_cluster_are_known_at_the_addresses_of_its_servers(
    listeners: OwnListeners, address: str, port: int, is_own: bool
) -> None:
    own = await listeners.now()
    assert bool(why_not(str(ip_address(address)), port, own)) is is_own


class Resolver:
    """Does what it is told to at the moment: give these addresses, raise this, or hang."""

    def __init__(self) -> None:
        self.does: list[str] | OSError | None = None

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        if self.does is None:
            await asyncio.sleep(60)
        if isinstance(self.does, OSError):
            raise self.does
        return self.does or []


TROUBLES = [
    pytest.param(None, id="hangs"),
    pytest.param(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), id="try again"),
    pytest.param(socket.gaierror(socket.EAI_FAIL, "no"), id="fails"),
    pytest.param(OSError(None, "busy: 32 other names are being looked up"), id="busy"),
]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_nothing_is_no_port_of_a_server_whose_name_cannot_be_looked_up(
    monkeypatch: pytest.MonkeyPatch, trouble: OSError | None
) -> None:
    monkeypatch.setattr(own_ports, "_RESOLVE_SECONDS", 0.1)
    servers: Any = Servers({"node-2": Member("node-2", "node-2.internal:8301", "node-2.internal:8401")})
    resolver = Resolver()
    listeners = OwnListeners(servers, (), resolver)
    address = ip_address("10.0.0.2")
    for before in (False, True, True):
        resolver.does = trouble
        if before:  # it is where it was
            own = await listeners.now()
            assert (own(address, 8301), own(ip_address("10.0.0.9"), 8301)) == (True, False)
        else:
            with pytest.raises(OSError, match=r"the name of a server, node-2\.internal, cannot be looked up"):
                await listeners.now()
            resolver.does = ["10.0.0.2"]
            assert (await listeners.now())(address, 8301)
    # A name that leads nowhere any more is not remembered, and no server of now is one of before.
    resolver.does = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert not (await listeners.now())(address, 8301)
    resolver.does = trouble
    with pytest.raises(OSError, match="cannot be looked up"):
        await listeners.now()


async def test_no_name_of_a_server_is_looked_up_by_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> object:
        raise AssertionError("the event loop was asked")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    servers: Any = Servers({"node-2": Member("node-2", "localhost:8301", "localhost:8401")})
    assert (await OwnListeners(servers, ()).now())(ip_address("127.0.0.1"), 8301)


async def test_a_fetch_says_that_a_servers_name_cannot_be_looked_up() -> None:
    servers: Any = Servers({"node-2": Member("node-2", "node-2.internal:8301", "node-2.internal:8401")})
    resolver = Resolver()
    resolver.does = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    fetch = HttpsFetch(own=OwnListeners(servers, (), resolver).now)
    with pytest.raises(FetchFailed, match=r"the name of a server, node-2\.internal, cannot be looked up"):
        await fetch(Request("https://127.0.0.1:1/"))
