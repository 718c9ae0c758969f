"""What is wrong with a chain, in words, for every reason that a certificate can give the path builder."""

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from providers.errors import ChainInvalid
from providers.pki import verify
from providers.pki.path_words import why_no_path
from tests.kit import pki
from tests.kit.words import assert_plain

CA, LEAF = pki.key(number=1), pki.key()
Extensions = list[tuple[x509.ExtensionType, bool]]


def _ca(change: Callable[[Extensions], Extensions]) -> x509.Certificate:
    public = CA.public_key()
    return pki.certificate(public, CA, change(pki.ca_extensions(public, pki.key_id(public))), subject="root")


def _put(value: x509.ExtensionType, *, critical: bool) -> Callable[[Extensions], Extensions]:
    return lambda extensions: [*pki.without(extensions, type(value)), (value, critical)]


def _refusal(root: x509.Certificate, *, signer: pki.PrivateKey = CA, key: pki.PrivateKey = LEAF) -> str:
    extensions = pki.leaf_extensions(key.public_key(), pki.key_id(CA.public_key()))
    extensions.insert(0, (x509.SubjectAlternativeName(pki.alt_names([pki.WEB], ["web.example.com"])), True))
    leaf = pki.certificate(
        key.public_key(),
        signer,
        [extensions[0], *pki.without(extensions[1:], x509.SubjectAlternativeName)],
        not_after=pki.NOW + pki.DAY,
    )
    with pytest.raises(ChainInvalid) as caught:
        verify.verify_leaf(pki.pem(leaf), {"own": [pki.pem(root)]}, now=pki.NOW)
    return str(caught.value)


OTHER = pki.root_certificate(pki.key(number=2), "another")
PURPOSE = "the extended key usage of a certificate of the chain forbids TLS: must be absent, or allow clientAuth"


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (OTHER, "no trusted root has issued it, directly or through the CAs that come with it"),
        (
            _ca(_put(x509.BasicConstraints(ca=False, path_length=None), critical=True)),
            "a CA is none by its basic constraints: must be CA:TRUE",
        ),
        (
            _ca(_put(pki.key_usage(crl_sign=True), critical=True)),
            "a CA may not sign certificates: its key usage must have keyCertSign",
        ),
        (_ca(_put(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)), PURPOSE),
        (
            _ca(_put(x509.NameConstraints([x509.UniformResourceIdentifier("x.org")], None), critical=True)),
            "a CA has name constraints that a verifier does not understand",
        ),
        (
            _ca(_put(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=True)),
            "a certificate of the chain has a critical extension that is not known",
        ),
    ],
)
def test_reason_is_told_in_words(root: x509.Certificate, words: str) -> None:
    refusal = _refusal(root)
    assert refusal == f"trust store 'own': no valid path from a leaf to a trusted root: {words}"


@pytest.mark.parametrize(
    ("permitted", "excluded", "words"), [(["consul"], None, "permits consul"), (None, ["com"], "excludes com")]
)
def test_name_that_is_not_permitted_is_told(
    permitted: list[str] | None, excluded: list[str] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = [[x509.DNSName(name) for name in names] if names else None for names in (permitted, excluded)]
    root = _ca(_put(x509.NameConstraints(*lists), critical=True))
    assert _refusal(root).startswith("CSR SAN holds 'web.example.com', which not every trusted CA may vouch for: ")
    assert _refusal(root).endswith(words)
    monkeypatch.setattr(verify, "_path_in_parts", lambda *_: ())
    assert _refusal(root).endswith("a CA's name constraints do not permit one of its names")


def test_signature_and_key_are_told_apart() -> None:
    assert _refusal(_ca(lambda e: e), signer=pki.key(number=3)).endswith("a signature of the chain does not verify")


def test_weak_key_is_told() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    public = weak.public_key()
    root = pki.certificate(public, weak, pki.ca_extensions(public, pki.key_id(public)), subject="root")
    leaf = pki.certificate(
        LEAF.public_key(), weak, pki.leaf_extensions(LEAF.public_key(), pki.key_id(public)), algorithm=hashes.SHA256()
    )
    with pytest.raises(ChainInvalid) as caught:
        verify._find_path(leaf, [], [root], pki.NOW)
    assert str(caught.value).endswith("a key of the chain is too weak")


@pytest.mark.parametrize(
    "text",
    [
        "validation failed: candidates exhausted: new (encountered processing <Certificate(subject=<Name()>)>)",
        "validation failed: invalid extension: 2.5.29.99: Certificate is missing required extension",
        "",
    ],
)
def test_what_is_not_known_is_told_in_general_words(text: str) -> None:
    words = why_no_path(ValueError(text))
    assert words
    assert_plain(words)
    assert ("2.5.29.99" in words) is ("2.5.29.99" in text)
