"""Who may not read the whole record: what is read for them are their own rows, and nothing tells of the others."""

from typing import Any

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from cluster.api.access import Caller
from cluster.api.reads import ReadLevel
from fsm.acl import ANONYMOUS
from fsm.leaves import LeafKind
from fsm.ledger import LedgerQuery, LedgerRow
from tests.kit.acl_samples import uuid
from tests.kit.callers import MANAGER
from tests.kit.fake_service import TRUST_DOMAIN, ledger_row
from tests.parts.http.conftest import Running

CERTS = "/v1/connect/ca/certs"
TOKEN = {"X-Consul-Token": MANAGER.secret_id}
WEB = 'service "web" { policy = "write" }'
WE = 'service_prefix "we" { policy = "write" }'
EMPTY = (200, '{"Certs":[],"Next":null}')


def row(number: int, name: str, **changes: Any) -> LedgerRow:
    uri = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{name}"
    return ledger_row(number, **{"kind": LeafKind.SERVICE, "name": name, "spiffe_id": uri, **changes})


class Rows:
    """Counts what is read from the record."""

    def __init__(self, api: Running, *, others: int) -> None:
        """Three rows of "web", each after as many of others."""
        self.api = api
        self.read = 0
        numbers = iter(range(1, 10**9))
        api.service.certs = [
            row(next(numbers), name) for _ in range(3) for name in (*(f"other-{n % 300}" for n in range(others)), "web")
        ]
        api.service.callers[""] = Caller("", ANONYMOUS, Authorizer((), allows_by_default=False), is_anonymous=True)
        search = api.service.search_certs

        async def counted(query: LedgerQuery, level: ReadLevel) -> list[LedgerRow]:
            found = await search(query, level)
            self.read += len(found)
            return found

        api.service.search_certs = counted  # type: ignore[method-assign]

    def rules(self, text: str) -> None:
        rules = Authorizer(parse_rules(text), allows_by_default=False)
        self.api.service.callers[MANAGER.secret_id] = Caller(MANAGER.secret_id, uuid(1), rules)

    async def pages(self, query: str) -> list[list[str]]:
        pages: list[list[str]] = []
        following: str | None = "0"
        while following is not None:
            answer = (await self.api.get(f"{CERTS}?{query}&after={following}", headers=TOKEN)).json()
            pages.append([cert["Service"] for cert in answer["Certs"]])
            following = answer["Next"]
        return pages


@pytest.mark.parametrize(
    ("rules", "query"),
    [
        ("", ""),
        ('service_prefix "" { policy = "read" } node_prefix "" { policy = "write" } mesh = "write"', ""),
        ("", "service=other-1"),
        (WEB, "service=other-1"),
        (WEB, "service=web&spiffe_id={uri}other-1"),
        (WEB, "spiffe_id={uri}other-1"),
        (WEB, "spiffe_id={uri}web&service=other-1"),
        (WEB, "spiffe_id=web"),
        (WEB, "spiffe_id=spiffe://{domain}/agent/client/dc/dc1/id/web"),
        (WE, "spiffe_id={uri}other-1"),
        *((WEB, f"kind={kind}") for kind in ("agent", "mesh-gateway", "server", "intermediate")),
        (WE, "kind=server"),
    ],
)
async def test_nothing_is_read_for_whoever_has_nothing_there(api: Running, rules: str, query: str) -> None:
    record = Rows(api, others=50)
    record.rules(rules)
    uri = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/"
    reply = await api.get(f"{CERTS}?{query.format(uri=uri, domain=TRUST_DOMAIN)}", headers=TOKEN)
    assert (reply.status, reply.text) == EMPTY
    assert api.service.calls == []


async def test_nothing_is_read_without_a_token(api: Running) -> None:
    Rows(api, others=50)
    reply = await api.get(CERTS)
    assert (reply.status, reply.text) == EMPTY
    reply = await api.get(f"{CERTS}/01")
    assert (reply.status, "lacks permission 'operator:read'" in reply.text) == (403, True)
    assert api.service.calls == []


@pytest.mark.parametrize("others", [0, 200, 2000])
@pytest.mark.parametrize("rules", [WEB, 'service_prefix "web" { policy = "write" }'])
@pytest.mark.parametrize("query", ["", "service=web", "spiffe_id={uri}web", "kind=service"])
async def test_as_many_rows_are_read_however_many_others_there_are(
    api: Running, others: int, rules: str, query: str
) -> None:
    record = Rows(api, others=others)
    record.rules(rules)
    query = query.format(uri=f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/")
    assert await record.pages(f"limit=2&{query}") == [["web", "web"], ["web"]]
    assert record.read == 3 + 1  # of two pages: the first row of the second one is read with the first, too


async def test_filters_are_held_against_own_rows(api: Running) -> None:
    record = Rows(api, others=20)
    record.rules(WEB)
    ends = [cert.record.not_after for cert in api.service.certs if cert.record.name == "web"]
    assert await record.pages(f"limit=1&expires_before={ends[1] + 1}") == [["web"], ["web"]]
    assert await record.pages("limit=1&issuer=00") == [[]]


async def test_one_request_reads_no_more_than_four_pages(api: Running) -> None:
    """Of whoever may write so many services that there is no going by their names."""
    record = Rows(api, others=3000)
    record.rules('service_prefix "" { policy = "write" } service_prefix "other" { policy = "deny" }')
    reply = await api.get(CERTS, headers=TOKEN)
    assert (record.read, len(reply.json()["Certs"])) == (4000, 1)
    assert await record.pages("limit=2") == [["web"], ["web"], ["web"]]


async def test_own_rows_that_pass_no_filter_do_not_make_one_request_long(api: Running) -> None:
    record = Rows(api, others=0)
    record.rules(WEB)
    api.service.certs = [row(number, "web") for number in range(1, 5500)]
    reply = await api.get(f"{CERTS}?issuer=00", headers=TOKEN)
    assert (record.read, reply.json()) == (4000, {"Certs": [], "Next": "4000"})
    assert await record.pages("issuer=00") == [[], []]
