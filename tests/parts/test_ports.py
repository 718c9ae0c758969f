"""Tests that run side by side get different ports, whatever the time between choosing one and listening on it."""

from tests.kit import ports
from tests.kit.ports import free_port_offset, free_ports, own_range


def test_workers_share_the_ports_without_overlap() -> None:
    shares = [
        own_range({"PYTEST_XDIST_WORKER": f"gw{number}", "PYTEST_XDIST_WORKER_COUNT": "3"}) for number in range(3)
    ]
    assert len({port for share in shares for port in share}) == sum(map(len, shares)) > 19_000
    assert len(own_range({})) == 20_000


def test_what_was_given_out_is_not_given_again() -> None:
    given = free_ports(200)
    for _ in range(20):
        offset = free_port_offset(5)
        given += [base + offset + k for base in (8300, 8400, 8500) for k in range(5)]
    assert len(set(given)) == len(given)
    assert set(given) <= set(ports.own_range())
