"""Hypothesis strategies for names and identities, kept small so that many examples run in little time."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from providers.pki.spiffe import Kind, SpiffeId
from tests.kit import pki

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
# Such as leaves may carry (providers/pki/hosts.py); below "example", whatever ends the name, somebody has a domain.
DNS_NAMES = st.builds(
    lambda wild, labels, last: ("*.web.example." if wild else "") + ".".join([*labels, last]),
    st.booleans(),
    st.lists(LABEL, max_size=5),
    st.from_regex(r"[a-z_]([a-z0-9_-]{0,20}[a-z_])?", fullmatch=True),
)


def _is_of_one_host(address: IPv4Address | IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    return not (mapped.is_multicast or mapped.is_unspecified or str(mapped) == "255.255.255.255")


ADDRESSES = st.ip_addresses().filter(_is_of_one_host)
# Any printable name but the dot segments, also such that need escapes.
NAMES = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"]).filter(str.isprintable), min_size=1, max_size=40
).filter(lambda text: text not in (".", ".."))


# What certificates are issued for (providers/pki/spiffe.py, `check_issuable`).
ISSUED_NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True).filter(lambda text: text not in (".", ".."))


@st.composite
def issued_identities(draw: st.DrawFn) -> SpiffeId:
    kind = draw(st.sampled_from([Kind.SERVICE, Kind.AGENT, Kind.MESH_GATEWAY]))
    return SpiffeId(
        kind,
        pki.TRUST_DOMAIN,
        datacenter=draw(LABEL),
        name="" if kind is Kind.MESH_GATEWAY else draw(ISSUED_NAMES),
    )


@st.composite
def identities(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMES) -> SpiffeId:
    kind = draw(st.sampled_from([kind for kind in Kind if kind is not Kind.SIGNING]))
    return SpiffeId(
        kind,
        pki.TRUST_DOMAIN,
        datacenter=draw(names),
        name=draw(names) if kind in (Kind.SERVICE, Kind.AGENT) else "",
        namespace=draw(names) if kind is Kind.SERVICE else "default",
        partition="default" if kind is Kind.SERVER else draw(st.one_of(st.just("default"), names)),
    )
