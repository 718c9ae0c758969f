"""SPIFFE IDs: forms of consul-compat 2.2, texts, and who may sign for whom."""

import pytest

from providers.pki import spiffe
from providers.pki.spiffe import Kind, SpiffeError, SpiffeId
from tests.kit.pki import CLUSTER_ID, ROOT_URI, TRUST_DOMAIN

FORMS = [
    (ROOT_URI, SpiffeId(Kind.SIGNING, TRUST_DOMAIN)),
    (f"{ROOT_URI}/ns/default/dc/dc1/svc/web", SpiffeId(Kind.SERVICE, TRUST_DOMAIN, "dc1", "web")),
    (f"{ROOT_URI}/ns/n1/dc/dc1/svc/web", SpiffeId(Kind.SERVICE, TRUST_DOMAIN, "dc1", "web", "n1")),
    (f"{ROOT_URI}/ap/p1/ns/n1/dc/dc1/svc/web", SpiffeId(Kind.SERVICE, TRUST_DOMAIN, "dc1", "web", "n1", "p1")),
    (f"{ROOT_URI}/agent/client/dc/dc1/id/node-1", SpiffeId(Kind.AGENT, TRUST_DOMAIN, "dc1", "node-1")),
    (
        f"{ROOT_URI}/ap/p1/agent/client/dc/dc1/id/node-1",
        SpiffeId(Kind.AGENT, TRUST_DOMAIN, "dc1", "node-1", partition="p1"),
    ),
    (f"{ROOT_URI}/gateway/mesh/dc/dc1", SpiffeId(Kind.MESH_GATEWAY, TRUST_DOMAIN, "dc1")),
    (f"{ROOT_URI}/ap/p1/gateway/mesh/dc/dc1", SpiffeId(Kind.MESH_GATEWAY, TRUST_DOMAIN, "dc1", partition="p1")),
    (f"{ROOT_URI}/agent/server/dc/dc1", SpiffeId(Kind.SERVER, TRUST_DOMAIN, "dc1")),
    (f"{ROOT_URI}/ns/default/dc/dc1/svc/a%2Fb%20c", SpiffeId(Kind.SERVICE, TRUST_DOMAIN, "dc1", "a/b c")),
    (f"{ROOT_URI}/ns/default/dc/dc1/svc/w%C3%A9b", SpiffeId(Kind.SERVICE, TRUST_DOMAIN, "dc1", "wéb")),
]


@pytest.mark.parametrize(("uri", "identity"), FORMS)
def test_form_is_parsed_and_printed_back(uri: str, identity: SpiffeId) -> None:
    assert spiffe.parse(uri) == identity
    assert identity.uri == uri


def test_unneeded_escapes_and_the_default_partition_are_not_printed_back() -> None:
    loose = f"{ROOT_URI}/ap/default/ns/default/dc/dc1/svc/%77eb"
    assert spiffe.parse(loose).uri == f"{ROOT_URI}/ns/default/dc/dc1/svc/web"


def test_scheme_is_recognised_in_any_case() -> None:
    assert spiffe.parse(f"SPIFFE://{TRUST_DOMAIN}").uri == ROOT_URI


@pytest.mark.parametrize(
    "uri", ["", "web", "http://x.consul/ns/default/dc/dc1/svc/web", "spiffe:/x", "spiffe", "x\x00", "//x.consul"]
)
def test_other_scheme_is_refused(uri: str) -> None:
    with pytest.raises(SpiffeError) as caught:
        spiffe.parse(uri)
    assert str(caught.value) == "SPIFFE ID must have 'spiffe' scheme"


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "nodot",
        ".consul",
        "x.consul/",
        "x.consul/ns/default/dc/dc1/svc/web/",
        "x.consul/ns/default/dc/dc1/svc/",
        "x.consul//ns/default/dc/dc1/svc/web",
        "x.consul/ns/default/dc/dc1/svc",
        "x.consul/ns/default/svc/web",
        "x.consul/ap/p1",
        "x.consul/ap/p1/agent/server/dc/dc1",
        "x.consul/agent/client/dc/dc1",
        "x.consul/ap/p1/ns/n1/identity/web",
        "user@x.consul/ns/default/dc/dc1/svc/web",
        "x.consul:8443/ns/default/dc/dc1/svc/web",
        "[::1]/ns/default/dc/dc1/svc/web",
        "x.consul?a",
        "x.consul#a",
        "x.consul/ns/default/dc/dc1/svc/a b",
        "x.consul/ns/default/dc/dc1/svc/a\nb",
        "x.consul/ns/default/dc/dc1/svc/wéb",
        f"{'x' * 256}.consul",
        f"x.consul/ns/default/dc/dc1/svc/{'x' * 2048}",
    ],
)
def test_other_form_is_refused_with_the_uri(rest: str) -> None:
    uri = f"spiffe://{rest}"
    with pytest.raises(SpiffeError) as caught:
        spiffe.parse(uri)
    assert str(caught.value) == f"SPIFFE ID is not in the expected format: {uri[:2048]}"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/ns/default/dc/dc1/svc/%zz", "service"),
        ("/ns/default/dc/dc1/svc/a%", "service"),
        ("/ns/default/dc/dc1/svc/a?b", "service"),
        ("/ns/default/dc/dc1/svc/%00", "service"),
        ("/ns/default/dc/dc1/svc/a%0Ab", "service"),
        ("/ns/default/dc/dc1/svc/%FF", "service"),
        ("/ns/default/dc/dc1/svc/..", "service"),
        ("/ns/default/dc/dc1/svc/%2E%2e", "service"),
        ("/ns/%zz/dc/dc1/svc/web", "namespace"),
        ("/ns/default/dc/./svc/web", "datacenter"),
        ("/ap/a%/ns/default/dc/dc1/svc/web", "admin partition"),
        ("/agent/client/dc/dc1/id/%zz", "node"),
    ],
)
def test_bad_segment_is_refused_by_name(path: str, field: str) -> None:
    with pytest.raises(SpiffeError, match=f"^Invalid {field}: "):
        spiffe.parse(f"{ROOT_URI}{path}")


def test_ca_signs_in_its_own_trust_domain_only_and_never_for_agents() -> None:
    ours = spiffe.signing_id(TRUST_DOMAIN)
    for uri, identity in FORMS:
        expected = identity.kind is not Kind.AGENT
        assert spiffe.can_sign(ours, spiffe.parse(uri)) is expected
        assert spiffe.can_sign(ours, identity.in_trust_domain(TRUST_DOMAIN.upper())) is expected
        assert not spiffe.can_sign(ours, identity.in_trust_domain("other.consul"))
    assert not spiffe.can_sign(FORMS[1][1], FORMS[1][1])


def test_trust_domain_is_the_lower_case_cluster_id_with_consul() -> None:
    assert spiffe.trust_domain_of(CLUSTER_ID.upper()) == TRUST_DOMAIN
