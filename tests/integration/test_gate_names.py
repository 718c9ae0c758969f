"""Names at every door of a real cluster: what a certificate may say under a narrow rule, names with characters that
mean something to rules, things that are there and things that are not, and addresses that a node is told to ask.
"""

import json
import re
import uuid
from typing import Any, Final
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.signing.serials import new_serial
from providers.pki.serials import serial_bytes
from tests.fuzz.csr.asked import IDENTITIES, RULE, assert_within_rule, cases, csr_for, twisted
from tests.integration.walking import METHOD_CONFIG, Held, Walk, member_beside, rpc, steady, walk
from tests.kit import pki
from tests.kit.gate_table import DOORS, Kind
from tests.kit.real_cluster import Answer, Node

__all__ = ["walk"]

pytestmark = [pytest.mark.slow, pki.needs_openssl]

_SIGN: Final = "/v1/connect/ca/sign"
_IN_ONE_MESSAGE: Final = 64
_KINDS: Final = {200: None, 400: "CSRRejected", 403: "PermissionDenied"}


async def _holder(walk: Walk, rule: str = RULE) -> Held:
    """Somebody with this rule."""
    if (rule,) not in walk.held:
        walk.held[(rule,)] = await walk.made((rule,))
    return walk.held[(rule,)]


async def _asked(walk: Walk, web_uri: str) -> list[tuple[str, str, int]]:
    """What is wanted, its CSR, and the status of whoever has RULE."""
    asked = [(str(case), csr_for(web_uri, case.names), case.status) for case in cases(web_uri)]
    domain = web_uri.removeprefix("spiffe://").split("/")[0]
    return asked + [(path, csr_for(f"spiffe://{domain}{path}"), status) for path, status in IDENTITIES.items()]


async def _ledger_count(walk: Walk) -> int:
    return int((await walk.digest())["LedgerCount"])


@steady
async def test_every_kind_of_name_is_judged_at_every_door(walk: Walk) -> None:
    uri = await walk.cluster.service_uri("web")
    held, asked = await _holder(walk), await _asked(walk, uri)
    granted = sum(status == 200 for *_, status in asked)
    for node, method in ((walk.leader, "PUT"), (walk.follower, "POST")):
        before = await _ledger_count(walk)
        for what, csr_pem, status in asked:
            answer = await walk.ask(node, method, _SIGN, {"CSR": csr_pem}, held.secret_id)
            assert answer.status == status, (what, answer)
            if status == 200:
                _assert_within_rule(answer.json()["CertPEM"], uri)
            elif status == 403:
                assert answer.text.startswith(
                    f"Permission denied: token with AccessorID '{held.accessor_id}' lacks "
                ), what
        assert await _ledger_count(walk) == before + granted


def _assert_within_rule(cert_pem: str, uri: str) -> None:
    assert_within_rule(pki.load(cert_pem).public_bytes(Encoding.DER), uri)


@steady
async def test_every_kind_of_name_is_judged_in_a_batch_that_a_member_brings(walk: Walk) -> None:
    """Each with its own token: what a stronger one beside it may have counts for nothing."""
    uri = await walk.cluster.service_uri("web")
    held, asked = await _holder(walk), await _asked(walk, uri)
    before = await _ledger_count(walk)
    requests: list[Any] = []
    tokens = []
    for _, csr_pem, _ in asked:
        for secret in (held.secret_id, walk.root.secret_id):
            requests.append([csr_pem, serial_bytes(new_serial()), "me"])
            tokens.append(secret)
    member, outcomes = member_beside(walk, walk.leader), []
    for start in range(0, len(requests), _IN_ONE_MESSAGE):
        part = slice(start, start + _IN_ONE_MESSAGE)
        outcomes += await member.outcomes(rpc("sign", requests[part], tokens[part]))
    for (what, _, status), (error, result), (strong, _) in zip(asked, outcomes[::2], outcomes[1::2], strict=True):
        assert (error[0] if error else None) == _KINDS[status], (what, error)
        if status == 200:
            _assert_within_rule(result[1], uri)
        # What nobody may have, whoever may do everything may not have either.
        assert (strong is None) is (status != 400), (what, strong)
    granted = sum(error is None for error, _ in outcomes)
    assert await _ledger_count(walk) == before + granted


@steady
async def test_csr_that_says_two_things_gets_neither_more_than_the_rule(walk: Walk) -> None:
    uri = await walk.cluster.service_uri("web")
    held = await _holder(walk)
    for node in walk.sides:
        for what, csr_pem in twisted(uri).items():
            answer = await walk.ask(node, "PUT", _SIGN, {"CSR": csr_pem}, held.secret_id)
            assert answer.status in (200, 400, 403), (what, answer)
            if answer.status == 200:
                _assert_within_rule(answer.json()["CertPEM"], uri)


# -- names with characters that mean something


_ODD_NAMES: Final = (
    *(
        "*",
        "we*",
        "*eb",
        "w?b",
        "web+",
        "web+api",
        "+",
        "web/",
        "/web",
        "web/../api",
        "..",
        ".",
        "web/api",
        '"web"',
        'web"',
    ),
    *(
        "${web}",
        "$web",
        "{web}",
        "%web",
        "%77eb",
        "web%00",
        "web\0",
        "web\n",
        "\nweb",
        "web\t",
        " web",
        "web ",
        "web;",
        "web,",
    ),
    *(
        "WEB",
        "Web",
        "wéb",
        "ｗｅｂ",
        "web\u200b",
        "web\u202e",
        "\ufeffweb",
        "we\u0301b",
        "web#",
        "web?",
        "web&x",
        "[web]",
    ),
    *(
        "web\\",
        "web|api",
        "^web$",
        "web.*",
        "(web)",
        "web'",
        "web`",
        "<web>",
        "web:api",
        "web@api",
        "~web",
        "web\x7f",
        "web\x85",
    ),
)


@steady
async def test_odd_names_of_services_get_no_leaf_and_none_of_another(walk: Walk) -> None:
    """Neither by their own rule, whatever that says literally, nor by the rule of the name that they look like."""
    plain = await _holder(walk)
    before = await _ledger_count(walk)
    for node in walk.sides:
        for name in _ODD_NAMES:
            path = f"/v1/agent/connect/ca/leaf/{quote(name, safe='')}"
            answer = await walk.ask(node, "GET", path, None, plain.secret_id)
            assert answer.status in (400, 403, 404), (name, answer)
            assert "PRIVATE KEY" not in answer.text
    assert await _ledger_count(walk) == before


@steady
async def test_odd_names_in_rules_stand_for_themselves_or_are_refused(walk: Walk) -> None:
    uri = await walk.cluster.service_uri("web")
    csr_pem = csr_for(uri)
    for number, name in enumerate(_ODD_NAMES):
        for form in ("hcl", "json"):
            rules = f'service {json.dumps(name)} {{ policy = "write" }}'
            if form == "json":
                rules = json.dumps({"service": {name: {"policy": "write"}}})
            body = {"Name": f"odd-{form}-{number}-{uuid.uuid4()}", "Rules": rules}
            made = await walk.ask(walk.leader, "PUT", "/v1/acl/policy", body, walk.root.secret_id)
            if made.status == 400:
                continue
            assert made.status == 200, (name, made)
            token = await walk.must("PUT", "/v1/acl/token", {"Policies": [{"ID": made.json()["ID"]}]})
            for node in walk.sides:
                for answer in await _tries(walk, node, csr_pem, token["SecretID"]):
                    assert answer.status == 403, (name, answer)
                    assert answer.text.startswith("Permission denied: token with AccessorID"), (name, answer)
            await walk.must("DELETE", f"/v1/acl/policy/{made.json()['ID']}")
            await walk.must("DELETE", f"/v1/acl/token/{token['AccessorID']}")


async def _tries(walk: Walk, node: Node, csr_pem: str, secret_id: str) -> list[Answer]:
    return [
        await walk.ask(node, "PUT", _SIGN, {"CSR": csr_pem}, secret_id),
        await walk.ask(node, "GET", "/v1/agent/connect/ca/leaf/web", None, secret_id),
    ]


@steady
async def test_odd_names_of_objects_are_refused(walk: Walk) -> None:
    """Of policies, roles, methods, identities; and what a binding rule makes names of, where that is no variable."""
    before = await walk.settled()
    fields: tuple[tuple[str, Any], ...] = (
        ("/v1/acl/policy", lambda name: {"Name": name}),
        ("/v1/acl/role", lambda name: {"Name": name}),
        ("/v1/acl/auth-method", lambda name: {"Name": name, "Type": "jwt", "Config": METHOD_CONFIG}),
        ("/v1/acl/token", lambda name: {"ServiceIdentities": [{"ServiceName": name}]}),
        ("/v1/acl/token", lambda name: {"NodeIdentities": [{"NodeName": name, "Datacenter": "dc1"}]}),
        ("/v1/acl/role", lambda name: {"Name": "odd", "ServiceIdentities": [{"ServiceName": name}]}),
        ("/v1/acl/token", lambda name: {"Policies": [{"Name": name}]}),
        ("/v1/acl/token", lambda name: {"Roles": [{"Name": name}]}),
    )
    for path, body in fields:
        for name in _ODD_NAMES:
            if (
                name in ("WEB", "Web")
                and path in ("/v1/acl/policy", "/v1/acl/role", "/v1/acl/auth-method")
                and "ServiceIdentities" not in body(name)
            ):
                continue
            if path == "/v1/acl/policy" and name in ("web/", "web/api"):
                continue  # Consul's names of policies may have one slash
            answer = await walk.ask(walk.follower, "PUT", path, body(name), walk.root.secret_id)
            assert answer.status == 400, (path, name, answer)
    for name in (
        "${x}",
        "${value.nosuch}",
        "${value.team",
        "${value.team + 1}",
        "${upper(value.team)}",
        "",
    ):
        body = {"AuthMethod": "there", "BindType": "service", "BindName": name}
        answer = await walk.ask(walk.follower, "PUT", "/v1/acl/binding-rule", body, walk.root.secret_id)
        assert answer.status == 400, (name, answer)
    assert await walk.stands() == before


# -- what is there, and what is not


@steady
async def test_who_is_refused_does_not_learn_what_there_is(walk: Walk) -> None:
    nowhere = walk.facts | {
        "token": "0a0b0c0d-0000-4000-8000-00000000dead",
        "policy": "0a0b0c0d-0000-4000-8000-00000000dead",
        "role": "0a0b0c0d-0000-4000-8000-00000000dead",
        "rule": "0a0b0c0d-0000-4000-8000-00000000dead",
        "method": "nowhere",
        "serial": "80:" + "11:" * 14 + "22",
        "bystander": "node-77",
    }
    weak = await _holder(walk, 'key_prefix "" { policy = "write" }')
    for node in walk.sides:
        for door in DOORS:
            (path, body), (other, _) = door.request(walk.facts), door.request(nowhere)
            if path == other or door.needs.kind is Kind.OPEN:
                continue
            for secret in ("", weak.secret_id):
                there, not_there = [await walk.ask(node, door.method, where, body, secret) for where in (path, other)]
                assert there.status == 403, (door, there)
                assert _shown(there) == _shown(not_there), door


def _shown(answer: Answer) -> tuple[int, str, dict[str, str]]:
    return answer.status, answer.text, {name: value for name, value in answer.headers.items() if name != "Date"}


@steady
async def test_lists_are_whole_or_refused(walk: Walk) -> None:
    lists = [
        door for door in DOORS if door.method == "GET" and door.needs.kind is Kind.RIGHT and "{" not in door.template
    ]
    assert len(lists) > 8
    for node in walk.sides:
        for door in lists:
            for query in ("", "?stale", "?consistent", "?index=1&wait=1ms", "?policy=x", "?cached"):
                answer = await walk.ask(node, "GET", f"{door.template}{query}")
                assert answer.status == 403, (door, query, answer)
                hidden = {"X-Consul-Index", "X-Consul-Results-Filtered-By-ACLs", "X-Consul-LastContact", "ETag"}
                assert not hidden & set(answer.headers), (door, query)


# -- addresses that a node is told to ask


def _own(walk: Walk) -> list[str]:
    """Ports of the node that writes, and of servers beside it, in several spellings."""
    local = walk.leader.local
    addresses = [local.http, local.rpc, local.raft, *(node.local.rpc for node in walk.cluster.nodes)]
    ports = sorted({address.rpartition(":")[2] for address in addresses})
    hosts = ("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "LOCALHOST.")
    return [f"{host}:{port}" for host in hosts for port in ports]


_NOWHERE: Final = (
    *("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "2852039166", "0xa9fea9fe"),
    *("0.0.0.0", "[::]", "0", "224.0.0.1", "255.255.255.255", "[ff02::1]", "user:secret@127.0.0.1", "@127.0.0.1"),
    *("127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x", "", ":443", "a b", "x\\@127.0.0.1", "127.0.0.1#@x"),
)
#: A reason that was found before anything was connected to.
_JUDGED: Final = re.compile(
    r"must be an https URL|the port must be|has no host|port of this cluster|link-local|multicast|unspecified"
)


@steady
async def test_key_servers_are_none_of_this_cluster_and_nothing_next_to_a_node(walk: Walk) -> None:
    before = await walk.settled()
    for number, host in enumerate((*_own(walk), *_NOWHERE)):
        for config in (
            {"JWKSURL": f"https://{host}/keys"},
            {"OIDCDiscoveryURL": f"https://{host}"},
            {"JWKSURL": f"http://{host}/keys"},
            {"JWKSURL": f"file://{host}/etc/passwd"},
        ):
            body = {"Name": "forged", "Type": "jwt", "MaxTokenTTL": "5m", "Config": config}
            answer = await walk.ask(walk.sides[number % 2], "PUT", "/v1/acl/auth-method", body, walk.root.secret_id)
            assert answer.status == 400, (config, answer)
            assert _JUDGED.search(answer.text), (config, answer)
            if host not in _NOWHERE and config.keys() == {"JWKSURL"} and "https" in config["JWKSURL"]:
                assert "port of this cluster" in answer.text, (config, answer)
    assert await walk.stands() == before
