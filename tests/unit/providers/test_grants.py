"""What certificates a caller may have, name by name."""

import time
from ipaddress import ip_address

import pytest
from cryptography import x509

from providers.api import CAChain, LeafRequest
from providers.errors import NotGranted
from providers.grants import ANYTHING, EVERYTHING, Grant, NameGrant, Names
from providers.pki.granted import check_grant
from providers.pki.leaf import LeafSigner
from providers.pki.spiffe import Kind, SpiffeId
from providers.pki.x509 import Issuer
from tests.kit import pki

YES, NO = NameGrant(is_given=True), NameGrant(is_given=False)
DOMAIN = "11111111-2222-3333-4444-555555555555.consul"


def identity(kind: Kind, name: str = "") -> SpiffeId:
    return SpiffeId(kind, DOMAIN, "dc1", name)


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


def with_hosts(*patterns: str, networks: tuple[str, ...] = ()) -> Grant:
    return Grant(Names(default=NameGrant(is_given=True, dns=patterns, networks=networks)), Names(), NO)


def test_every_kind_has_names_of_its_own() -> None:
    grant = Grant(Names({"web": YES}, {"web-": YES, "web-x": NO}), Names({"n1": YES}), NO)
    allowed = [
        (kind, name)
        for kind in (Kind.SERVICE, Kind.AGENT, Kind.MESH_GATEWAY, Kind.SERVER)
        for name in ("web", "web-1", "web-x1", "api", "n1")
        if _may(grant, identity(kind, name if kind in (Kind.SERVICE, Kind.AGENT) else ""))
    ]
    assert allowed == [(Kind.SERVICE, "web"), (Kind.SERVICE, "web-1"), (Kind.AGENT, "n1")]
    assert _may(Grant(Names(), Names(), YES), identity(Kind.MESH_GATEWAY))
    assert not _may(EVERYTHING, identity(Kind.SERVER))
    assert _may(EVERYTHING, identity(Kind.SERVICE, "x"), [*dns("any.name"), x509.IPAddress(ip_address("10.0.0.1"))])


def _may(grant: Grant, of: SpiffeId, hosts: list[x509.GeneralName] | None = None) -> bool:
    try:
        check_grant(grant, of, hosts or [])
    except NotGranted:
        return False
    return True


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (
            "web.internal",
            ["web.internal", "WEB.internal"],
            ["web.internal.x", "xweb.internal", "web-internal", "*.internal"],
        ),
        (
            "*.internal",
            ["web.internal", "a-b.internal", "*.internal"],
            ["internal", "a.b.internal", ".internal", "*.x.internal"],
        ),
        ("web.*.internal", ["web.a.internal"], ["web.internal", "web.a.b.internal", "web.*.internal", "web..internal"]),
        (
            "web-*.internal",
            ["web-1.internal", "web-.internal"],
            ["web.internal", "web-1.a.internal", "*.internal", "web-*.internal"],
        ),
        ("*", ["web"], ["web.internal", "*"]),
        ("*.*.internal", ["a.b.internal"], ["a.internal", "*.*.internal", "a.b.c.internal"]),
    ],
)
def test_pattern_is_good_for_its_names_alone(pattern: str, good: list[str], bad: list[str]) -> None:
    grant = with_hosts(pattern)
    service = identity(Kind.SERVICE, "web")
    assert [name for name in (*good, *bad) if _may(grant, service, dns(name))] == good
    assert not _may(grant, service, dns(good[0], bad[0]))


def test_addresses_are_those_of_the_networks() -> None:
    grant = with_hosts(networks=("10.0.0.0/8", "::1/128"))
    service = identity(Kind.SERVICE, "web")
    allowed = [
        text
        for text in ("10.1.2.3", "11.0.0.1", "::1", "::2", "::ffff:10.1.2.3")
        if _may(grant, service, [x509.IPAddress(ip_address(text))])
    ]
    assert allowed == ["10.1.2.3", "::1"]


def test_refusal_says_what_is_lacking_and_what_is_allowed() -> None:
    grant = with_hosts("web.internal")
    with pytest.raises(NotGranted) as refused:
        check_grant(grant, identity(Kind.SERVICE, "web"), dns("api.internal"))
    assert str(refused.value) == (
        'lacks permission for the DNS name "api.internal" in a certificate of service "web": its policies allow'
        " web.internal"
    )
    with pytest.raises(NotGranted) as refused:
        check_grant(Grant(Names(), Names(), NO), identity(Kind.SERVICE, "web"), [])
    assert str(refused.value) == "lacks permission 'service:write' on \"web\""
    with pytest.raises(NotGranted, match=r"lacks permission 'mesh:write'\Z"):
        check_grant(Grant(Names(), Names(), NO), identity(Kind.MESH_GATEWAY), [])


def test_grant_survives_the_way_to_a_worker() -> None:
    grant = Grant(
        Names(
            {"web": NameGrant(is_given=True, dns=("a", "b"), networks=("::1/128",), ttl_max_seconds=5)}, {"": NO}, YES
        ),
        Names({"n1": YES}),
        ANYTHING,
    )
    assert Grant.from_bytes(grant.to_bytes()) == grant


def test_matching_is_linear_in_the_length_of_a_name() -> None:
    grant = with_hosts(*(".".join(["a*a"] * 60),) * 64)
    began = time.process_time()
    assert not _may(grant, identity(Kind.SERVICE, "web"), dns(*[".".join(["a" * 63] * 3)] * 50))
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(("granted", "expected"), [(0, pki.DAY), (60, 60), (10**9, pki.DAY)])
def test_lifetime_is_no_longer_than_what_is_granted(granted: int, expected: int) -> None:
    private = pki.key()
    root = pki.root_certificate(private)
    signer = LeafSigner(CAChain(pki.pem(root), pki.pem(root)), Issuer(root, private), ttl_seconds=pki.DAY)
    grant = Grant(Names(default=NameGrant(is_given=True, ttl_max_seconds=granted)), Names(), NO)
    leaf = signer.sign(LeafRequest(pki.csr_pem(), pki.POLICY, pki.serial(1), pki.NOW, grant))
    assert leaf.not_after - leaf.not_before == expected
    assert leaf.not_before <= pki.NOW < leaf.not_after
