"""What auth methods may not ask: this cluster itself, by whatever name and wherever its servers are at the moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from cluster.access.methods.addresses import why_not
from cluster.node.own_ports import OwnListeners
from cluster.raft.membership import Member


@dataclass
class Servers:
    members: dict[str, Member] = field(default_factory=dict)


async def resolve(host: str, _port: int) -> Sequence[str]:
    if host != "node-2.internal":
        raise OSError(host)
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
