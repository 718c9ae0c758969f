"""Every endpoint of the CA and the cluster: what it answers, in which form."""

import json
from dataclasses import replace

import pytest

from cluster.api.leaves import LocalLeaf
from cluster.api.reads import ReadLevel
from cluster.base.errors import (
    BadRequest,
    CommitUnknown,
    InternalError,
    NoLeader,
    NotReady,
    Overloaded,
    RateLimitReached,
    Refused,
)
from fsm.leaves import LeafKind
from fsm.ledger import PART_BYTES, LedgerQuery
from providers.errors import CSRRejected, ProviderError, ProviderUnavailable, RateLimited
from tests.kit.acl_samples import uuid
from tests.kit.fake_service import CSR, ISSUER, NOW, TRUST_DOMAIN, intermediate, ledger_row, root
from tests.parts.http.conftest import Running, Start

ROOTS = "/v1/connect/ca/roots"
CONFIGURATION = "/v1/connect/ca/configuration"
SIGN = "/v1/connect/ca/sign"
CERTS = "/v1/connect/ca/certs"
LEAF = "/v1/agent/connect/ca/leaf"
AUTHORIZE = "/v1/agent/connect/authorize"
CLIENT = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/client"


# -- roots


async def test_roots_are_consuls_object_in_its_field_order(api: Running) -> None:
    reply = await api.get(ROOTS)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.text == (
        '{"ActiveRootID":"aa:r1","TrustDomain":"11111111-2222-3333-4444-555555555555.consul","Roots":[{'
        '"ID":"aa:r1","Name":"Consul CA Primary Cert","SerialNumber":18446744073709551615,"SigningKeyID":"r1-key",'
        '"ExternalTrustDomain":"11111111-2222-3333-4444-555555555555","NotBefore":"2027-01-15T08:00:00Z",'
        '"NotAfter":"2027-01-16T08:00:00Z","RootCert":"-----r1-----\\n","IntermediateCerts":null,"Active":true,'
        '"PrivateKeyType":"ec","PrivateKeyBits":256,"CreateIndex":5,"ModifyIndex":5}]}'
    )


async def test_query_headers_are_all_there(api: Running) -> None:
    reply = await api.get(ROOTS)
    assert {name: value for name, value in reply.headers.items() if name.startswith("X-")} == {
        "X-Consul-Default-ACL-Policy": "allow",
        "X-Consul-Effective-Consistency": "leader",
        "X-Consul-Index": "5",
        "X-Consul-KnownLeader": "true",
        "X-Consul-LastContact": "0",
        "X-Consul-Query-Backend": "blocking-query",
        "X-Content-Type-Options": "nosniff",
    }
    assert reply.headers["Server"] == "quorumca"


async def test_roots_without_any_are_an_empty_list_and_the_index_is_never_0(api: Running) -> None:
    config = api.service.state.config
    assert config is not None
    api.service.state = replace(api.service.state, roots=(), roots_index=0, config=replace(config, modify_index=0))
    reply = await api.get(ROOTS)
    assert (reply.json()["Roots"], reply.json()["ActiveRootID"]) == ([], "")
    assert reply.headers["X-Consul-Index"] == "1"


async def test_a_change_of_configuration_moves_the_index_of_the_roots(api: Running) -> None:
    before = api.service.state.index
    assert (await api.put(CONFIGURATION, {"Provider": "consul"})).status == 200
    assert (await api.get(ROOTS)).headers["X-Consul-Index"] == str(before + 1)


async def test_roots_as_pem_list_every_root_and_its_intermediates(api: Running) -> None:
    old = root("r0", is_active=False, root_pem="-----r0-----")
    new = root("r1", intermediates=(intermediate("i1"),))
    api.service.state = replace(api.service.state, roots=(old, new))
    reply = await api.get(f"{ROOTS}?pem=true")
    assert reply.headers["Content-Type"] == "application/pem-certificate-chain"
    assert reply.text == "-----r0-----\n-----r1-----\n-----i1-----\n"


@pytest.mark.parametrize("text", ["0", "f", "False", ""])
async def test_pem_that_is_false_gives_json(api: Running, text: str) -> None:
    assert "Roots" in (await api.get(f"{ROOTS}?pem={text}")).json()


async def test_pem_that_is_no_boolean_is_400(api: Running) -> None:
    reply = await api.get(f"{ROOTS}?pem=yes")
    assert (reply.status, reply.text) == (400, "The 'pem' query parameter must be a boolean value")


@pytest.mark.parametrize("path", [ROOTS, "/v1/agent/connect/ca/roots", CONFIGURATION])
async def test_before_the_ca_is_there_reads_are_500_with_consuls_text(api: Running, path: str) -> None:
    api.service.state = replace(api.service.state, config=None, roots=())
    reply = await api.get(path)
    assert (reply.status, reply.text) == (500, "CA has not finished initializing")
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", [ROOTS, "/v1/agent/connect/ca/roots", CONFIGURATION, f"{LEAF}/web"])
async def test_without_connect_reads_are_500_with_consuls_text(start: Start, path: str) -> None:
    api = await start(connect={"enabled": False})
    reply = await api.get(path)
    assert (reply.status, reply.text) == (500, "Connect must be enabled in order to use this endpoint")
    assert (await api.put(SIGN, {"CSR": CSR})).status == 500


async def test_pretty_is_indented_by_four_with_a_newline(api: Running) -> None:
    reply = await api.get("/v1/status/peers?pretty")
    assert reply.text == '[\n    "127.0.0.1:8300",\n    "127.0.0.1:8301",\n    "127.0.0.1:8302"\n]\n'


# -- configuration


async def test_configuration_has_consuls_fields_and_sorted_maps(api: Running) -> None:
    reply = await api.get(CONFIGURATION)
    assert reply.text == (
        '{"Provider":"consul","Config":{"IntermediateCertTTL":"8760h","LeafCertTTL":"72h",'
        '"Nested":{"a":[{"c":2,"d":1}],"b":1}},"State":null,"ForceWithoutCrossSigning":false,'
        '"CreateIndex":3,"ModifyIndex":3}'
    )
    assert reply.headers["X-Consul-Index"] == "3"


async def test_secret_that_a_release_before_has_stored_in_clear_is_not_shown(api: Running) -> None:
    config = api.service.state.config
    assert config is not None
    stored = {"LeafCertTTL": "72h", "private_key": "s3cr3t", "Nested": {"a": [1, {"Token": "s3cr3t", "b": 2}]}}
    api.service.state = replace(
        api.service.state, config=replace(config, config_json=json.dumps({**stored, "VaultToken": "s3cr3t"}))
    )
    assert (await api.get(CONFIGURATION)).json()["Config"] == {"LeafCertTTL": "72h", "Nested": {"a": [1, {"b": 2}]}}


async def test_public_state_is_shown_sorted(api: Running) -> None:
    config = api.service.state.config
    assert config is not None
    api.service.state = replace(api.service.state, config=replace(config, public_state=(("b", "2"), ("a", "1"))))
    assert '"State":{"a":"1","b":"2"}' in (await api.get(CONFIGURATION)).text


async def test_put_configuration_passes_on_what_was_given(api: Running) -> None:
    body = {"Provider": "consul", "Config": {"LeafCertTTL": 3600000000000}, "ForceWithoutCrossSigning": True}
    reply = await api.put(CONFIGURATION, {**body, "CreateIndex": 3, "ModifyIndex": 3, "State": None, "Other": [1]})
    assert (reply.status, reply.text) == (200, "")
    (name, (update,)), (after, _) = api.service.calls
    assert (name, after) == ("configure", "read")  # for the header that names roots which were cut off
    assert (update.provider, update.config, update.state) == ("consul", body["Config"], None)  # type: ignore[attr-defined]
    assert (update.force_without_cross_signing, update.modify_index) == (True, 3)  # type: ignore[attr-defined]


async def test_keys_of_a_body_are_read_in_any_case_and_under_the_old_name(api: Running) -> None:
    body = {"provider": "consul", "config": {"LeafCertTTL": "1h"}, "force_without_cross_signing": True}
    assert (await api.put(CONFIGURATION, body)).status == 200
    shown = (await api.get(CONFIGURATION)).json()
    assert (shown["Config"], shown["ForceWithoutCrossSigning"]) == ({"LeafCertTTL": "1h"}, True)


async def test_a_stale_index_is_409_and_names_the_present_one(api: Running) -> None:
    reply = await api.put(CONFIGURATION, {"Provider": "consul", "ModifyIndex": 2})
    assert (reply.status, reply.text.rsplit(" ", 1)[1]) == (409, "3")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("read-only"), 400),
        (Refused("not now"), 422),
        (InternalError("error configuring provider: x"), 500),
        (NoLeader("none"), 503),
        (NotReady("not yet"), 503),
        (CommitUnknown("it may or may not have taken effect"), 504),
    ],
)
async def test_refusals_of_put_configuration_have_their_status_and_text(
    api: Running, error: Exception, status: int
) -> None:
    api.service.fail_with["configure"] = error
    reply = await api.put(CONFIGURATION, {"Provider": "consul"})
    assert (reply.status, reply.text) == (status, str(error))
    assert ("Retry-After" in reply.headers) == (status == 503)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "EOF"),
        (b"{", "Expecting property name"),
        (b"[1]", "the body must be a JSON object, not a list"),
        (b"null", "the body must be a JSON object, not null"),
        (b'"x"', "the body must be a JSON object, not a string"),
        (b'{"Provider":1}', "Provider = 1: must be a string"),
        (b'{"Config":"secret"}', "Config: must be an object, not a string"),
        (b'{"State":{"a":1}}', "State.'a' = 1: must be a string"),
        (b'{"ForceWithoutCrossSigning":"yes"}', "ForceWithoutCrossSigning = 'yes': must be true or false"),
        (b'{"ModifyIndex":-1}', "ModifyIndex = -1: must be a whole number from 0 to 2^64-1"),
        (b'{"ModifyIndex":true}', "ModifyIndex = True: must be a whole number from 0 to 2^64-1"),
        (b'{"ModifyIndex":1.5}', "ModifyIndex = 1.5: must be a whole number from 0 to 2^64-1"),
        (b'{"CreateIndex":"1"}', "CreateIndex = '1': must be a whole number from 0 to 2^64-1"),
        (b'{"Provider":"a","provider":"b"}', "'provider' is given more than once"),
        (b'{"Provider":"a","Provider":"b"}', "'Provider' is given more than once"),
        (
            b'{"ForceWithoutCrossSigning":true,"force_without_cross_signing":false}',
            "'force_without_cross_signing' is given more than once",
        ),
        (b'{"Config":{"a":1,"a":2}}', "'a' is given more than once"),
        (b'{"Config":{"a":NaN}}', "NaN is not a JSON number"),
        (b'{"Config":{"a":1e999}}', "'1e999' is too large for a number"),
        (b'{"Config":{"a":' + b"9" * 30 + b"}}", "a whole number does not fit into 64 bits"),
        (b'{"Config":{"a":' + b"9" * 5000 + b"}}", "a whole number does not fit into 64 bits"),
        (b'{"Config":{"a":"\\ud800"}}', "a string contains half of a surrogate pair"),
        (b'{"Config":{"\\u0000":"a"}}', "a string contains NUL"),
        (b'{"Provider":"\xff"}', "the body is not UTF-8"),
        (b'\xef\xbb\xbf{"Provider":"a"}', "Unexpected UTF-8 BOM"),
        (b'{"Config":' + b'{"a":' * 40 + b"1" + b"}" * 41, "nested more than 32 deep"),
        (b'{"Config":' + b"[" * 100_000, "nested more than 32 deep"),
        (b'{"Provider":"' + b"a" * 400 + b'","Provider":1}', "'Provider' is given more than once"),
    ],
)
async def test_a_body_that_is_odd_is_400_and_says_why(api: Running, body: bytes, text: str) -> None:
    reply = await api.ask("PUT", CONFIGURATION, data=body)
    assert (reply.status, reply.text.startswith(f"Request decode failed: {text}")) == (400, True), reply.text
    assert len(reply.text) < 400
    assert api.service.calls == []


async def test_a_secret_of_the_wrong_type_is_not_repeated(api: Running) -> None:
    reply = await api.ask("PUT", CONFIGURATION, data=b'{"Config":"hunter2"}')
    assert "hunter2" not in reply.text
    assert "hunter2" not in repr(api.log.events)


# -- sign


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_sign_answers_with_the_issued_cert(api: Running, method: str) -> None:
    reply = await api.ask(method, SIGN, json={"CSR": CSR})
    assert reply.status == 200
    assert reply.text == (
        '{"SerialNumber":"01:2f","CertPEM":"-----leaf-----\\n","Service":"web",'
        f'"ServiceURI":"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web",'
        '"ValidAfter":"2027-01-15T08:00:00Z","ValidBefore":"2027-01-15T09:00:00Z","CreateIndex":7,"ModifyIndex":7}'
    )
    assert api.service.calls == [("sign", (CSR, "127.0.0.1"))]


async def test_a_signature_is_not_logged_twice(api: Running) -> None:
    await api.put(SIGN, {"CSR": CSR})
    assert api.log.events == []


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (CSRRejected("CSR SAN contains an invalid number of URIs: 0"), 400, None),
        (RateLimitReached("Rate limit reached, try again later", 2.2), 429, "3"),
        (RateLimited("operation rate limited by CA provider", 0.1), 429, "1"),
        (NotReady("CA is uninitialized"), 503, "1"),
        (NoLeader("no leader is known"), 503, "1"),
        (Overloaded("a queue is full"), 503, "1"),
        (ProviderUnavailable("the backend does not answer"), 503, "1"),
        (ProviderUnavailable("the backend does not answer", 7.4), 503, "8"),
        (ProviderError("odd"), 500, None),
        (CommitUnknown("it may or may not have been signed"), 504, None),
    ],
)
async def test_refusals_of_sign_have_their_status_and_text(
    api: Running, error: Exception, status: int, retry_after: str | None
) -> None:
    api.service.fail_with["sign"] = error
    reply = await api.put(SIGN, {"CSR": CSR})
    assert (reply.status, reply.text, reply.headers.get("Retry-After")) == (status, str(error), retry_after)


@pytest.mark.parametrize("body", [{}, {"CSR": ""}, {"CSR": None}, {"Other": 1}])
async def test_sign_without_a_csr_is_400(api: Running, body: object) -> None:
    reply = await api.put(SIGN, body)
    assert (reply.status, reply.text) == (400, "CSR is required")


async def test_a_csr_over_16_kb_is_refused_before_the_node_sees_it(api: Running) -> None:
    reply = await api.put(SIGN, {"csr": CSR + "x" * 16384})
    assert (reply.status, reply.text, api.service.calls) == (400, "CSR is larger than 16384 bytes", [])


async def test_an_unexpected_error_shows_nothing_and_is_logged_without_a_traceback(api: Running) -> None:
    api.service.fail_with["sign"] = KeyError("inner detail")
    reply = await api.put(SIGN, {"CSR": CSR})
    assert (reply.status, reply.text) == (500, "internal error")
    ((event, fields), (request_event, _)) = api.log.events
    assert (event, fields["route"], request_event) == ("http.failed", SIGN, "http.request")
    assert fields["reason"].startswith("KeyError at tests.kit.fake_service:")
    assert "\n" not in fields["reason"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("agent", {"Agent": "web", "AgentURI": None}),
        ("mesh-gateway", {"Kind": "mesh-gateway", "KindURI": None}),
        ("server", {"ServerURI": None}),
    ],
)
async def test_other_kinds_of_leaf_have_consuls_fields(api: Running, kind: str, names: dict[str, str | None]) -> None:
    api.service.leaf_answer = LocalLeaf(api.service.issued(kind), "key", False, 0)
    answer = (await api.get(f"{LEAF}/web")).json()
    uri = api.service.issued(kind).spiffe_id
    assert {k: v for k, v in answer.items() if k.startswith(("Serv", "Agent", "Kind"))} == {
        name: value or uri for name, value in names.items()
    }


# -- certs


async def test_a_certificate_is_found_by_its_serial_in_any_writing(api: Running) -> None:
    api.service.certs = [ledger_row(0xAB), ledger_row(0x01AB)]
    for text in ("01ab", "1AB", "01:AB", "1:ab", "0001ab"):
        reply = await api.get(f"{CERTS}/{text}")
        assert (reply.status, reply.json()["SerialNumber"]) == (200, "01:ab")
    assert api.service.calls[0] == ("find_cert", (b"\x01\xab", ReadLevel.LINEARIZABLE))
    assert json.loads(reply.text) == {
        "SerialNumber": "01:ab",
        "Kind": "service",
        "Service": "name-1",
        "SpiffeID": f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/name-1",
        "IssuerKeyID": ISSUER.hex(":"),
        "PublicKeySHA256": ":".join(["ab"] * 32),
        "ValidAfter": "2027-01-15T08:00:00Z",
        "ValidBefore": "2027-01-15T08:07:07Z",
        "RequestedBy": "127.0.0.1",
        "CreateIndex": 0x01AB,
    }


ACCESSOR = "667be31f-45ef-4fc4-818e-1731843ba10d"


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("node-2: 10.0.0.7", ("10.0.0.7", "node-2", None)),
        (f"{ACCESSOR}@10.0.0.7", ("10.0.0.7", None, ACCESSOR)),
        (f"{ACCESSOR}@node-2: 10.0.0.7", ("10.0.0.7", "node-2", ACCESSOR)),
        (f"node-2: {ACCESSOR}@10.0.0.7", (f"{ACCESSOR}@10.0.0.7", "node-2", None)),
    ],
)
async def test_who_asked_is_shown_with_its_token_and_the_server_that_says_so(
    api: Running, recorded: str, shown: tuple[str | None, ...]
) -> None:
    """What a server says cannot pass for a token that the leader has looked up."""
    row = ledger_row(1)
    api.service.certs = [replace(row, record=replace(row.record, requested_by=recorded))]
    answer = (await api.get(f"{CERTS}/1")).json()
    assert tuple(map(answer.get, ("RequestedBy", "RequestedVia", "RequestedByAccessorID"))) == shown


async def test_stale_looks_up_in_the_nodes_own_ledger(api: Running) -> None:
    assert (await api.get(f"{CERTS}/1?stale")).status == 404
    await api.get(f"{CERTS}?stale")
    assert [args[1] for _, args in api.service.calls] == [ReadLevel.STALE, ReadLevel.STALE]


@pytest.mark.parametrize("text", ["xyz", "0x1", "1::2", ":1", "1:234", "a" * 129, "%20", "1-2"])
async def test_a_serial_that_is_not_hex_is_400(api: Running, text: str) -> None:
    reply = await api.get(f"{CERTS}/{text}")
    assert (reply.status, reply.text.startswith("Invalid serial number ")) == (400, True)


async def test_certs_are_listed_page_by_page(api: Running) -> None:
    api.service.certs = [ledger_row(number) for number in range(1, 6)]
    path, pages = f"{CERTS}?limit=2", []
    while True:
        answer = (await api.get(path)).json()
        pages.append([cert["CreateIndex"] for cert in answer["Certs"]])
        if answer["Next"] is None:
            break
        path = f"{CERTS}?limit=2&after={answer['Next']}"
    assert pages == [[1, 2], [3, 4], [5]]


async def test_page_that_its_certificates_fill_before_the_limit_says_that_there_are_more(api: Running) -> None:
    row = ledger_row(1)
    large = replace(row, record=replace(row.record, name="x" * PART_BYTES))
    for certs, following in (([large], "1"), ([row, replace(large, index=2)], "2"), ([row], None), ([], None)):
        api.service.certs = certs
        answer = (await api.get(f"{CERTS}?limit=2")).json()
        assert (len(answer["Certs"]), answer["Next"]) == (len(certs), following)


async def test_certificates_are_found_by_the_token_that_they_were_asked_with(api: Running) -> None:
    said = ("127.0.0.1", f"{uuid(7)}@127.0.0.1", f"{uuid(8)}@n2: {uuid(7)}@", f"{uuid(7)}@n2: 10.0.0.7")
    rows = [ledger_row(number) for number in range(1, 5)]
    api.service.certs = [
        replace(row, record=replace(row.record, requested_by=by)) for row, by in zip(rows, said, strict=True)
    ]
    for accessor in (uuid(7), uuid(7).upper()):
        answer = (await api.get(f"{CERTS}?accessor={accessor}")).json()
        assert [cert["CreateIndex"] for cert in answer["Certs"]] == [2, 4]


@pytest.mark.parametrize("moment", ["2027-01-15T08:00:01Z", f"{NOW + 1}", "2027-01-15t10:00:00.5%2B02:00"])
async def test_every_filter_reaches_the_ledger(api: Running, moment: str) -> None:
    path = f"{CERTS}?service=web&spiffe_id=spiffe%3A%2F%2Fx&kind=mesh-gateway&issuer=AA:0b&limit=1000&after=9"
    assert (
        await api.get(f"{path}&expires_before={moment}&dc=dc1&ns=default&token=t")
    ).text == '{"Certs":[],"Next":null}'
    expected = LedgerQuery("web", "spiffe://x", LeafKind.MESH_GATEWAY, b"\xaa\x0b", NOW + 1, 9, 1001)
    assert api.service.calls == [("search_certs", (expected, ReadLevel.LINEARIZABLE))]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("kind=Service", "Invalid kind 'Service': must be one of service, agent, mesh-gateway, server, intermediate"),
        ("limit=0", "Invalid limit '0': must be a whole number from 1 to 1000"),
        ("limit=1001", "Invalid limit '1001': must be a whole number from 1 to 1000"),
        ("limit=%D9%A1", "Invalid limit '\\u0661': must be a whole number from 1 to 1000"),
        ("after=-1", "Invalid after '-1': must be a whole number from 0 to 9223372036854775807"),
        ("after=9223372036854775808", "Invalid after '9223372036854775808': must be"),
        ("issuer=zz", "Invalid issuer 'zz': must be at most 128 hex digits"),
        ("expires_before=tomorrow", "Invalid expires_before 'tomorrow': must be RFC 3339"),
        ("expires_before=2027-02-30T00:00:00Z", "Invalid expires_before '2027-02-30T00:00:00Z'"),
        ("accessor=", "Invalid accessor '': must be the AccessorID of a token, a UUID"),
        (f"accessor={uuid(7)}@", "Invalid accessor"),
        ("accessor=%25", "Invalid accessor '%'"),
        ("expires_before=2027-02-01", "Invalid expires_before '2027-02-01'"),
        ("services=web", "Unknown query parameter 'services': allowed are accessor, after, expires_before,"),
    ],
)
async def test_a_filter_that_is_odd_is_400_and_says_what_is_allowed(api: Running, query: str, text: str) -> None:
    reply = await api.get(f"{CERTS}?{query}")
    assert (reply.status, reply.text[: len(text)], api.service.calls) == (400, text, [])


# -- agent


async def test_agent_roots_are_the_same_with_cache_headers(api: Running) -> None:
    reply = await api.get("/v1/agent/connect/ca/roots?pem=true")
    assert reply.text == (await api.get(ROOTS)).text
    assert (reply.headers["X-Cache"], reply.headers["Age"], reply.headers["X-Consul-Index"]) == ("HIT", "0", "5")


async def test_agent_roots_are_served_without_a_leader(api: Running) -> None:
    api.service.has_leader = False
    reply = await api.get("/v1/agent/connect/ca/roots")
    assert (reply.status, reply.headers["X-Consul-KnownLeader"]) == (200, "false")
    reply = await api.get(ROOTS)
    assert (reply.status, reply.text) == (500, "no leader is known")


async def test_a_leaf_has_consuls_fields_order_and_headers(api: Running) -> None:
    reply = await api.get(f"{LEAF}/web")
    assert reply.text == (
        '{"SerialNumber":"01:2f","CertPEM":"-----leaf-----\\n","PrivateKeyPEM":"-----key-----\\n","Service":"web",'
        f'"ServiceURI":"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web",'
        '"ValidAfter":"2027-01-15T08:00:00Z","ValidBefore":"2027-01-15T09:00:00Z","CreateIndex":7,"ModifyIndex":7}'
    )
    assert (reply.headers["X-Consul-Index"], reply.headers["X-Cache"], "Age" in reply.headers) == ("7", "MISS", False)
    assert reply.headers["X-Consul-LastContact"] == "0"
    api.service.leaf_answer = LocalLeaf(api.service.issued(), "key", True, 12)
    reply = await api.get(f"{LEAF}/web")
    assert (reply.headers["X-Cache"], reply.headers["Age"]) == ("HIT", "12")


async def test_the_name_of_a_leaf_is_decoded_once(api: Running) -> None:
    await api.get(f"{LEAF}/a%2Fb%2520c")
    assert api.service.calls == [("leaf", ("a/b%20c", "127.0.0.1", 0, 0.0))]


async def test_a_leaf_without_a_name_is_500_with_consuls_text(api: Running) -> None:
    reply = await api.get(f"{LEAF}/")
    assert (reply.status, reply.text) == (500, "URI must be either service, agent, server, or kind")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RateLimitReached("Rate limit reached, try again later"), 429),
        (RateLimited("operation rate limited by CA provider"), 429),
        (CSRRejected("a rule"), 500),
        (ProviderUnavailable("down"), 500),
        (NoLeader("none"), 500),
        (NotReady("not yet"), 500),
        (Overloaded("full"), 500),
        (CommitUnknown("may or may not"), 500),
    ],
)
async def test_refusals_of_a_leaf_keep_consuls_statuses(api: Running, error: Exception, status: int) -> None:
    api.service.fail_with["leaf"] = error
    reply = await api.get(f"{LEAF}/web")
    assert (reply.status, reply.text) == (status, str(error))
    # A backend that is away is no fault of ours: when to come back is said whatever the status is.
    is_worth_waiting = isinstance(error, ProviderUnavailable) or status == 429
    assert reply.headers.get("Retry-After") == ("1" if is_worth_waiting else None)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_authorize_allows_with_consuls_reason(api: Running, method: str) -> None:
    body = {"Target": "web", "ClientCertURI": CLIENT, "ClientCertSerial": "04:00"}
    reply = await api.ask(method, AUTHORIZE, json=body)
    assert (reply.status, reply.text) == (200, '{"Authorized":true,"Reason":"Default behavior configured by ACLs"}')
    assert reply.headers["X-Cache"] == "HIT"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"ClientCertURI": CLIENT}, "Target service must be specified"),
        ({"Target": "web"}, "ClientCertURI not a valid Connect identifier"),
        ({"Target": "web", "ClientCertURI": "http://x"}, "ClientCertURI not a valid Connect identifier"),
        (
            {"Target": "web", "ClientCertURI": f"spiffe://{TRUST_DOMAIN}/agent/client/dc/dc1/id/n1"},
            "ClientCertURI not a valid Service identifier",
        ),
        ({"Target": ["web"]}, "Request decode failed: Target = ['web']: must be a string"),
    ],
)
async def test_authorize_refuses_with_consuls_texts(api: Running, body: object, text: str) -> None:
    reply = await api.ask("POST", AUTHORIZE, json=body)
    assert (reply.status, reply.text) == (400, text)


async def test_agent_self_has_exactly_consuls_keys_and_no_secret(api: Running) -> None:
    reply = await api.get("/v1/agent/self")
    answer = reply.json()
    assert set(answer) == {"Member", "xDS", "Stats", "Config", "Coord", "DebugConfig", "Meta"}
    assert answer["DebugConfig"]["ACLAgentRecoveryTokenSet"] is False
    assert (answer["Config"]["Datacenter"], answer["Config"]["NodeName"]) == ("dc1", "n1")
    assert answer["Stats"] == {"raft": {"state": "Follower", "term": "2"}}
    assert ".pem" not in reply.text


@pytest.mark.parametrize("file", [None, "/etc/quorumca/initial-management.token"])
async def test_agent_self_says_whether_the_first_token_is_closed_and_nothing_of_its_file(
    start: Start, file: str | None
) -> None:
    api = await start(acl={} if file is None else {"initial_management_file": file})
    reply = await api.get("/v1/agent/self")
    assert reply.json()["DebugConfig"]["ACLInitialManagementFile"] is (file is not None)
    assert ".token" not in reply.text


async def test_metrics_come_in_consuls_form_and_in_prometheus(api: Running) -> None:
    await api.get(ROOTS)
    answer = (await api.get("/v1/agent/metrics")).json()
    assert list(answer) == ["Timestamp", "Gauges", "Points", "Counters", "Samples"]
    assert answer["Timestamp"] == "2027-01-15 08:00:00 +0000 UTC"
    labels = {"route": ROOTS, "status": "200"}
    counter = {"Name": "quorumca_http_requests", "Count": 1, "Sum": 1.0, "Labels": labels}
    assert counter in answer["Counters"]
    assert [s["Count"] for s in answer["Samples"] if s["Labels"] == {"route": ROOTS}] == [1]
    reply = await api.get("/v1/agent/metrics?format=prometheus")
    assert f'quorumca_http_requests_total{{route="{ROOTS}",status="200"}} 1.0' in reply.text
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert (await api.get("/v1/agent/metrics?format=xml")).status == 400


# -- status, operator, catalog


async def test_status_says_leader_and_peers(api: Running) -> None:
    assert (await api.get("/v1/status/leader")).text == '"127.0.0.1:8301"'
    api.service.has_leader = False
    assert (await api.get("/v1/status/leader")).text == '""'
    assert (await api.get("/v1/status/peers")).json() == ["127.0.0.1:8300", "127.0.0.1:8301", "127.0.0.1:8302"]


async def test_datacenters(api: Running) -> None:
    assert (await api.get("/v1/catalog/datacenters")).text == '["dc1"]'


async def test_raft_configuration(api: Running) -> None:
    answer = (await api.get("/v1/operator/raft/configuration")).json()
    assert (answer["Index"], len(answer["Servers"])) == (99, 3)
    assert answer["Servers"][1] == {
        "ID": "n2",
        "Node": "n2",
        "Address": "127.0.0.1:8301",
        "RPC": "127.0.0.1:8401",
        "Leader": True,
        "ProtocolVersion": "3",
        "Voter": True,
        "LastIndex": 99,
    }
    api.service.has_leader = False
    assert (await api.get("/v1/operator/raft/configuration")).status == 500
    assert (await api.get("/v1/operator/raft/configuration?stale")).status == 200


async def test_health_is_429_with_the_same_body_when_not_healthy(api: Running) -> None:
    reply = await api.get("/v1/operator/autopilot/health")
    assert (reply.status, reply.json()["Healthy"], reply.json()["FailureTolerance"]) == (200, True, 1)
    server = reply.json()["Servers"][0]
    assert (server["SerfStatus"], server["LastContact"], server["StableSince"]) == (
        "alive",
        "20ms",
        "2027-01-15T08:00:00Z",
    )
    assert reply.json()["Servers"][2]["LastContact"] is None
    api.service.is_healthy = False
    reply = await api.get("/v1/operator/autopilot/health")
    assert (reply.status, reply.json()["Healthy"], reply.json()["FailureTolerance"]) == (429, False, 0)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_transfer_of_leadership(api: Running, method: str) -> None:
    assert (await api.ask(method, "/v1/operator/raft/transfer-leader")).text == '{"Success":true}'
    assert (await api.ask(method, "/v1/operator/raft/transfer-leader?id=n3")).status == 200
    assert api.service.calls == [("transfer_leader", (None,)), ("transfer_leader", ("n3",))]
    assert (await api.ask(method, "/v1/operator/raft/transfer-leader?id=n9")).status == 400


PEER = "/v1/operator/raft/peer"


async def test_a_peer_is_added_and_removed(api: Running) -> None:
    body = {"ID": "n4", "Address": "127.0.0.1:8303", "RPC": "[::1]:8403"}
    assert (await api.put(PEER, body)).status == 200
    assert (await api.ask("DELETE", f"{PEER}?id=n3")).status == 200
    assert (await api.ask("DELETE", f"{PEER}?address=127.0.0.1:8302")).status == 200
    assert (await api.ask("DELETE", f"{PEER}?id=n9")).status == 404
    assert api.service.calls[:3] == [
        ("add_peer", ("n4", "127.0.0.1:8303", "[::1]:8403")),
        ("remove_peer", ("n3", None)),
        ("remove_peer", (None, "127.0.0.1:8302")),
    ]


@pytest.mark.parametrize("query", ["", "?id=n1&address=127.0.0.1:8300", "?id="])
async def test_a_peer_is_removed_by_exactly_one_of_two(api: Running, query: str) -> None:
    reply = await api.ask("DELETE", PEER + query)
    assert (reply.status, reply.text[:12], api.service.calls) == (400, "Must specify", [])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ID": "N4"}, "ID = 'N4': must be a node name"),
        ({"ID": None}, "ID = '': must be a node name"),
        ({"Address": "127.0.0.1"}, "Address = '127.0.0.1': must be host:port"),
        ({"Address": ":8300"}, "Address = ':8300': must be host:port"),
        ({"RPC": "h:0"}, "RPC = 'h:0': must be host:port"),
        ({"RPC": "h:65536"}, "RPC = 'h:65536': must be host:port"),
        ({"RPC": "h h:80"}, "RPC = 'h h:80': must be host:port"),
        ({"RPC": "::1:80"}, "RPC = '::1:80': must be host:port"),
        ({"RPC": "h" * 256 + ":80"}, "RPC = 'hhhh"),
        ({"RPC": 8400}, "Request decode failed: RPC = 8400: must be a string"),
    ],
)
async def test_a_peer_that_is_odd_is_400(api: Running, change: dict[str, object], text: str) -> None:
    reply = await api.put(PEER, {"ID": "n4", "Address": "127.0.0.1:8303", "RPC": "127.0.0.1:8403"} | change)
    assert (reply.status, reply.text[: len(text)], api.service.calls) == (400, text, [])


async def test_probes_say_one_word_and_need_no_leader_to_say_it(api: Running) -> None:
    assert [(await api.get(f"/v1/status/{probe}")).text for probe in ("live", "ready")] == ["alive\n", "ready\n"]
    api.service.has_leader = False
    assert (await api.get("/v1/status/live")).status == 200
    reply = await api.get("/v1/status/ready")
    assert (reply.status, reply.text) == (503, "not ready: no leader is known")
    api.service.has_leader = True
    api.service.state = replace(api.service.state, roots=())
    reply = await api.get("/v1/status/ready", headers={"X-Consul-Token": "unknown"})
    assert (reply.status, reply.text) == (503, "not ready: there is no CA yet")
    assert "http.request" not in api.log.names()


@pytest.mark.parametrize("probe", ["live", "ready"])
@pytest.mark.parametrize("has_leader", [True, False])
async def test_head_of_a_probe_says_the_same_without_a_body(api: Running, probe: str, has_leader: bool) -> None:
    api.service.has_leader = has_leader
    path = f"/v1/status/{probe}"
    got, head = await api.get(path), await api.ask("HEAD", path)
    assert (head.status, head.text) == (got.status, "")
    names = ("Content-Type", "Content-Length", "X-Consul-Default-ACL-Policy")
    assert [head.headers.get(name) for name in names] == [got.headers.get(name) for name in names]


async def test_digest(api: Running) -> None:
    answer = (await api.get("/v1/operator/digest?stale")).json()
    assert answer == {
        "AppliedIndex": api.service.state.index,
        "StateDigest": "ab" * 32,
        "LedgerCount": 0,
        "LedgerDigest": "cd" * 32,
    }


# -- logs


async def test_changes_and_failures_are_one_line_each_without_the_url(api: Running) -> None:
    await api.put(f"{PEER}?token=hunter2", {"ID": "n4", "Address": "127.0.0.1:8303", "RPC": "127.0.0.1:8403"})
    await api.get(ROOTS)
    await api.get(f"{CERTS}/zz?token=hunter2")
    assert [(event, fields["method"], fields["route"], fields["status"]) for event, fields in api.log.events] == [
        ("http.request", "PUT", PEER, 200),
        ("http.request", "GET", "/v1/connect/ca/certs/{serial}", 400),
    ]
    assert "hunter2" not in repr(api.log.events)
