"""Log lines of requests that fail: what is told in full, and what is only counted."""

import asyncio

from cluster.http.context import API
from cluster.http.failures import Failures
from tests.kit.log import EventLog
from tests.kit.wait import until
from tests.parts.http.conftest import Running

CERTS = "/v1/connect/ca/certs"
PEER = "/v1/operator/raft/peer"


def lines_of(api: Running, event: str) -> list[dict[str, object]]:
    return [fields for name, fields in api.log.events if name == event]


async def test_requests_that_fail_are_few_lines_and_a_count_and_metrics_have_all(api: Running) -> None:
    one = b"GET /v1/status/leader HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    reader, writer = await api.connect()
    for _ in range(10):  # more than this at once, and reading is paused
        writer.write(one * 30)
        for _ in range(30):
            await asyncio.wait_for(reader.readuntil(b"names"), 10.0)
    samples = api.service.metrics.registry.get_sample_value
    counted = {"route": "/v1/status/leader", "status": "421"}
    assert samples("quorumca_http_requests_total", counted) == 300
    for _ in range(30):
        await api.send(b"nonsense\r\n\r\n")
    await api.put(f"{PEER}", {"ID": "n4", "Address": "127.0.0.1:8303", "RPC": "127.0.0.1:8403"})
    await until(lambda: lines_of(api, "http.more_requests"))
    api.server._runner.app[API].failures.end_second()
    failed = [fields for fields in lines_of(api, "http.request") if fields["status"] != 200]
    more = lines_of(api, "http.more_requests")
    assert 10 <= len(failed) <= 60
    assert {fields["source"] for fields in more} == {"127.0.0.1"}
    for status, count in ((421, 300), (400, 30)):
        left_out = sum(int(str(fields["count"])) for fields in more if fields["status"] == status)
        assert left_out + [fields["status"] for fields in failed].count(status) == count
    assert [fields["route"] for fields in lines_of(api, "http.request") if fields["status"] == 200] == [PEER]


async def test_changes_are_a_line_each_however_much_fails(api: Running) -> None:
    for number in range(30):
        await api.get(f"{CERTS}/zz")
        await api.put(PEER, {"ID": f"n{number}", "Address": "127.0.0.1:8303", "RPC": "127.0.0.1:8403"})
    assert [fields["status"] for fields in lines_of(api, "http.request")].count(200) == 30


async def test_many_addresses_that_fail_are_few_lines_too() -> None:
    log = EventLog()
    failures = Failures(log)
    for number in range(200):
        for _ in range(20):
            failures.say(421, f"10.0.0.{number}", method="GET")
    said = [fields["remote"] for _, fields in log.events]
    assert said == [f"10.0.0.{number}" for number in range(5) for _ in range(10)]
    log.events.clear()
    failures.end_second()
    assert len(log.events) == 17
    assert sum(int(str(fields["count"])) for _, fields in log.events) == 4000 - 50
    log.events.clear()
    failures.say(421, "10.0.0.1", method="GET")
    assert log.names() == ["http.request"]
    failures.end_second()
