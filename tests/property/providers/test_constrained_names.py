"""Names below constrained CAs: whatever passes the rules of names is signed, so that other verifiers take it, or
refused by its name. No CSR makes the CA fail.
"""

import functools
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.api import CAChain, CSRPolicy, IssuedLeaf
from providers.errors import ChainInvalid, CSRRejected
from providers.pki import verify
from providers.pki.constraints import limits_of, refusal
from providers.pki.leaf import LeafSigner
from providers.pki.x509 import Issuer
from tests.kit import pki
from tests.kit.pki import needs_openssl

Extensions = list[tuple[x509.ExtensionType, bool]]

#: What roots say: permitted and excluded.
CONSTRAINTS: Final[dict[str, tuple[list[str] | None, list[str] | None]]] = {
    "permits": (["example.com", "example.net"], None),
    "excludes": (None, ["x.example.com"]),
    "both": (["example.com"], ["x.example.com", "y_z.example.com"]),
    "odd": (["_odd.example.com"], None),
}
UNDERSCORES: Final = (
    *("a_b.example.com", "_srv.example.com", "*.a_b.example.com", "a-_b.example.com", "a_-b.example.com"),
    *("_.example.com", "_sip._tcp.example.com", "A_B.EXAMPLE.com"),
)
LABELS: Final = st.one_of(
    st.sampled_from(["example", "com", "x", "y_z", "_odd", "_tcp", "a-_b", "xn--p1ai", "a--b", "1"]),
    st.from_regex(r"\A[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,5}[A-Za-z0-9_])?\Z"),
)
NAMES: Final = st.builds(
    lambda star, labels, end: "*." * star + ".".join([*labels, end]),
    st.booleans(),
    st.lists(LABELS, min_size=1, max_size=4),
    st.sampled_from(["example.com", "x.example.com", "example.net", "com", "example.org", "_odd.example.com"]),
)


@functools.cache
def ca(kind: str, *, is_below: bool) -> tuple[LeafSigner, x509.Certificate]:
    """A constrained root that signs, or one whose intermediate does."""
    permitted, excluded = ([x509.DNSName(name) for name in names or ()] or None for names in CONSTRAINTS[kind])
    private, own = pki.key(number=501), pki.key(number=502)
    public, below = private.public_key(), own.public_key()
    said = (x509.NameConstraints(permitted, excluded), True)
    root = pki.certificate(
        public, private, [*pki.ca_extensions(public, pki.key_id(public)), said], subject="root", issuer="root"
    )
    if not is_below:
        return LeafSigner(CAChain(pki.pem(root), pki.pem(root)), Issuer(root, private), ttl_seconds=pki.DAY), root
    middle = pki.certificate(below, private, pki.ca_extensions(below, pki.key_id(public)), subject="i", issuer="root")
    chain = CAChain(pki.pem(root), pki.pem(middle), (pki.pem(middle),))
    return LeafSigner(chain, Issuer(middle, own), ttl_seconds=pki.DAY), root


def signed(signer: LeafSigner, root: x509.Certificate, names: list[str], *, is_asked: bool) -> IssuedLeaf:
    """As the leader has it signed, which asks all CAs first, or as after a change that it does not know of yet."""
    policy = CSRPolicy(pki.POLICY.trust_domain, pki.POLICY.datacenter, limits=limits_of([root]) if is_asked else ())
    return signer.sign(pki.leaf_request(pki.csr_pem(dns=names), policy=policy))


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(list(CONSTRAINTS)),
    names=st.lists(NAMES, min_size=1, max_size=3, unique=True),
    is_below=st.booleans(),
    is_asked=st.booleans(),
)
@example("permits", ["a_b.example.com"], False, True)
@example("both", ["w.y_z.example.com"], True, False)
@example("odd", ["web.example.org"], False, False)
@example("odd", ["web._odd.example.com"], False, True)
def test_name_below_a_constrained_ca_is_signed_or_refused_by_its_name(
    kind: str, names: list[str], is_below: bool, is_asked: bool
) -> None:
    signer, root = ca(kind, is_below=is_below)
    try:
        leaf = signed(signer, root, names, is_asked=is_asked)
    except CSRRejected as rejected:
        text = str(rejected)
    else:
        text = refusal([x509.DNSName(name) for name in names], limits_of([root]))
        assert leaf.kind == "service"
        assert text == ""
        return
    assert any(name in text for name in names)


@needs_openssl
@pytest.mark.parametrize("is_below", [False, True])
@pytest.mark.parametrize("name", UNDERSCORES)
def test_permitted_name_with_an_underscore_is_signed_and_openssl_takes_it(
    tmp_path: Path, name: str, is_below: bool
) -> None:
    signer, root = ca("permits", is_below=is_below)
    leaf = signed(signer, root, [name, "web.example.net"], is_asked=True)
    chain_pem = leaf.cert_pem + "".join(signer._chain.intermediate_pems)
    pki.openssl_verify(tmp_path, chain_pem, [pki.pem(root)], now=pki.NOW)


def test_underscore_hides_nothing_else_that_is_wrong_with_a_leaf() -> None:
    """The leaf is verified as strictly as any other, but for what constraints say of its names."""
    _, root = ca("both", is_below=False)
    private = pki.key(number=501)
    public = pki.key().public_key()
    good = pki.leaf_extensions(public, pki.key_id(private.public_key()))
    named = _with_name(good, "a_b.example.com")
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    another = x509.AuthorityKeyIdentifier(b"another", None, None)

    def leaf(extensions: Extensions, **changes: int) -> x509.Certificate:
        return pki.certificate(public, private, extensions, issuer="root", **changes)  # type: ignore[arg-type]

    verify.verify_leaf(pki.pem(leaf(named)), {"root": [pki.pem(root)]}, now=pki.NOW)
    wrong = {
        "ended": leaf(named, not_after=pki.NOW - 1),
        "a critical extension that nobody knows": leaf([*named, (unknown, True)]),
        "another issuer": leaf([*pki.without(named, x509.AuthorityKeyIdentifier), (another, False)]),
        "a name that is excluded": leaf(_with_name(good, "a_b.x.example.com")),
    }
    for made in wrong.values():
        with pytest.raises(ChainInvalid):
            verify.verify_leaf(pki.pem(made), {"root": [pki.pem(root)]}, now=pki.NOW)
    for kind in ("ended", "a critical extension that nobody knows"):
        assert verify._path_in_parts(wrong[kind], [], [root], pki.NOW) == (), kind


def _with_name(extensions: Extensions, name: str) -> Extensions:
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.UniformResourceIdentifier(pki.WEB)])
    return [*pki.without(extensions, x509.SubjectAlternativeName), (names, True)]
