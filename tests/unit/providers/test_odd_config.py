"""Whatever an operator gives as root and key: what is wrong with it is told in our own words."""

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from providers.builtin.provider import BuiltinProvider
from providers.errors import ConfigInvalid
from providers.pki.x509 import load_bundle, load_cert
from tests.kit import pki
from tests.kit.words import ODD_CONTENTS, assert_plain

KEY = pki.key_pem(pki.key())
ROOT = pki.pem(pki.root_certificate(pki.key()))
TEXTS = [
    *(content.decode("utf-8", "replace") for content in ODD_CONTENTS.values() if len(content) < 1 << 16),
    "\udcff",
    ROOT.replace("M", "é", 1),
    ROOT.replace("\n", "\0", 2),
    f"\ufeff{ROOT[:200]}",
    ROOT.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
    KEY,
]
NO_KEY = "must provide a private key when providing a root cert"  # Consul's text
VALUES: tuple[object, ...] = (None, True, -1, 1.5, [], {}, [ROOT], {"pem": ROOT})


def _refusal(config: dict[str, object]) -> str:
    """Empty when it is taken."""
    provider = BuiltinProvider()
    try:
        provider.configure(pki.settings(config))
        provider.prepare_root(pki.intent())
        provider.generate_root()
    except ConfigInvalid as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", TEXTS)
def test_odd_root_is_refused_by_name(text: str) -> None:
    refusal = _refusal({"PrivateKey": KEY, "RootCert": text})
    assert_plain(refusal)
    assert "RootCert" in refusal or not text.strip(), refusal


@pytest.mark.parametrize("text", TEXTS)
def test_odd_key_is_refused_by_name(text: str) -> None:
    refusal = _refusal({"PrivateKey": text, "RootCert": ROOT})
    assert_plain(refusal)
    assert "PrivateKey" in refusal or text == KEY or refusal == NO_KEY, refusal
    assert KEY.splitlines()[1] not in refusal


@pytest.mark.parametrize("key", ["PrivateKey", "RootCert", "PrivateKeyType", "PrivateKeyBits", "LeafCertTTL"])
@pytest.mark.parametrize("value", VALUES)
def test_value_of_another_type_is_refused_by_name(key: str, value: object) -> None:
    refusal = _refusal({"PrivateKey": KEY, "RootCert": ROOT, key: value})
    assert_plain(refusal)


@pytest.mark.parametrize("position", range(0, 700, 7))
def test_damaged_certificate_is_told_in_plain_words(position: int) -> None:
    der = bytearray(pki.load(ROOT).public_bytes(serialization.Encoding.DER))
    der[position % len(der)] ^= 0x41
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    for load in (load_cert, load_bundle):
        text = ""
        try:
            load(pem)
        except ValueError as error:
            text = str(error)
        assert_plain(text)
    assert_plain(_refusal({"PrivateKey": KEY, "RootCert": pem}))


def test_unknown_version_is_told() -> None:
    der = (
        pki.load(ROOT)
        .public_bytes(serialization.Encoding.DER)
        .replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12", 1)
    )
    with pytest.raises(ValueError, match="18 is not a valid X509 version: must be 2"):
        load_cert(f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n")


class PanicException(BaseException):
    """What a defect in the Rust part of `cryptography` looks like from here: same name, same base."""


@pytest.mark.parametrize("error", [PanicException("boom"), TypeError("x"), UnicodeError("x")])
def test_defect_of_the_library_is_no_certificate(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(_data: bytes) -> None:
        raise error

    monkeypatch.setattr(x509, "load_pem_x509_certificate", fail)
    with pytest.raises(ValueError, match="it is damaged, or no X"):
        load_cert(ROOT)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_being_stopped_is_no_fault_of_a_certificate(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stop(_data: bytes) -> None:
        raise error

    monkeypatch.setattr(x509, "load_pem_x509_certificate", stop)
    with pytest.raises(error):
        load_cert(ROOT)
