"""Whatever text comes in: read back what was printed, or refuse with the one error that is declared."""

import base64
import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.builtin import state as builtin_state
from providers.builtin.state import BuiltinConfig
from providers.config import durations
from providers.errors import ConfigInvalid
from providers.pki import keys, spiffe, x509
from providers.pki.spiffe import SpiffeError, SpiffeId
from tests.property.providers.strategies import identities

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CONFIG_KEYS = [
    "LeafCertTTL",
    "IntermediateCertTTL",
    "RootCertTTL",
    "SkipValidate",
    "CSRMaxPerSecond",
    "CSRMaxConcurrent",
    "PrivateKeyType",
    "PrivateKeyBits",
    "PrivateKey",
    "RootCert",
    "DisableCrossSigning",
    "test_state",
]


@settings(deadline=None, max_examples=300)
@given(st.integers(durations.MIN_NS, durations.MAX_NS))
@example(0)
@example(durations.MIN_NS)
@example(durations.MAX_NS)
def test_printed_duration_is_read_back_to_a_float_error(ns: int) -> None:
    """Go reads the fraction as a floating-point number, so the last nanosecond may be lost, in Go as here."""
    assert abs(durations.parse_duration(durations.format_duration(ns)) - ns) <= 1


@settings(deadline=None, max_examples=500)
@given(st.text(st.sampled_from("0123456789.+-nuµmsh x"), max_size=30) | st.text(max_size=30))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        ns = durations.parse_duration(text)
    except ValueError as error:
        ns, refusal = 0, str(error)
    else:
        refusal = "time: "
    assert refusal.startswith("time: ")
    assert durations.MIN_NS <= ns <= durations.MAX_NS


@settings(deadline=None, max_examples=500)
@given(identities())
def test_printed_identity_is_read_back(identity: SpiffeId) -> None:
    uri = identity.uri
    assert uri.isascii()
    assert spiffe.parse(uri) == identity


@settings(deadline=None, max_examples=1000)
@given(
    st.text(max_size=60)
    | st.builds(lambda host, path: f"spiffe://{host}{path}", st.text(max_size=10), st.text(max_size=40))
    | st.builds(
        lambda parts: "spiffe://x.consul/" + "/".join(parts),
        st.lists(
            st.sampled_from(["ns", "dc", "svc", "ap", "agent", "client", "id", "%2F", "..", "a", ""]), max_size=10
        ),
    )
)
def test_any_text_is_an_identity_with_one_spelling_or_refused(text: str) -> None:
    try:
        identity = spiffe.parse(text)
    except SpiffeError:
        return
    assert spiffe.parse(identity.uri) == identity
    for segment in (identity.datacenter, identity.name, identity.namespace, identity.partition):
        assert segment.isprintable()
        assert segment not in (".", "..")


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(CONFIG_KEYS), JSON, max_size=6))
def test_any_configuration_is_taken_or_refused(raw: dict[str, object]) -> None:
    with contextlib.suppress(ConfigInvalid):
        BuiltinConfig.parse(raw)
    assert builtin_state.private_key_fits(raw)  # none of these texts is a key of another kind


@settings(deadline=None, max_examples=500)
@given(
    st.binary(max_size=200),
    st.sampled_from(["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "CERTIFICATE", "EC PARAMETERS", ""]),
    st.text(max_size=20),
)
def test_any_pem_is_read_or_refused(data: bytes, label: str, garbage: str) -> None:
    body = base64.encodebytes(data).decode()
    pem = f"-----BEGIN {label}-----\n{body}-----END {label}-----\n" if label else body
    for text in (pem, garbage + pem, pem + garbage, pem.replace("-", "", 1)):
        with contextlib.suppress(keys.KeyRefused):
            keys.load_pem(text)
        with contextlib.suppress(ValueError):
            x509.load_bundle(text)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_state_or_none(data: bytes) -> None:
    assert builtin_state.decode(data) is None
