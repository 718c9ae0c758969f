"""The load generator counts what it should, and nothing else."""

import asyncio
import json
import socket

from benchmarks.load import LoadPlan, generate, render_request, roots_plan, run_load, sign_plan
from tests.parts.benchmarks.fake_node import response, serving

_CSRS = ["csr-a", "csr-b", "csr-c"]
_LONG = 20.0


def _count_plan(*targets: str, clients: int = 1, count: int = 5, warmup_seconds: float = 0.0) -> LoadPlan:
    return sign_plan(targets, clients, _LONG, _CSRS, warmup_seconds=warmup_seconds, count=count)


async def test_count_ends_the_run_and_every_success_has_a_latency() -> None:
    async with serving() as node:
        result = await generate(_count_plan(node.address, count=5))
    assert (result.requests, result.failures) == (5, {})
    assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms < 1000 * _LONG
    assert result.rate == result.requests / result.seconds
    assert sum(node.bodies.values()) == 5
    assert node.connections == 1


async def test_all_bodies_are_sent_in_turn_by_the_documented_request() -> None:
    async with serving() as node:
        await generate(_count_plan(node.address, count=6))
    assert node.bodies == {json.dumps({"CSR": csr}).encode(): 2 for csr in _CSRS}
    assert node.request_lines == {b"PUT /v1/connect/ca/sign HTTP/1.1": 6}


async def test_client_that_is_a_service_of_its_own_sends_its_own_body_with_its_own_token() -> None:
    assert render_request("host:1", sign_plan(["host:1"], 1, 1.0, _CSRS), "{}", "secret") == (
        b"PUT /v1/connect/ca/sign HTTP/1.1\r\nHost: host:1\r\nX-Consul-Token: secret\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    async with serving() as node:
        plan = sign_plan(
            [node.address], 2, _LONG, _CSRS, count=8, warmup_seconds=0.0, is_own=True, tokens=["a", "b", "c"]
        )
        result = await generate(plan)
    assert result.failures == {}
    assert set(node.bodies) == {json.dumps({"CSR": csr}).encode() for csr in _CSRS[:2]}


async def test_clients_are_dealt_to_targets_in_turn() -> None:
    async with serving() as first, serving() as second:
        await generate(_count_plan(first.address, second.address, clients=6, count=60))
    assert (first.connections, second.connections) == (3, 3)


async def test_clients_beyond_the_number_of_bodies_start_somewhere_valid() -> None:
    async with serving() as node:
        result = await generate(_count_plan(node.address, clients=7, count=20))
    assert result.failures == {}
    assert node.connections == 7


async def test_requests_of_the_warm_up_do_not_count() -> None:
    async with serving() as node:
        plan = sign_plan([node.address], 1, 0.05, _CSRS, warmup_seconds=0.3)
        result = await generate(plan)
    assert 0 < result.requests < 0.7 * sum(node.bodies.values())
    assert 0.05 <= result.seconds < 0.3
    assert result.requests < result.successes <= sum(node.bodies.values())


async def test_refusals_and_wrong_bodies_are_failures_by_kind() -> None:
    answers = response("429 Too Many Requests", b"slow"), response(body=b'{"Roots":[]}'), response()
    async with serving(*answers) as node:
        result = await generate(_count_plan(node.address, count=3))
    assert (result.requests, result.failures) == (3, {"429": 1, "unexpected body": 1})


async def test_closed_connection_is_a_failure_and_the_client_dials_again() -> None:
    async with serving(response(), b"", response()) as node:
        result = await generate(_count_plan(node.address, count=4))
    assert (result.requests, result.failures) == (4, {"connection lost": 1})
    assert node.connections == 2


async def test_response_without_length_is_refused_instead_of_waited_for() -> None:
    async with serving(response(length_name="X-Length"), response()) as node:
        result = await generate(_count_plan(node.address, count=2))
    assert (result.requests, result.failures["no content-length"]) == (2, 1)


async def test_name_of_the_length_header_may_be_in_lower_case() -> None:
    async with serving(response(length_name="content-length")) as node:
        result = await generate(_count_plan(node.address, count=2))
    assert result.failures == {}


async def test_absent_target_is_a_failure_and_the_run_still_ends() -> None:
    with socket.socket() as bound:  # bound, and never listening: refuses
        bound.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{bound.getsockname()[1]}"
        result = await generate(sign_plan([target], 2, 0.1, _CSRS, warmup_seconds=0.0))
    assert result.requests == 0
    assert set(result.failures) == {"connection refused"}


async def test_thinking_clients_pause_between_requests() -> None:
    async with serving() as node:
        plan = sign_plan([node.address], 1, _LONG, _CSRS, warmup_seconds=0.0, count=3, think_seconds=0.05)
        result = await generate(plan)
    assert result.seconds >= 2 * 0.05
    assert result.max_ms < 50


def test_get_has_no_body_and_no_length() -> None:
    plan = roots_plan(["127.0.0.1:1"], 1, 1.0)
    assert render_request("127.0.0.1:1", plan, "") == b"GET /v1/connect/ca/roots HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"


async def test_generator_as_a_process_returns_the_same_kind_of_result() -> None:
    async with serving() as node:
        result = await asyncio.to_thread(run_load, _count_plan(node.address, clients=2, count=50))
    assert (result.requests, result.failures) == (50, {})
