"""No bytes that come in as a CSR may end otherwise than in a CheckedCSR or in CSRRejected.

Mutations of good CSRs run in a loop with a seed of its own, because they must be many; the seed is in the failure's
text. Hypothesis adds texts and names that are built up instead of torn down.
"""

import base64
import contextlib
import functools
import random
from collections import Counter
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.errors import CSRRejected
from providers.grants import EVERYTHING
from providers.pki.csr import CheckedCSR, check_csr, check_intermediate_csr
from tests.kit import pki

SEED = 20270115
MUTATIONS = 6000
NAMES = tuple(pki.alt_names([pki.WEB], ["web.example.com", "*.x.example"], ["10.0.0.1", "::1"]))


def _wrap(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def _judge(csr: str) -> CheckedCSR | str:
    """What the leaf rules say; the intermediate rules must only keep to their error as well."""
    with contextlib.suppress(CSRRejected):
        check_intermediate_csr(csr, pki.TRUST_DOMAIN)
    try:
        return check_csr(csr, pki.POLICY, EVERYTHING)
    except CSRRejected as error:
        return str(error)


def _originals() -> list[bytes]:
    requests = []
    for kind in pki.LEAF_KINDS:
        requests.append(pki.csr_of(pki.key(*kind), NAMES))
        requests.append(pki.csr_of(pki.key(*kind), pki.alt_names([pki.ROOT_URI]), subject="sec-1.consul"))
    return [csr.public_bytes(serialization.Encoding.DER) for csr in requests]


def _flip_bit(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set_byte(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0x84, 0xFF, dice.randrange(256)))


def _delete(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.choice((1, 2, 8, 40))]


def _insert(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    data[start:start] = dice.randbytes(dice.choice((1, 2, 8)))


def _repeat(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    data[start:start] = data[start : start + dice.randrange(1, 60)]


def _truncate(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


MUTATORS: list[Callable[[bytearray, random.Random], None]] = [
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_byte,
    _delete,
    _insert,
    _repeat,
    _truncate,
]


def test_mutated_csrs_are_judged_and_never_break_the_judge() -> None:
    dice = random.Random(SEED)  # a repeatable sequence is what is wanted
    originals = _originals()
    known_keys = {pki.spki(pki.key(*kind).public_key()) for kind in pki.LEAF_KINDS}
    outcomes: Counter[str] = Counter()
    for number in range(MUTATIONS):
        data = bytearray(dice.choice(originals))
        for _ in range(dice.choice((0, 1, 1, 1, 2, 4))):
            if data:
                dice.choice(MUTATORS)(data, dice)
        try:
            outcome = _judge(_wrap(bytes(data)))
        except BaseException as error:
            pytest.fail(f"seed {SEED}, case {number}, {bytes(data).hex()}: {error!r}")
        if isinstance(outcome, CheckedCSR):
            # The proof of possession covers all that counts: what passes is what was signed.
            assert pki.spki(outcome.key) in known_keys
            assert outcome.names == NAMES
        else:
            assert len(outcome) < 4000  # nobody wants a whole CSR in an error
        outcomes[outcome.split(":")[0] if isinstance(outcome, str) else "accepted"] += 1
    # The mutations reach behind the first door: the rules and the proof are all seen at work.
    assert outcomes["accepted"] > 100
    assert outcomes["malformed CSR"] > 100
    assert outcomes["CSR signature does not verify with the CSR's own public key"] > 100


@settings(deadline=None, max_examples=1000)
@given(
    st.text(max_size=300)
    | st.binary(max_size=300).map(_wrap)
    | st.binary(max_size=300).map(lambda b: b.decode("latin-1"))
)
def test_any_text_is_rejected(text: str) -> None:
    assert isinstance(_judge(text), str)


@functools.cache
def _rsa_csr() -> str:
    """RSA signatures have one length, so that Hypothesis finds the same positions in every run."""
    return pki.csr_pem(pki.key("rsa", 2048))


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_torn_pem_is_rejected_or_means_the_same(data: st.DataObject) -> None:
    good = _rsa_csr()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    patch = data.draw(st.text(max_size=10))
    torn = good[:start] + patch + good[end:]
    outcome = _judge(torn)
    if isinstance(outcome, CheckedCSR):
        assert outcome == check_csr(good, pki.POLICY, EVERYTHING)


GENERAL_NAMES = st.one_of(
    st.text(st.characters(codec="ascii"), max_size=300).map(x509.DNSName),
    st.text(st.characters(codec="ascii"), max_size=60).map(x509.UniformResourceIdentifier),
    st.text(st.characters(codec="ascii"), max_size=40).map(lambda path: x509.UniformResourceIdentifier(pki.WEB + path)),
    st.ip_addresses().map(x509.IPAddress),
    st.binary(max_size=20).map(
        lambda data: x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x04" + bytes([len(data)]) + data)
    ),
    st.just(x509.UniformResourceIdentifier(pki.WEB)),
    st.just(x509.RFC822Name("a@b.example")),
)


@settings(deadline=None, max_examples=800)
@given(st.lists(GENERAL_NAMES, min_size=1, max_size=6))
def test_any_list_of_names_is_judged(names: list[x509.GeneralName]) -> None:
    csr = pki.csr_of(pki.key(), names).public_bytes(serialization.Encoding.PEM).decode()
    outcome = _judge(csr)
    if isinstance(outcome, CheckedCSR):
        assert len([name for name in names if isinstance(name, x509.UniformResourceIdentifier)]) == 1
        assert outcome.spiffe_id.startswith(f"{pki.ROOT_URI}/")
        assert all(name.value.isprintable() for name in outcome.names if isinstance(name, x509.DNSName))
