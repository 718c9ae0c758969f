"""The signing pipeline on a leader whose CA is up: batches, records before answers, repetitions, limits."""

import asyncio

import pytest

from cluster.base.errors import AnswerLost, CommitUnknown, InternalError, NotLeader, Overloaded
from cluster.signing.pipeline import MAX_BATCH, SignedLeaf, SigningContext, SigningPipeline
from fsm.commands import Rejected
from fsm.leaves import RecordLeaves
from fsm.ledger import LedgerRow
from providers.errors import CSRRejected, ProviderUnavailable
from providers.grants import EVERYTHING
from providers.pki.x509 import load_cert
from tests.kit.callers import anybody
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import Fate, Node, put, update
from tests.kit.wait import until


def context_of(node: Node) -> SigningContext:
    assert node.authority._signing is not None
    return node.authority._signing.context


async def sign(node: Node, number: int, csr_pem: str | None = None) -> SignedLeaf:
    csr_pem = csr_pem or service_csr(node.cluster.state.trust_domain)
    return await node.parts.pipeline.sign(context_of(node), csr_pem, serial(number), "token:web", anybody)


def records(node: Node) -> list[RecordLeaves]:
    return [command for command in node.cluster.committed if isinstance(command, RecordLeaves)]


async def find(node: Node, number: int) -> LedgerRow:
    row = await node.ledger.call(lambda reader: reader.find(serial(number)))
    assert row is not None
    return row


async def test_certificate_is_the_one_on_record(node: Node) -> None:
    signed = await sign(node, 1)
    row = await find(node, 1)
    cert = load_cert(signed.leaf.cert_pem)
    assert cert.serial_number == signed.leaf.serial == int.from_bytes(serial(1), "big")
    assert row.index == signed.index == node.cluster.state.index
    assert (row.record.name, row.record.requested_by, row.record.request_id) == ("web", "token:web", b"")
    assert row.record.spiffe_id == signed.leaf.spiffe_id
    assert row.record.not_after == signed.leaf.not_after
    assert row.issuer_key_id == signed.leaf.issuer_key_id


async def test_nothing_leaves_before_its_record_is_committed(node: Node) -> None:
    node.cluster.held.add(RecordLeaves)
    request = asyncio.ensure_future(sign(node, 1))
    await until(lambda: isinstance(node.cluster.proposed[-1], RecordLeaves))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not request.done()
    node.cluster.gate.set()
    assert (await request).index == node.cluster.state.index


async def test_next_batch_is_signed_while_the_one_before_is_committed(node: Node) -> None:
    node.cluster.held.add(RecordLeaves)
    first = asyncio.ensure_future(sign(node, 1))
    await until(lambda: isinstance(node.cluster.proposed[-1], RecordLeaves))
    second = asyncio.ensure_future(sign(node, 2))
    await until(lambda: len([c for c in node.cluster.proposed if isinstance(c, RecordLeaves)]) == 2)
    assert not first.done()
    node.cluster.gate.set()
    await asyncio.gather(first, second)


async def test_requests_that_wait_go_together_and_each_gets_its_own(node: Node) -> None:
    node.worker.held.add("sign_leaves")
    csrs = {number: service_csr(node.cluster.state.trust_domain, f"s{number}") for number in range(80)}
    requests = [asyncio.ensure_future(sign(node, number, csr)) for number, csr in csrs.items()]
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    node.worker.gate.set()
    signed = await asyncio.gather(*requests)
    assert [answer.leaf.name for answer in signed] == [f"s{number}" for number in csrs]
    assert len({answer.index for answer in signed}) == len(csrs)
    sizes = [len(command.records) for command in records(node)]
    assert sum(sizes) == len(csrs)
    # One batch for each that could begin at once, and the rest as large as may be.
    assert sizes == [1, 1, MAX_BATCH, MAX_BATCH, 80 - 2 - 2 * MAX_BATCH]
    for number, answer in enumerate(signed):
        assert (await find(node, number)).index == answer.index


async def test_bad_csr_spoils_no_other_of_its_batch(node: Node) -> None:
    node.worker.held.add("sign_leaves")
    fillers = [asyncio.ensure_future(sign(node, number)) for number in (1, 2)]
    bad = asyncio.ensure_future(sign(node, 3, "no CSR"))
    good = asyncio.ensure_future(sign(node, 4))
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    node.worker.gate.set()
    with pytest.raises(CSRRejected):
        await bad
    await asyncio.gather(good, *fillers)
    assert [len(command.records) for command in records(node)] == [1, 1, 1]


async def test_batches_never_mix_what_is_signed_with(node: Node) -> None:
    node.worker.held.add("sign_leaves")
    fillers = [asyncio.ensure_future(sign(node, number)) for number in (1, 2)]
    old = context_of(node)
    new = SigningContext(old.provider_key, old.provider, old.trust_domain, old.datacenter)
    csr = service_csr(old.trust_domain)
    others = [
        asyncio.ensure_future(node.parts.pipeline.sign(context, csr, serial(number), "", anybody))
        for number, context in ((3, old), (4, new), (5, new))
    ]
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    node.worker.gate.set()
    await asyncio.gather(*fillers, *others)
    assert [len(command.records) for command in records(node)] == [1, 1, 1, 2]


async def test_full_queue_refuses_at_once_and_recovers(node: Node) -> None:
    pipeline = SigningPipeline(
        node.pool, node.replica.real, lambda _: _nothing(), node.clock, node.log, node.metrics, queue_length=2
    )
    node.worker.held.add("sign_leaves")
    csr = service_csr(node.cluster.state.trust_domain)
    requests = [asyncio.ensure_future(pipeline.sign(context_of(node), csr, serial(n), "", anybody)) for n in (1, 2)]
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    with pytest.raises(Overloaded):
        await pipeline.sign(context_of(node), csr, serial(3), "", anybody)
    node.worker.gate.set()
    await asyncio.gather(*requests)
    assert (await pipeline.sign(context_of(node), csr, serial(3), "", anybody)).leaf.name == "web"


async def _nothing() -> None:
    return None


async def test_worker_that_fails_fails_the_batch_and_records_nothing(node: Node) -> None:
    node.worker.failures["sign_leaves"] = ProviderUnavailable("the signing process ended")
    with pytest.raises(ProviderUnavailable):
        await sign(node, 1)
    assert records(node) == []
    node.worker.failures.clear()
    await sign(node, 1)


async def test_lost_leadership_is_told_apart_from_an_unknown_outcome(node: Node) -> None:
    csr, context = service_csr(node.cluster.state.trust_domain), context_of(node)
    node.cluster.on_propose = lambda _: Fate.UNKNOWN
    with pytest.raises(CommitUnknown):
        await sign(node, 1, csr)
    node.worker.held.add("sign_leaves")
    request = asyncio.ensure_future(node.parts.pipeline.sign(context, csr, serial(2), "", anybody))
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    node.replica.leadership = node.cluster.replicas["b"].leadership
    node.worker.gate.set()
    with pytest.raises(NotLeader):
        await request


# -- the same request again


async def test_repeated_request_is_answered_with_the_certificate_on_record(node: Node) -> None:
    csr = service_csr(node.cluster.state.trust_domain)
    first = await sign(node, 1, csr)
    node.clock.advance(90)
    again = await sign(node, 1, csr)
    assert again.index == first.index
    assert node.cluster.machine.ledger_summary.count == 1
    one, other = load_cert(first.leaf.cert_pem), load_cert(again.leaf.cert_pem)
    assert one.tbs_certificate_bytes == other.tbs_certificate_bytes


async def test_request_sent_twice_at_the_same_time_gets_one_certificate(node: Node) -> None:
    csr = service_csr(node.cluster.state.trust_domain)
    node.worker.held.add("sign_leaves")
    requests = [asyncio.ensure_future(sign(node, number, csr)) for number in (1, 1, 1, 1, 2)]
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    node.worker.gate.set()
    answers = await asyncio.gather(*requests)
    assert len({answer.index for answer in answers[:4]}) == 1
    assert answers[4].index != answers[0].index
    assert node.cluster.machine.ledger_summary.count == 2


async def test_repetition_with_another_csr_is_not_answered(node: Node) -> None:
    await sign(node, 1)
    with pytest.raises(AnswerLost, match=f"recorded with serial {serial(1).hex()}"):
        await sign(node, 1)
    assert node.cluster.machine.ledger_summary.count == 1


async def test_repetition_under_another_configuration_is_not_answered(node: Node) -> None:
    csr = service_csr(node.cluster.state.trust_domain)
    await sign(node, 1, csr)
    await put(node, update({"LeafCertTTL": "24h"}))
    with pytest.raises(AnswerLost):
        await sign(node, 1, csr)


async def test_repetition_below_another_issuer_is_not_answered(node: Node) -> None:
    """A second certificate with this serial, of another issuer, would be on no record."""
    csr = service_csr(node.cluster.state.trust_domain)
    before = context_of(node)
    await sign(node, 1, csr)
    await put(node, update({"PrivateKeyType": "ec", "PrivateKeyBits": 384}))
    await until(lambda: context_of(node).provider_key != before.provider_key)
    with pytest.raises(AnswerLost):
        await sign(node, 1, csr)
    assert node.cluster.machine.ledger_summary.count == 1


async def test_repetition_that_cannot_be_signed_again_is_lost_not_failed(node: Node) -> None:
    """It is on record: an error that means "not done" would be wrong."""
    csr = service_csr(node.cluster.state.trust_domain)
    await sign(node, 1, csr)
    node.cluster.held.add(RecordLeaves)
    request = asyncio.ensure_future(sign(node, 1, csr))
    await until(lambda: len([c for c in node.cluster.proposed if isinstance(c, RecordLeaves)]) == 2)
    node.worker.failures["sign_leaves"] = ProviderUnavailable("the signing process ended")
    node.cluster.gate.set()
    with pytest.raises(AnswerLost):
        await request


async def test_repetition_that_another_server_tells_of_is_the_same_request(node: Node) -> None:
    """The next leader may be the server that was asked, and then nobody tells it who asked."""
    csr, pipeline = service_csr(node.cluster.state.trust_domain), node.parts.pipeline
    first = await pipeline.sign(context_of(node), csr, serial(1), "b: me", anybody)
    node.clock.advance(90)
    again = await pipeline.sign(context_of(node), csr, serial(1), "me", anybody)
    assert (again.index, again.leaf.serial) == (first.index, first.leaf.serial)
    one, other = load_cert(first.leaf.cert_pem), load_cert(again.leaf.cert_pem)
    assert one.tbs_certificate_bytes == other.tbs_certificate_bytes
    assert node.cluster.machine.ledger_summary.count == 1


async def test_every_signature_is_in_the_log_before_and_behind(node: Node) -> None:
    await sign(node, 1)
    audit = [(event, fields) for event, fields in node.log.events if fields.get("serial") == serial(1).hex()]
    assert [event for event, _ in audit] == ["ca.signing", "ca.signed"]
    assert audit[1][1]["by"] == "token:web"
    assert audit[1][1]["profile"] == "service"


async def test_rejected_record_is_an_error_of_ours(node: Node) -> None:
    context, csr = context_of(node), service_csr(node.cluster.state.trust_domain)

    class Refusing:
        async def propose(self, command: object, *, timeout: float) -> object:
            return Rejected("invariant", "no")

    pipeline = SigningPipeline(
        node.pool,
        Refusing(),  # type: ignore[arg-type]
        lambda _: _nothing(),
        node.clock,
        node.log,
        node.metrics,
        10,
    )
    with pytest.raises(InternalError, match="could not be recorded: no"):
        await pipeline.sign(context, csr, serial(1), "", anybody)


async def test_serial_that_a_backend_gives_twice_is_named(node: Node) -> None:
    """That one is on record, and not the one that was asked for."""
    context, csr = context_of(node), service_csr(node.cluster.state.trust_domain)
    pool = node.pool
    [given] = await pool.sign_leaves(
        context.provider_key,
        context.trust_domain,
        context.datacenter,
        node.parts.unix_now,
        [(csr, serial(7), EVERYTHING.to_bytes())],
    )

    class Twice:
        size = 1

        async def sign_leaves(self, *_: object) -> list[object]:
            return [given]

    pipeline = SigningPipeline(
        Twice(),  # type: ignore[arg-type]
        node.replica.real,
        lambda _: _nothing(),
        node.clock,
        node.log,
        node.metrics,
        10,
    )
    await pipeline.sign(context, csr, serial(1), "", anybody)
    with pytest.raises(CommitUnknown) as lost:
        await pipeline.sign(context, csr, serial(2), "", anybody)
    assert f"answered with serial {serial(7).hex()}, which is on record for another request" in str(lost.value)
    assert serial(2).hex() not in str(lost.value)


async def test_one_certificate_that_cannot_be_recorded_is_no_reason_to_refuse_those_beside_it(node: Node) -> None:
    requester = "x" * 300_000
    csr_pem = service_csr(node.cluster.state.trust_domain)
    many = node.parts.pipeline
    answers = await asyncio.gather(
        *(many.sign(context_of(node), csr_pem, serial(number), "token:web", anybody) for number in range(1, 4)),
        many.sign(context_of(node), csr_pem, serial(4), requester, anybody),
        *(many.sign(context_of(node), csr_pem, serial(number), "token:web", anybody) for number in range(5, 8)),
        return_exceptions=True,
    )
    refused = answers.pop(3)
    assert isinstance(refused, InternalError)
    assert "requested_by has 300000 characters: must have from 0 to 256" in str(refused)
    assert all(isinstance(answer, SignedLeaf) for answer in answers)
    assert len({(await find(node, number)).index for number in (1, 2, 3, 5, 6, 7)}) == 6
