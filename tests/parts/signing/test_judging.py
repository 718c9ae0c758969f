"""Who asks for a signature is judged when its turn has come, and again whenever it comes again: not once, before the
queue.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from cluster.api.access import Caller
from cluster.base.errors import AnswerLost, PermissionDenied, TokenUnknown
from cluster.signing.pipeline import SignedLeaf, SigningContext
from fsm.leaves import RecordLeaves
from tests.kit.acl_samples import uuid
from tests.kit.callers import anybody
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import Node
from tests.kit.wait import until

ACCESSOR: Final = uuid(7)
WEB: Final = 'service "web" { policy = "write" }'


class Somebody:
    """With these rules, now; None: with a token that there is not any more."""

    def __init__(self, rules: str | None = WEB) -> None:
        self.rules = rules
        self.judged = 0

    def __call__(self) -> Caller:
        self.judged += 1
        if self.rules is None:
            raise TokenUnknown("ACL not found")
        return Caller("s", ACCESSOR, Authorizer(parse_rules(self.rules), allows_by_default=False))


class Fading(Somebody):
    """Has what it needs so many times, and then these rules."""

    def __init__(self, looks: int, rules: str | None) -> None:
        super().__init__()
        self._looks = looks
        self._then = rules

    def __call__(self) -> Caller:
        if self.judged == self._looks:
            self.rules = self._then
        return super().__call__()


def context_of(node: Node) -> SigningContext:
    assert node.authority._signing is not None
    return node.authority._signing.context


async def sign(node: Node, number: int, judge: Callable[[], Caller], csr_pem: str | None = None) -> SignedLeaf:
    csr_pem = csr_pem or service_csr(node.cluster.state.trust_domain)
    return await node.parts.pipeline.sign(context_of(node), csr_pem, serial(number), "t", judge)


def signings(node: Node) -> Sequence[str]:
    """The serials of what a worker was given to sign."""
    return [fields["serial"] for event, fields in node.log.events if event == "ca.signing" and "serial" in fields]


def recorded(node: Node) -> list[bytes]:
    commands = [command for command in node.cluster.committed if isinstance(command, RecordLeaves)]
    return [record.serial for command in commands for record in command.records]


@pytest.mark.parametrize(
    ("rules", "error", "text"),
    [
        (None, TokenUnknown, "ACL not found"),
        ('service "web" { policy = "read" }', PermissionDenied, f"'{ACCESSOR}' lacks permission 'service:write' on"),
        ('service "api" { policy = "write" }', PermissionDenied, f"'{ACCESSOR}' lacks permission 'service:write' on"),
    ],
)
async def test_what_was_taken_away_while_it_waited_counts(
    node: Node, rules: str | None, error: type[PermissionDenied], text: str
) -> None:
    node.worker.held.add("sign_leaves")
    before = [asyncio.ensure_future(sign(node, number, anybody)) for number in (1, 2)]
    somebody = Somebody()
    waiting = asyncio.ensure_future(sign(node, 3, somebody))
    beside = asyncio.ensure_future(sign(node, 4, anybody))
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    somebody.rules = rules
    node.worker.gate.set()
    with pytest.raises(error) as refused:
        await waiting
    assert text in str(refused.value)
    await asyncio.gather(*before, beside)
    assert recorded(node) == [serial(1), serial(2), serial(4)]
    if rules is None:
        assert serial(3).hex() not in signings(node)


async def test_what_was_given_while_it_waited_counts_too(node: Node) -> None:
    node.worker.held.add("sign_leaves")
    before = [asyncio.ensure_future(sign(node, number, anybody)) for number in (1, 2)]
    somebody = Somebody('service "api" { policy = "write" }')
    waiting = asyncio.ensure_future(sign(node, 3, somebody))
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    somebody.rules = WEB
    node.worker.gate.set()
    assert (await waiting).leaf.name == "web"
    await asyncio.gather(*before)


async def test_refusal_takes_none_of_its_batch_along(node: Node) -> None:
    node.worker.held.add("sign_leaves")
    before = [asyncio.ensure_future(sign(node, number, anybody)) for number in (1, 2)]
    callers = [Somebody(WEB if number % 3 else None if number % 2 else "") for number in range(3, 23)]
    waiting = [asyncio.ensure_future(sign(node, number, caller)) for number, caller in enumerate(callers, 3)]
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    node.worker.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    for number, outcome in enumerate(found, 3):
        assert isinstance(outcome, SignedLeaf if number % 3 else PermissionDenied), number
        assert isinstance(outcome, TokenUnknown) is (number % 3 == 0 and number % 2 == 1), number
    await asyncio.gather(*before)
    assert len(recorded(node)) == 2 + sum(caller.rules == WEB for caller in callers)


async def test_repetition_is_judged_anew(node: Node) -> None:
    """What is on record for a request is not made once more for whoever may not have it any more."""
    csr_pem = service_csr(node.cluster.state.trust_domain)
    somebody = Somebody()
    first = await sign(node, 1, somebody, csr_pem)
    somebody.judged = 0
    again = await sign(node, 1, somebody, csr_pem)
    assert again.leaf.serial == first.leaf.serial
    for rules, error in ((None, TokenUnknown), ('service "web" { policy = "deny" }', PermissionDenied)):
        # Each time that it is looked at but the first: the last one is when it is seen that the request is on record.
        for looks in range(somebody.judged):
            with pytest.raises((error, AnswerLost)):
                await sign(node, 1, Fading(looks, rules), csr_pem)
    assert node.cluster.machine.ledger_summary.count == 1
