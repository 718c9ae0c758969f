"""Certificates as logins: which proofs are taken, and for whom."""

import base64
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.access.methods.config import TlsConfig
from cluster.access.methods.refusal import LoginRefused
from cluster.access.methods.tls import MAX_PROOF, Trust, proved_by_proof
from cluster.access.methods.tls_proof import MAX_CERTIFICATE_BYTES, ProofRefused, login_proof
from cluster.access.methods.used_proofs import UsedProofs
from cluster.access.selector import Proved
from cluster.ca.chain_limits import MAX_CHAIN_BYTES
from providers.pki.spiffe import Kind
from providers.pki.verify import verify_leaf
from tests.kit import pki
from tests.kit.login_proofs import (
    GONE,
    LEAF_KEY,
    METHOD,
    ROOT,
    ROOT_KEY,
    THIEF,
    claims_of,
    header_of,
    leaf,
    proof_of,
    x5c,
)
from tests.kit.tokens import ALGORITHMS, b64, hmac_token, public_pem, signer

SERVICES = TlsConfig(frozenset({Kind.SERVICE}))
EVERYBODY = TlsConfig(frozenset({Kind.SERVICE, Kind.AGENT, Kind.MESH_GATEWAY, Kind.SERVER}))
TRUST = Trust(pki.TRUST_DOMAIN, (pki.pem(ROOT),))
WEB = Proved({"trust_domain": pki.TRUST_DOMAIN, "datacenter": "dc1", "kind": "service", "name": "web"})
AGENT = f"{pki.ROOT_URI}/agent/client/dc/dc1/id/web"
SERVER = f"{pki.ROOT_URI}/agent/server/dc/dc1"
GATEWAY = f"{pki.ROOT_URI}/gateway/mesh/dc/dc1"
ELSEWHERE = "22222222-2222-3333-4444-555555555555.consul"
THEIRS = pki.WEB.replace(pki.TRUST_DOMAIN, ELSEWHERE)


def proved(
    proof: str,
    *,
    config: TlsConfig = SERVICES,
    trust: Trust = TRUST,
    method: str = METHOD,
    used: UsedProofs | None = None,
    now: float = pki.NOW,
) -> Proved:
    return proved_by_proof(proof, method, config, trust, UsedProofs() if used is None else used, now)


def refusal(proof: str, **options: Any) -> str:
    with pytest.raises(LoginRefused) as caught:
        proved(proof, **options)
    assert str(caught.value) == "Permission denied"
    return caught.value.reason


# -- who gets in


def test_certificate_proves_its_identity() -> None:
    assert proved(proof_of()) == WEB
    assert proved(proof_of([leaf(AGENT)]), config=EVERYBODY).texts["kind"] == "agent"


@pytest.mark.parametrize(("kind", "bits"), pki.LEAF_KINDS)
def test_what_the_command_makes_is_taken(kind: str, bits: int) -> None:
    key = pki.key(kind, bits, 510)
    proof = login_proof([leaf(key=key, not_before=pki.NOW - 60), ROOT], key, METHOD, pki.NOW + 0.9)
    assert proved(proof) == WEB
    assert login_proof([leaf(key=key)], key, METHOD, pki.NOW) != login_proof([leaf(key=key)], key, METHOD, pki.NOW)
    for skew in (-60, 60):
        assert proved(proof, now=pki.NOW + skew) == WEB


def test_command_makes_none_that_would_be_refused() -> None:
    other, odd = pki.key("ec", 256, 511), ec.generate_private_key(ec.SECP256K1())
    for chain, key, why in (
        ([leaf()], other, "not that of the first certificate"),
        ([leaf()], "no key", "neither RSA nor EC"),
        ([leaf()] * 9, LEAF_KEY, "at most 8"),
        ([leaf(key=odd)], odd, "none that may"),
        ([leaf("https://a.example")], LEAF_KEY, "SPIFFE"),
        ([leaf(extensions=[])], LEAF_KEY, "0 URIs"),
    ):
        with pytest.raises(ProofRefused, match=why):
            login_proof(chain, key, METHOD, pki.NOW)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "EdDSA"])
def test_every_algorithm_that_fits_the_key_is_taken(algorithm: str) -> None:
    key = signer(algorithm, 512)
    assert isinstance(key, pki.PrivateKey)
    proof = proof_of([leaf(key=key)], key=key, header={"alg": algorithm}, signed_as=algorithm)
    assert proved(proof) == WEB


def below(
    parent_key: pki.PrivateKey, parent: x509.Certificate, number: int, uris: Sequence[str] = (pki.ROOT_URI,)
) -> tuple[pki.PrivateKey, x509.Certificate]:
    key = pki.key("ec", 256, number)
    extensions = pki.ca_extensions(key.public_key(), pki.ski(parent), uris=uris)
    return key, pki.certificate(
        key.public_key(), parent_key, extensions, subject=f"ca {number}", issuer_name=parent.subject
    )


def leaf_below(key: pki.PrivateKey, ca: x509.Certificate, uri: str = pki.WEB) -> x509.Certificate:
    extensions = pki.leaf_extensions(LEAF_KEY.public_key(), pki.ski(ca), uri)
    return pki.certificate(LEAF_KEY.public_key(), key, extensions, issuer_name=ca.subject)


def test_chain_goes_through_the_cas_that_come_with_it() -> None:
    first_key, first = below(ROOT_KEY, ROOT, 520)
    second_key, second = below(first_key, first, 521)
    end = leaf_below(second_key, second)
    assert proved(proof_of([end, second, first])) == WEB
    assert proved(proof_of([end, second, first, ROOT])) == WEB
    for chain in ([end], [end, second], [end, first], [end, first, second], [end, end, second]):
        assert "not trusted" in refusal(proof_of(chain))


# -- roots as of now


def test_root_counts_as_long_as_it_is_listed() -> None:
    new_key = pki.key("ec", 256, 530)
    new = pki.root_certificate(new_key, "new root", not_after=pki.NOW + 10 * pki.YEAR)
    both = Trust(pki.TRUST_DOMAIN, (pki.pem(new), pki.pem(ROOT)))
    after = Trust(pki.TRUST_DOMAIN, (pki.pem(new),))
    assert proved(proof_of(), trust=both) == WEB
    for chain in ([leaf()], [leaf(), ROOT]):
        assert "not trusted" in refusal(proof_of(chain), trust=after)
    # A link from the old root to the new one leads clients of the old one to new leaves, and not the other way round.
    link_extensions = pki.ca_extensions(new_key.public_key(), pki.ski(ROOT))
    link = pki.certificate(new_key.public_key(), ROOT_KEY, link_extensions, subject="new root")
    assert "not trusted" in refusal(proof_of([leaf(), link]), trust=after)
    assert "not trusted" in refusal(proof_of([leaf(), link, ROOT]), trust=after)
    assert proved(proof_of([leaf_below(new_key, new), link]), trust=after) == WEB


@pytest.mark.parametrize("trust", [Trust("", ()), Trust(pki.TRUST_DOMAIN, ()), Trust("", TRUST.root_pems)])
def test_nobody_logs_in_before_there_is_a_ca(trust: Trust) -> None:
    assert "no CA yet" in refusal(proof_of(), trust=trust)


# -- not before


def test_certificate_that_begins_before_the_moment_of_its_name_logs_in_no_more() -> None:
    begins = pki.NOW - 100
    chain = [leaf(not_before=begins)]

    def said(**moments: int) -> TlsConfig:
        return TlsConfig(SERVICES.kinds, tuple(moments.items()))

    for moments in ({"web": begins}, {"api": begins + 50, "we": begins + 50, "": begins + 50}, {"web": 0}):
        assert proved(proof_of(chain), config=said(**moments)) == WEB
    for moments in ({"web": begins + 1}, {"*": begins + 1}, {"*": 0, "web": begins + 1}, {"*": begins + 1, "web": 0}):
        assert "begins before NotBefore" in refusal(proof_of(chain), config=said(**moments))
    # In the future: nobody of that name logs in until then.
    assert "NotBefore[web]" in refusal(proof_of([leaf(not_before=pki.NOW)]), config=said(web=pki.NOW + 600))
    # Nor does an agent of that name: whom it is about is for the name to say.
    everybody = TlsConfig(EVERYBODY.kinds, (("web", pki.NOW),))
    assert "NotBefore[web]" in refusal(proof_of([leaf(AGENT, not_before=begins)]), config=everybody)
    assert proved(proof_of([leaf(GATEWAY, not_before=begins)]), config=everybody).texts["name"] == ""


# -- whose certificate


def root_without_a_name() -> tuple[x509.Certificate, Trust]:
    extensions = pki.ca_extensions(ROOT_KEY.public_key(), pki.key_id(ROOT_KEY.public_key()), uris=())
    root = pki.certificate(
        ROOT_KEY.public_key(), ROOT_KEY, extensions, subject="root", not_after=pki.NOW + 10 * pki.YEAR
    )
    return root, Trust(pki.TRUST_DOMAIN, (pki.pem(root),))


def test_certificate_of_another_trust_domain_is_refused() -> None:
    assert "not trusted" in refusal(proof_of([leaf(THEIRS)]))
    # By a root that says of no trust domain that it is for it: one that an operator brings to two clusters.
    _, anybodys = root_without_a_name()
    assert proved(proof_of(), trust=anybodys) == WEB
    assert "of the trust domain" in refusal(proof_of([leaf(THEIRS)]), trust=anybodys)
    aud = {"aud": f"spiffe://{ELSEWHERE}"}
    assert "of the trust domain" in refusal(proof_of([leaf(THEIRS)], claims=aud), trust=anybodys)
    thief_root = pki.root_certificate(THIEF)
    assert "not trusted" in refusal(proof_of([leaf_below(THIEF, thief_root), thief_root]))


@pytest.mark.parametrize("uri", [AGENT, SERVER, GATEWAY])
def test_only_kinds_of_the_method_log_in(uri: str) -> None:
    assert "not in the method's Kinds" in refusal(proof_of([leaf(uri)]))
    proved(proof_of([leaf(uri)]), config=EVERYBODY)


@pytest.mark.parametrize(
    "uri",
    [
        pki.ROOT_URI,
        "https://a.example",
        f"{pki.ROOT_URI}/ns/default/dc/dc1/svc/web/x",
        pki.WEB.replace("/ns/default", "/ns/other"),
        pki.WEB.replace("/ns/default", "/ap/other/ns/default"),
    ],
)
def test_identity_that_is_no_workloads_here_is_refused(uri: str) -> None:
    assert refusal(proof_of([leaf(uri)]), config=EVERYBODY)


def test_certificate_counts_while_it_is_valid() -> None:
    hour = 3600
    short = [leaf(not_before=pki.NOW - hour, not_after=pki.NOW + hour)]
    for now in (pki.NOW - hour, pki.NOW, pki.NOW + hour):
        assert proved(proof_of(short, claims={"iat": now, "exp": now + 60}), now=now) == WEB
    for now in (pki.NOW - hour - 1, pki.NOW + hour + 1, pki.NOW + pki.YEAR):
        assert refusal(proof_of(short, claims={"iat": now, "exp": now + 60}), now=now)


def test_two_identities_are_none() -> None:
    key_id = pki.key_id(ROOT_KEY.public_key())
    names = x509.SubjectAlternativeName(pki.alt_names(uris=[pki.WEB, pki.WEB.replace("web", "api")]))
    extensions = pki.without(pki.leaf_extensions(LEAF_KEY.public_key(), key_id), x509.SubjectAlternativeName)
    assert "not trusted" in refusal(proof_of([leaf(extensions=[*extensions, (names, True)])]))


def test_ca_is_no_workload() -> None:
    for uris in ([pki.ROOT_URI], [pki.WEB]):
        key, ca = below(ROOT_KEY, ROOT, 540, uris)
        assert "leaf is a CA" in refusal(proof_of([ca], key=key))
        assert "leaf is a CA" in refusal(proof_of([ca, leaf()], key=key))
        assert "not of the certificate's key" in refusal(proof_of([ca, leaf()]))
    assert "not trusted" in refusal(proof_of([ROOT], key=ROOT_KEY))


# -- whose signature


def test_certificate_is_no_proof_without_its_key() -> None:
    for header in ({}, {"alg": "ES384"}):
        assert refusal(proof_of(key=THIEF, header=header))
    assert "not of the certificate's key" in refusal(proof_of(key=THIEF))
    # Nor is the key of another certificate of the chain.
    mine = leaf(pki.WEB.replace("web", "mine"), THIEF)
    assert "not of the certificate's key" in refusal(proof_of([leaf(), mine], key=THIEF))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS256", "ES384", "RS256", "PS256", "EdDSA", "es256", 1, None, []]
)
def test_algorithm_is_the_keys_and_not_the_tokens(algorithm: object) -> None:
    assert "alg" in refusal(proof_of(header={"alg": algorithm}))


def test_public_key_is_no_secret() -> None:
    """An HMAC with what everybody has (RFC 8725 2.1), and no signature at all."""
    certificate = leaf()
    for secret in (
        public_pem(LEAF_KEY).encode(),
        pki.pem(certificate).encode(),
        certificate.public_bytes(Encoding.DER),
    ):
        forged = hmac_token(claims_of(), secret)
        top = b64(json.dumps(header_of([certificate], alg="HS256")).encode())
        _, payload, mac = forged.split(".")
        assert "alg" in refusal(f"{top}.{payload}.{mac}")
    for algorithm in ("none", "ES256"):
        top = b64(json.dumps(header_of([certificate], alg=algorithm)).encode())
        assert refusal(f"{top}.{b64(json.dumps(claims_of()).encode())}.")


def test_signature_is_two_numbers_and_no_der() -> None:
    signed = proof_of().rpartition(".")[0]
    assert isinstance(LEAF_KEY, ec.EllipticCurvePrivateKey)
    der = LEAF_KEY.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    assert "not of the certificate's key" in refusal(f"{signed}.{b64(der)}")
    assert "not of the certificate's key" in refusal(f"{signed}.{b64(bytes(64))}")


def test_signature_is_looked_at_before_the_chain_and_the_chain_before_the_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What costs most, and what says most, comes after what keeps strangers out."""
    seen: list[str] = []
    real = verify_leaf

    def verify(*args: Any, **options: Any) -> None:
        seen.append("chain")
        real(*args, **options)

    monkeypatch.setattr("cluster.access.methods.tls.verify_leaf", verify)
    wrong: dict[str, Any] = {"mth": "other", "iat": 0}
    assert "not of the certificate's key" in refusal(proof_of(key=THIEF, claims=wrong))
    assert seen == []
    assert "not trusted" in refusal(proof_of([leaf(THEIRS)], claims=wrong))
    assert "not in the method's Kinds" in refusal(proof_of([leaf(AGENT)], claims=wrong))
    assert "mth" in refusal(proof_of(claims=wrong))
    assert seen == ["chain"] * 3


# -- shape


@pytest.mark.parametrize(
    "header",
    [
        {"typ": GONE},
        {"typ": "JWT"},
        {"typ": "QUORUMCA-LOGIN+JWT"},
        {"typ": None},
        {"x5c": GONE},
        {"alg": GONE},
        {"jwk": {}},
        {"kid": "one"},
        {"crit": ["exp"]},
        {"b64": False},
        {"x5u": "https://evil.example"},
        {"x5t": "x"},
        {"cty": "JWT"},
    ],
)
def test_header_has_three_names_and_no_others(header: dict[str, Any]) -> None:
    assert refusal(proof_of(header=header))


CERTIFICATE = x5c([leaf()])[0]


def odd_certificate(key: Any) -> str:
    return x5c([leaf(key=key)])[0]


@pytest.mark.parametrize(
    "given",
    [
        None,
        CERTIFICATE,
        {},
        [],
        [CERTIFICATE] * 9,
        [None],
        [1],
        [[CERTIFICATE]],
        [""],
        ["A"],
        [CERTIFICATE, ""],
        [CERTIFICATE, None],
        [CERTIFICATE, "AAAA"],
        [" " + CERTIFICATE],
        [CERTIFICATE + "\n"],
        [CERTIFICATE[:64] + "\n" + CERTIFICATE[64:]],
        [CERTIFICATE.rstrip("=")] if CERTIFICATE.endswith("=") else [CERTIFICATE + "="],
        [CERTIFICATE + "===="],
        [pki.pem(leaf())],
        [base64.urlsafe_b64encode(b"\xff\xfe" * 300).decode()],
        [base64.b64encode(leaf().public_bytes(Encoding.DER) + b"\0").decode()],
        [base64.b64encode(leaf().public_bytes(Encoding.DER) * 2).decode()],
        [base64.b64encode(leaf().public_bytes(Encoding.DER)[:-1]).decode()],
        [base64.b64encode(bytes(MAX_CERTIFICATE_BYTES + 1)).decode()],
        ["é" + CERTIFICATE],
        ["\ud800"],
        [odd_certificate(ec.generate_private_key(ec.SECP256K1()))],
        [odd_certificate(pki.key("rsa", 1024, 1))],
        [CERTIFICATE, odd_certificate(pki.key("rsa", 1024, 1))],
    ],
)
def test_x5c_is_1_to_8_certificates_in_base64(given: object) -> None:
    assert "x5c" in refusal(proof_of(header={"x5c": given}))


def test_base64_of_a_certificate_has_one_text() -> None:
    padded = next(cert for cert in iter(leaf, None) if x5c([cert])[0].endswith("="))
    text = x5c([padded])[0]
    body = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + text[len(body) :]
    assert base64.b64decode(other) == base64.b64decode(text)
    assert proved(proof_of(header={"x5c": [text]})) == WEB
    assert "as it is written" in refusal(proof_of(header={"x5c": [other]}))


def twice(fields: dict[str, Any], name: str, value: object) -> bytes:
    return (json.dumps(fields)[:-1] + f', "{name}": {json.dumps(value)}}}').encode()


def test_name_that_is_given_twice_is_refused() -> None:
    for name, value in header_of([leaf()]).items():
        assert "given twice" in refusal(proof_of(header=twice(header_of([leaf()]), name, value)))
    for name, value in claims_of().items():
        assert "given twice" in refusal(proof_of(claims=twice(claims_of(), name, value)))


@pytest.mark.parametrize(
    "proof", ["", ".", "..", "...", "a.b.c", "a.b", "é.é.é", "\0", "x" * (MAX_PROOF + 1), "eyJ9.e30.AA"]
)
def test_what_is_no_token_is_refused(proof: str) -> None:
    assert refusal(proof)


def test_longest_chain_of_a_ca_here_has_room() -> None:
    for key in (LEAF_KEY, pki.key("rsa", 4096, 1)):
        der_bytes = MAX_CHAIN_BYTES * 3 // 4
        texts = [base64.b64encode(bytes(size)).decode() for size in [8192] * 2 + [(der_bytes - 16_384) // 5] * 5]
        assert "damaged" in refusal(proof_of(header={"x5c": texts}, claims={"jti": "A" * 128}, key=key))


def test_size_is_looked_at_first() -> None:
    assert "the token has" in refusal(proof_of(header={"x5c": ["A" * 40_000]}))
    assert "payload" in refusal(proof_of(claims={"jti": "A" * 5000}))
    assert "longer than" in refusal(proof_of(header={"x5c": [base64.b64encode(bytes(8200)).decode()]}))


# -- claims


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": f"spiffe://{ELSEWHERE}"}, "aud"),
        ({"aud": pki.TRUST_DOMAIN}, "aud"),
        ({"aud": f"spiffe://{pki.TRUST_DOMAIN}/"}, "aud"),
        ({"aud": f"spiffe://{pki.TRUST_DOMAIN.upper()}"}, "aud"),
        ({"aud": [f"spiffe://{pki.TRUST_DOMAIN}"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"mth": "other"}, "mth"),
        ({"mth": "Mesh"}, "mth"),
        ({"mth": ""}, "mth"),
        ({"mth": [METHOD]}, "mth"),
        ({"mth": None}, "mth"),
        ({"iat": pki.NOW - 61}, "iat"),
        ({"iat": pki.NOW + 61, "exp": pki.NOW + 120}, "iat"),
        ({"iat": 0}, "iat"),
        ({"iat": str(pki.NOW)}, "iat"),
        ({"iat": pki.NOW + 0.5}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": None}, "iat"),
        ({"iat": -1}, "iat"),
        ({"exp": pki.NOW}, "exp"),
        ({"exp": pki.NOW - 1}, "exp"),
        ({"iat": pki.NOW - 30, "exp": pki.NOW}, "expired"),
        ({"iat": pki.NOW - 30, "exp": pki.NOW - 1}, "expired"),
        ({"exp": pki.NOW + 301}, "exp"),
        ({"iat": pki.NOW - 60, "exp": pki.NOW + 241}, "exp"),
        ({"exp": 10**12}, "exp"),
        ({"exp": 10**30}, "exp"),
        ({"exp": float(pki.NOW + 60)}, "exp"),
        ({"exp": None}, "exp"),
        ({"jti": "A" * 21}, "jti"),
        ({"jti": "A" * 129}, "jti"),
        ({"jti": "A" * 21 + "."}, "jti"),
        ({"jti": "A" * 22 + "\n"}, "jti"),
        ({"jti": 1 << 90}, "jti"),
        ({"jti": None}, "jti"),
        ({"nbf": pki.NOW}, "nothing else"),
        ({"sub": pki.WEB}, "nothing else"),
        *(({name: GONE}, "must have") for name in claims_of()),
    ],
)
def test_claims_that_are_not_for_this_login_are_refused(claims: dict[str, Any], why: str) -> None:
    used = UsedProofs()
    assert why in refusal(proof_of(claims=claims), used=used)
    assert len(used) == 0


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": pki.NOW - 60, "exp": pki.NOW + 240},
        {"iat": pki.NOW + 60, "exp": pki.NOW + 360},
        {"exp": pki.NOW + 1},
        {"jti": "A" * 22},
        {"jti": "-_" * 64},
    ],
)
def test_claims_at_their_bounds_are_taken(claims: dict[str, Any]) -> None:
    assert proved(proof_of(claims=claims)) == WEB


# -- once


def test_proof_logs_in_once() -> None:
    used = UsedProofs()
    proof = proof_of()
    assert proved(proof, used=used) == WEB
    for now in (pki.NOW, pki.NOW + 1, pki.NOW + 59):
        assert "used before" in refusal(proof, used=used, now=now)
    assert "expired" in refusal(proof_of(claims={"iat": pki.NOW, "exp": pki.NOW + 50}), used=used, now=pki.NOW + 50)
    # Signed anew, and with the other of the two signatures that ECDSA has for each.
    assert "used before" in refusal(proof_of(), used=used)
    signed, _, signature = proof.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    assert proved(f"{signed}.{b64(other)}") == WEB
    assert "used before" in refusal(f"{signed}.{b64(other)}", used=used)
    assert proved(proof_of(claims={"jti": "B" * 22}), used=used) == WEB


def test_refused_proof_is_not_used_up() -> None:
    used = UsedProofs()
    proof = proof_of([leaf(AGENT)])
    assert refusal(proof, used=used)
    proved(proof, used=used, config=EVERYBODY)


def test_what_one_key_has_used_keeps_no_other_one_out() -> None:
    used, key = UsedProofs(), pki.key("ec", 256, 550)
    proved(proof_of([leaf(key=THIEF)], key=THIEF), used=used)
    proved(proof_of([leaf(key=key)], key=key), used=used)
    assert "used before" in refusal(proof_of([leaf(key=key)], key=key), used=used)


def uses(used: UsedProofs, key: bytes, jti: str, ends: int, now: float) -> str:
    try:
        used.use(key, jti, ends, now)
    except LoginRefused as refused:
        return refused.reason
    return ""


def test_table_has_bounds_and_is_freed_as_proofs_end() -> None:
    used = UsedProofs(most=4, most_of_a_key=2)
    for key, jti in ((b"a", "1"), (b"a", "2"), (b"b", "1"), (b"c", "1")):
        assert uses(used, key, jti, 100 + int(jti), 0) == ""
    assert "4 proofs are remembered" in uses(used, b"d", "1", 101, 0)
    assert len(used) == 4
    assert uses(used, b"d", "1", 200, 101) == ""
    assert len(used) == 2
    assert uses(used, b"a", "3", 200, 101) == ""
    assert "2 proofs of this key" in uses(used, b"a", "4", 200, 101)
    assert uses(used, b"b", "4", 200, 101) == ""
    assert "used before" in uses(used, b"a", "2", 102, 101.9)
    assert len(used) == 4


def test_clock_that_is_set_back_makes_no_proof_good_again() -> None:
    used = UsedProofs()
    assert uses(used, b"a", "1", 200, 0) == ""
    assert uses(used, b"a", "2", 10_000, 9_900) == ""  # the clock is ahead, and the first is forgotten
    assert "forgotten" in uses(used, b"a", "1", 200, 0)
    assert uses(used, b"a", "3", 201, 0) == ""


def test_remembered_are_those_that_are_used_and_have_not_ended() -> None:
    rng = random.Random(14)
    used, now = UsedProofs(most=50, most_of_a_key=20), 0.0
    good: dict[tuple[bytes, str], int] = {}
    for _ in range(5000):
        now += rng.random() * 4
        good = {which: end for which, end in good.items() if end > now}
        key, jti = rng.choice((b"a", b"b", b"c")), str(rng.randrange(300))
        ends = int(now) + rng.randrange(2, 300)
        is_good = (key, jti) not in good and len(good) < 50 and sum(of == key for of, _ in good) < 20
        assert (uses(used, key, jti, ends, now) == "") is is_good
        if is_good:
            good[key, jti] = ends
        assert len(used) == len(good)


# -- whatever comes


def test_no_changed_character_is_taken() -> None:
    rng = random.Random(14)
    first_key, first = below(ROOT_KEY, ROOT, 520)
    proof = proof_of([leaf_below(first_key, first), first])
    assert proved(proof) == WEB
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for position, sign in enumerate(proof):
        other = rng.choice([other for other in alphabet + "." if other != sign])
        assert refusal(f"{proof[:position]}{other}{proof[position + 1 :]}"), position
    for position in range(0, len(proof), 7):
        assert refusal(proof[:position]), position
        assert refusal(proof[:position] + rng.choice(alphabet) + proof[position:]), position


def test_no_changed_bit_of_a_signed_part_is_taken_whoever_signs_it() -> None:
    """A thief with a key signs what somebody else's proof says, changed in one place."""
    rng = random.Random(15)
    der = leaf().public_bytes(Encoding.DER)
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 1 << rng.randrange(8)
        header = {"x5c": [base64.b64encode(bytes(changed)).decode()]}
        assert refusal(proof_of(header=header, key=rng.choice([LEAF_KEY, THIEF]))), position


def test_certificates_of_any_bytes_raise_nothing_but_refusals() -> None:
    rng = random.Random(16)
    mine = leaf(key=THIEF).public_bytes(Encoding.DER)
    root = ROOT.public_bytes(Encoding.DER)
    for _ in range(600):
        changed = bytearray(rng.choice([mine, root]))
        for _ in range(rng.randrange(1, 4)):
            match rng.randrange(3):
                case 0:
                    changed[rng.randrange(len(changed))] = rng.randrange(256)
                case 1:
                    del changed[rng.randrange(len(changed))]
                case 2:
                    changed.insert(rng.randrange(len(changed)), rng.randrange(256))
        text = base64.b64encode(bytes(changed)).decode()
        given = rng.choice([[text], [x5c([leaf(key=THIEF)])[0], text]])
        try:
            proved(proof_of(header={"x5c": given}, key=THIEF))
        except LoginRefused:
            continue
        assert len(given) == 2 or bytes(changed) == mine


WILD: list[object] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**40,
    "",
    "\0",
    "\ud800",
    "x" * 300,
    [],
    [[]],
    {},
    {"a": []},
    [None],
    {"": 1},
]


def test_values_of_any_type_raise_nothing_but_refusals() -> None:
    for value in WILD:
        for name in header_of([leaf()]):
            assert refusal(proof_of(header={name: value})), (name, value)
        for name in claims_of():
            assert refusal(proof_of(claims={name: value})), (name, value)
    for whole in (b"", b"{}", b"[]", b"null", b"\xff", b"1", b'"x"', b"[" * 5000, b"{" * 5000):
        assert refusal(proof_of(header=whole))
        assert refusal(proof_of(claims=whole))
