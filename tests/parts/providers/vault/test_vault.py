"""The provider against a Vault in memory: what it asks for, crashes at any point, answers not to be trusted."""

import gc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import FunctionType, ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from providers.api import CAChain, CrossSignRequest, IntermediateRequest, IssuedLeaf
from providers.errors import (
    ChainInvalid,
    ConfigInvalid,
    CSRRejected,
    Malformed,
    ProviderUnavailable,
    RateLimited,
    SigningKeyGone,
)
from providers.pki import verify
from providers.vault import roles as vault_roles
from providers.vault.client import OPERATION_SECONDS
from providers.vault.config import VaultConfig
from providers.vault.provider import VaultProvider
from providers.vault.transport import Answer, TransportFailure
from tests.kit import pki
from tests.kit.clock import FakeClock
from tests.kit.fake_vault import TOKEN, Crash, FakeVault, Mount, common_name, data, failure
from tests.parts.providers.vault.conftest import Caller

OTHER_URI = "spiffe://99999999-2222-3333-4444-555555555555.consul"


# --- what is asked of Vault ---------------------------------------------------------------------------------------


def test_mounts_root_and_intermediate_are_made_with_consuls_calls(caller: Caller) -> None:
    caller.primary(RootCertTTL="90000h")
    mounts, sent = caller.vault.mounts, dict(zip(caller.vault.calls, caller.vault.sent, strict=True))
    assert mounts["root"].description == "root CA backend for Consul Connect"
    assert mounts["int"].description == "intermediate CA backend for Consul Connect"
    ttl = {"max_lease_ttl": "324000000s", "default_lease_ttl": "324000000s"}
    assert sent["post sys/mounts/root"]["config"] == ttl
    assert sent["post sys/mounts/int"]["config"] == {"max_lease_ttl": "31536000s"}
    assert sent["put root/root/generate/internal"]["common_name"] == "pri-uid00001.vault.ca.11111111.consul"
    assert sent["put int/config/auto-tidy"] == {"enabled": True, "tidy_expired_issuers": True}
    signed = sent["put root/root/sign-intermediate"]
    assert signed["use_csr_values"] is False
    assert signed["uri_sans"] == [pki.ROOT_URI]
    assert signed["max_path_length"] == 0


def test_leaves_are_signed_by_issuer_id_and_not_stored(modern: Caller) -> None:
    provider, _ = modern.primary()
    provider.sign_leaf(modern.request())
    mount = modern.vault.mounts["int"]
    assert modern.vault.calls[-1] == f"put int/issuer/{mount.default}/sign/leaf-cert"
    role = mount.roles["leaf-cert"]
    assert role["no_store"] is True
    assert role["max_ttl"] == 72 * 3600
    assert role["allowed_uri_sans"] == [f"{pki.ROOT_URI}/*"]
    assert not role["use_csr_sans"]
    assert not role["use_csr_common_name"]


def test_before_issuers_the_only_ca_of_the_mount_signs(new_caller: Callable[[FakeVault], Caller]) -> None:
    caller = new_caller(FakeVault(is_legacy=True))
    provider, chain = caller.primary()
    leaf = provider.sign_leaf(caller.request())
    assert caller.vault.calls[-1] == "put int/sign/leaf-cert"
    assert caller.vault.sent[-1]["ttl"] == f"{72 * 3600 - 60}s"
    served = leaf.cert_pem + "".join(chain.intermediate_pems)
    verify.verify_leaf(served, {"own": [chain.root_pem]}, now=caller.now, spiffe_id=pki.WEB)


def test_rsa_leaf_gets_the_key_usage_that_it_needs(caller: Caller) -> None:
    provider, _ = caller.primary()
    private = pki.key("rsa", 2048)
    leaf = provider.sign_leaf(caller.request(pki.csr_pem(private)))
    usage = pki.load(leaf.cert_pem).extensions.get_extension_for_class(type(pki.key_usage())).value
    assert usage.digital_signature
    assert usage.key_encipherment
    assert caller.vault.calls[-1].endswith("/leaf-cert-rsa")


def test_role_is_written_once_and_again_when_it_is_lost_or_changed(caller: Caller) -> None:
    provider, _ = caller.primary()
    for _ in range(3):
        provider.sign_leaf(caller.request())
    assert caller.vault.calls.count("put int/roles/leaf-cert") == 1
    caller.vault.mounts["int"].roles.clear()
    provider.sign_leaf(caller.request())
    assert caller.vault.calls.count("put int/roles/leaf-cert") == 2
    caller.provider().sign_leaf(caller.request())
    assert caller.vault.calls.count("put int/roles/leaf-cert") == 2
    caller.provider(LeafCertTTL="24h").sign_leaf(caller.request())
    assert caller.vault.mounts["int"].roles["leaf-cert"]["max_ttl"] == 24 * 3600


def test_namespaces_of_root_and_intermediate_differ(modern: Caller) -> None:
    provider, _ = modern.primary(Namespace="team", RootPKINamespace="pki")
    provider.sign_leaf(modern.request())
    assert set(modern.vault.mounts) == {"pki:root", "team:int"}
    assert "get team:auth/token/lookup-self" in modern.vault.calls


def test_root_of_an_operator_is_adopted_and_never_removed(caller: Caller) -> None:
    theirs = caller.vault.mount_root("root")
    provider, chain = caller.primary()
    assert chain.root_pem == pki.pem(theirs.issuers["top"][1])
    verify.verify_ca(chain, trust_domain=pki.TRUST_DOMAIN, now=caller.now)
    provider.cleanup()
    assert set(caller.vault.mounts) == {"root"}


def test_trust_anchor_above_the_mounted_ca_is_what_clients_trust(modern: Caller) -> None:
    theirs = modern.vault.mount_root("root", is_below=True)
    provider, chain = modern.primary()
    below, top = (pki.pem(theirs.issuers[name][1]) for name in ("below", "top"))
    assert chain == CAChain(top, chain.signing_cert_pem, (chain.signing_cert_pem, below))
    leaf = provider.sign_leaf(modern.request())
    served = leaf.cert_pem + "".join(chain.intermediate_pems)
    verify.verify_leaf(served, {"anchor": [top]}, now=modern.now, spiffe_id=pki.WEB)

    csr = pki.csr_pem(pki.key(number=9), uri=pki.ROOT_URI)
    answer = provider.sign_intermediate(IntermediateRequest(csr, pki.serial(1), modern.now))
    assert answer.endswith(below)
    other = pki.pem(pki.root_certificate(pki.key(number=8), name="other", not_before=modern.now))
    cross = provider.cross_sign(CrossSignRequest(other, pki.serial(7), modern.now, modern.now + pki.DAY))
    assert cross.endswith(below)
    assert pki.load(cross).serial_number == pki.serial(7)
    assert pki.times(pki.load(cross))[1] == modern.now + pki.DAY


@pytest.mark.parametrize(
    ("arrange", "text"),
    [
        (lambda vault: vault.mount_root("root", uris=(OTHER_URI,)), f"belongs to {OTHER_URI}, this cluster is"),
        (
            lambda vault: vault.mount_root("root", is_below=True).issuers.pop("top"),
            "import the chain up to a self",
        ),
    ],
    ids=["foreign", "unrooted"],
)
def test_unusable_root_is_refused_before_anything_is_committed(
    modern: Caller, arrange: Callable[[FakeVault], object], text: str
) -> None:
    arrange(modern.vault)
    provider = modern.provider()
    with pytest.raises(ConfigInvalid, match=text):
        provider.prepare_root(pki.intent())
    assert not [call for call in modern.vault.calls if call.startswith(("post", "put"))]


# --- one intermediate for each need -------------------------------------------------------------------------------


def test_crash_at_any_call_leads_to_the_same_ca_and_one_intermediate(
    vault: FakeVault, new_caller: Callable[[FakeVault], Caller]
) -> None:
    """Whoever goes on has the state of before: as if the process had died before, and after, each call."""
    clean = new_caller(FakeVault(is_legacy=vault.is_legacy))
    clean.primary()
    calls = len(clean.vault.calls)
    for number in range(calls):
        for is_after in (False, True):
            caller = new_caller(FakeVault(is_legacy=vault.is_legacy))
            caller.vault.crash_at, caller.vault.is_crash_after = number, is_after
            with pytest.raises(Crash):
                caller.primary()
            provider, chain = caller.primary()
            assert len(caller.vault.mounts["root"].issuers) == len(caller.vault.mounts["int"].issuers) == 1
            assert len(caller.vault.mounts["int"].keys) == 1
            provider.sign_leaf(caller.request())
            verify.verify_ca(chain, trust_domain=pki.TRUST_DOMAIN, now=caller.now)


def test_mount_that_somebody_else_has_just_made_is_used(caller: Caller) -> None:
    taken = failure(400, "path is already in use at int/")
    caller.vault.replace["sys/mounts/int"] = lambda answer: taken if answer.status == 204 else answer
    provider, _ = caller.primary()
    provider.sign_leaf(caller.request())


def test_elections_make_no_intermediates(caller: Caller) -> None:
    _, chain = caller.primary()
    for _ in range(3):
        provider = caller.provider()
        assert provider.generate_root() == (chain, caller.state)
        provider.sign_leaf(caller.request())
    assert len(caller.vault.mounts["int"].issuers) == 1


def test_crash_at_any_call_of_a_renewal_makes_one_new_intermediate(new_caller: Callable[[FakeVault], Caller]) -> None:
    clean = new_caller(FakeVault())
    provider, _ = clean.primary()
    before = len(clean.vault.calls)
    provider.renew_signing_cert()
    for number in range(before, len(clean.vault.calls)):
        caller = new_caller(FakeVault())
        provider, _ = caller.primary()
        caller.vault.crash_at, caller.vault.is_crash_after = number, True
        with pytest.raises(Crash):
            provider.renew_signing_cert()
        chain, state = caller.provider().renew_signing_cert()
        assert (chain, state) == caller.provider().renew_signing_cert()
        assert len(caller.vault.mounts["int"].issuers) == 2


def test_superseded_intermediate_goes_a_while_after_the_new_one_came_into_use(modern: Caller) -> None:
    provider, old = modern.primary()
    new, modern.state = provider.renew_signing_cert()
    mount = modern.vault.mounts["int"]
    renewed = modern.provider()
    renewed._look_after()
    assert len(mount.issuers) == len(mount.keys) == 2
    provider.sign_leaf(modern.request())  # another process, that has not been told yet
    modern.clock.advance(61)
    renewed._look_after()
    assert [pki.pem(cert) for _, cert in mount.issuers.values()] == [new.signing_cert_pem] != [old.signing_cert_pem]
    assert len(mount.keys) == 1
    renewed.sign_leaf(modern.request())


def test_next_renewal_removes_what_is_still_there(modern: Caller) -> None:
    for _ in range(4):
        provider = modern.provider() if modern.state else modern.primary()[0]
        _, modern.state = provider.renew_signing_cert()
    assert len(modern.vault.mounts["int"].issuers) == 2


def test_what_cannot_be_removed_is_said_and_does_not_stop_a_renewal(modern: Caller) -> None:
    provider, _ = modern.primary()
    modern.vault.denied = {"delete int/"}
    for count in (2, 3):
        _, modern.state = provider.renew_signing_cert()
        provider = modern.provider()
        assert len(modern.vault.mounts["int"].issuers) == count
        modern.clock.advance(61)
        provider._look_after()
    with pytest.raises(ProviderUnavailable, match="does not let us remove what is not needed any more: issuer-"):
        provider.cleanup()
    modern.vault.denied = set()
    modern.clock.advance(61)
    provider._look_after()
    assert len(modern.vault.mounts["int"].issuers) == len(modern.vault.mounts["int"].keys) == 1
    provider.cleanup()
    assert set(modern.vault.mounts) == {"root"}


def test_two_cas_share_a_mount_for_intermediates(modern: Caller) -> None:
    """A rotation to another root: both sign until the old one is cleaned up, and the mount outlives that."""
    old, _ = modern.primary()
    old_state, modern.state = modern.state, b""
    new, chain = modern.primary(RootPKIPath="root2")
    assert old.sign_leaf(modern.request()).issuer_key_id != new.sign_leaf(modern.request()).issuer_key_id
    modern.state = old_state
    modern.provider().cleanup()
    new.sign_leaf(modern.request())
    assert [pki.pem(cert) for _, cert in modern.vault.mounts["int"].issuers.values()] == [chain.signing_cert_pem]
    new.cleanup()
    new.cleanup()
    assert set(modern.vault.mounts) == {"root", "root2"}


def test_other_path_or_kind_for_intermediates_counts_from_the_next_on(modern: Caller) -> None:
    _, chain = modern.primary()
    provider = modern.provider(IntermediatePKIPath="int2", PrivateKeyBits=384)
    assert provider.chain() == chain
    provider.sign_leaf(modern.request())
    renewed, modern.state = provider.renew_signing_cert()
    assert pki.load(renewed.signing_cert_pem).public_key().key_size == 384  # type: ignore[union-attr]
    assert len(modern.vault.mounts["int2"].issuers) == 1
    assert renewed.root_pem == chain.root_pem


def test_mount_that_an_operator_has_made_stays(modern: Caller) -> None:
    mount = modern.vault.mounts["int"] = Mount("theirs")
    provider, _ = modern.primary()
    provider.cleanup()
    assert modern.vault.mounts["int"] is mount
    assert not mount.keys


def test_kind_that_was_asked_for_cannot_be_changed_without_another_root(modern: Caller) -> None:
    modern.primary(PrivateKeyBits=384)
    with pytest.raises(ConfigInvalid, match="cannot update the PrivateKeyBits field without changing RootPKIPath"):
        modern.provider(PrivateKeyBits=256)
    assert modern.provider(PrivateKeyBits=256, RootPKIPath="elsewhere").chain() is None


# --- secondary ----------------------------------------------------------------------------------------------------


def test_secondary_that_dies_with_a_request_uses_the_key_that_it_left(modern: Caller) -> None:
    modern.provider(is_primary=False).generate_intermediate_csr()
    provider = modern.provider(is_primary=False)  # nothing had been committed
    provider.generate_intermediate_csr()
    assert len(modern.vault.mounts["int"].keys) == 1


def test_secondary_that_is_to_have_another_kind_of_key_asks_again(modern: Caller) -> None:
    first, modern.state = modern.provider(is_primary=False).generate_intermediate_csr()
    assert modern.provider(is_primary=False).generate_intermediate_csr() == (first, modern.state)
    provider = modern.provider(is_primary=False, PrivateKeyBits=384)
    second, modern.state = provider.generate_intermediate_csr()
    assert pki.x509_csr(second).public_key().key_size == 384  # type: ignore[union-attr]
    provider = modern.provider(is_primary=False, PrivateKeyBits=384)
    modern.clock.advance(61)
    provider._look_after()
    assert len(modern.vault.mounts["int"].keys) == 1


def test_secondary_keeps_one_issuer_for_each_answer(modern: Caller, new_caller: Callable[[FakeVault], Caller]) -> None:
    primary, chain = new_caller(FakeVault()).primary()
    for number in range(3):
        provider = modern.provider(is_primary=False)
        csr, modern.state = provider.generate_intermediate_csr()
        answer = primary.sign_intermediate(IntermediateRequest(csr, pki.serial(number), modern.now))
        # It dies behind the call that installs the certificate; the next one installs it again.
        modern.vault.crash_at, modern.vault.is_crash_after = len(modern.vault.calls), True
        with pytest.raises(Crash):
            provider.set_intermediate(answer, chain.root_pem)
        provider = modern.provider(is_primary=False)
        _, modern.state = provider.set_intermediate(answer, chain.root_pem)
        modern.clock.advance(61)
        provider = modern.provider(is_primary=False)
        modern.clock.advance(61)
        provider._look_after()
        assert len(modern.vault.mounts["int"].issuers) == len(modern.vault.mounts["int"].keys) == 1


# --- answers are input --------------------------------------------------------------------------------------------


def _other_leaf(answer: Answer) -> Answer:
    key = pki.key(number=3)
    return data({"certificate": pki.pem(pki.root_certificate(key)), "issuing_ca": "x"})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_other_leaf, "for a different key"),
        (lambda answer: data({**answer.data, "certificate": "nonsense"}), "cannot be decoded"),
    ],
)
def test_leaf_that_is_not_what_was_asked_for_is_not_returned(
    caller: Caller, change: Callable[[Answer], Answer], text: str
) -> None:
    provider, _ = caller.primary()
    caller.vault.replace["/sign/"] = caller.vault.replace["sign/leaf"] = change
    with pytest.raises(ChainInvalid, match=text):
        provider.sign_leaf(caller.request())


def _signed_again(
    cert: x509.Certificate,
    private: pki.PrivateKey,
    *,
    subject: str | None = None,
    constraints: x509.BasicConstraints | None = None,
    begin: datetime | None = None,
    end: datetime | None = None,
) -> x509.Certificate:
    """The same certificate in all else, signed with this key."""
    builder = x509.CertificateBuilder(
        issuer_name=cert.issuer,
        subject_name=cert.subject if subject is None else pki.name(subject),
        public_key=cert.public_key(),
        serial_number=cert.serial_number,
        not_valid_before=begin or cert.not_valid_before_utc,
        not_valid_after=end or cert.not_valid_after_utc,
    )
    for extension in cert.extensions:
        value = extension.value
        if constraints is not None and isinstance(value, x509.BasicConstraints):
            value = constraints
        builder = builder.add_extension(value, extension.critical)
    return builder.sign(private, hashes.SHA256())


def _replaced(answer: Answer, private: pki.PrivateKey, **changes: Any) -> Answer:
    cert = _signed_again(pki.load(answer.data["certificate"]), private, **changes)
    return data({**answer.data, "certificate": pki.pem(cert)})


def test_leaf_that_only_names_the_issuer_is_not_returned(caller: Caller) -> None:
    provider, _ = caller.primary()
    caller.vault.replace["sign/leaf"] = lambda answer: _replaced(answer, pki.key(number=3))
    with pytest.raises(ChainInvalid, match="no valid path"):
        provider.sign_leaf(caller.request())


def test_leaf_with_a_subject_is_not_returned(caller: Caller) -> None:
    provider, _ = caller.primary()
    mount = caller.vault.mounts["int"]
    private = mount.key_of(mount.default)
    caller.vault.replace["sign/leaf"] = lambda answer: _replaced(answer, private, subject="www.example.com")
    with pytest.raises(ChainInvalid, match=r"certificate from Vault has a subject: CN=www\.example\.com"):
        provider.sign_leaf(caller.request())


@pytest.mark.parametrize(
    ("begin", "end", "why"),
    [
        (datetime(1960, 1, 2, tzinfo=UTC), None, r"begins 1960-01-02T00:00:00Z, \d+s ago: at most 86400s are allowed"),
        (datetime(1970, 1, 1, tzinfo=UTC), None, r"begins 1970-01-01T00:00:00Z, \d+s ago"),
        (timedelta(days=-1, seconds=-5), None, r"begins .*Z, 8640\ds ago"),
        (None, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), r"ends \d+s later than asked for"),
        (None, timedelta(days=800), r"ends \d+s later than asked for"),
    ],
    ids=str,
)
def test_leaf_of_a_time_that_nobody_asked_for_is_not_returned(
    caller: Caller, begin: datetime | timedelta | None, end: datetime | timedelta | None, why: str
) -> None:
    provider, _ = caller.primary()
    mount = caller.vault.mounts["int"]
    moments = {
        name: datetime.fromtimestamp(caller.now, UTC) + moment if isinstance(moment, timedelta) else moment
        for name, moment in (("begin", begin), ("end", end))
    }
    caller.vault.replace["sign/leaf"] = lambda answer: _replaced(answer, mount.key_of(mount.default), **moments)
    with pytest.raises(ChainInvalid, match=f"certificate from Vault {why}"):
        provider.sign_leaf(caller.request())


def test_clock_of_vault_may_be_late_by_hours(caller: Caller) -> None:
    provider, _ = caller.primary()
    mount = caller.vault.mounts["int"]
    begin = datetime.fromtimestamp(caller.now, UTC) - timedelta(hours=23)
    caller.vault.replace["sign/leaf"] = lambda answer: _replaced(answer, mount.key_of(mount.default), begin=begin)
    assert provider.sign_leaf(caller.request()).not_before == int(begin.timestamp())


class _WithSerial:
    """A certificate in all else: the library makes none with such a serial, and reads what others have made."""

    def __init__(self, cert: x509.Certificate, serial: int) -> None:
        self._cert = cert
        self.serial_number = serial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cert, name)


@pytest.mark.parametrize("serial", [0, -1, 1 << 160])
def test_leaf_with_a_serial_that_no_record_holds_is_not_returned(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, serial: int
) -> None:
    provider, _ = caller.primary()
    monkeypatch.setattr(vault_roles, "load_cert", lambda pem: _WithSerial(pki.load(pem), serial))
    with pytest.raises(ChainInvalid, match="has no serial number of 1 to 20 bytes"):
        provider.sign_leaf(caller.request())


def test_leaf_asked_of_vault_ends_with_its_issuer_and_none_is_asked_after_it(modern: Caller) -> None:
    config = {"RootCertTTL": "5h", "IntermediateCertTTL": "3h", "LeafCertTTL": "1h"}
    provider, chain = modern.primary(**config)
    end = pki.times(pki.load(chain.signing_cert_pem))[1]
    _later(modern, end - 600 - modern.now)
    assert provider.sign_leaf(modern.request()).not_after == end
    _later(modern, 601)
    asked = len(modern.vault.calls)
    with pytest.raises(ChainInvalid, match="the signing certificate has expired"):
        provider.sign_leaf(modern.request())
    assert len(modern.vault.calls) == asked


def _later(caller: Caller, seconds: float) -> None:
    caller.clock.advance(seconds)
    caller.vault.clock_ahead += timedelta(seconds=seconds)


@pytest.mark.parametrize("field", ["certificate", "issuing_ca"])
def test_blank_answer_is_refused_in_consuls_words(caller: Caller, field: str) -> None:
    provider, _ = caller.primary()
    caller.vault.replace["sign/leaf"] = lambda answer: data({**answer.data, field: ""})
    with pytest.raises(ProviderUnavailable, match="certificate info returned from Vault was blank"):
        provider.sign_leaf(caller.request())


def test_leaf_below_another_intermediate_is_not_returned(modern: Caller) -> None:
    """Somebody has made another CA the one that this issuer id stands for."""
    provider, _ = modern.primary()
    mount = modern.vault.mounts["int"]
    stranger = modern.vault.mount_root("stranger", uris=(pki.ROOT_URI,))
    mount.keys["key-top"] = stranger.keys["key-top"]
    mount.issuers[mount.default] = stranger.issuers["top"]
    with pytest.raises(SigningKeyGone, match="not signed by this CA's intermediate"):
        provider.sign_leaf(modern.request())


def test_names_that_vault_drops_are_said(caller: Caller) -> None:
    provider, _ = caller.primary()
    with pytest.raises(CSRRejected, match=r"names that Vault does not sign: a_b\.example"):
        provider.sign_leaf(caller.request(pki.csr_pem(dns=["a_b.example", "ok.example"])))


def test_names_that_nobody_asked_for_are_refused(caller: Caller) -> None:
    provider, _ = caller.primary()
    caller.vault.mounts["int"].roles.clear()
    send = caller.vault.send

    def meddle(method: str, path: str, **named: object) -> Answer:
        body = named["body"]
        if "sign/leaf-cert" in path and isinstance(body, dict):
            named["body"] = {**body, "alt_names": "evil.example"}
        return send(method, path, **named)  # type: ignore[arg-type]

    caller.vault.send = meddle  # type: ignore[method-assign]
    with pytest.raises(ChainInvalid, match=r"names that were not asked for: evil\.example"):
        provider.sign_leaf(caller.request())


@pytest.mark.parametrize("lasting", ["longer", "ended"])
def test_leaf_of_another_lifetime_is_refused(modern: Caller, lasting: str) -> None:
    provider, _ = modern.primary()
    change = timedelta(days=9) if lasting == "longer" else timedelta(days=-9)
    end = modern.vault._end
    modern.vault._end = lambda body: end(body) + change  # type: ignore[method-assign]
    modern.vault.clock_ahead = min(timedelta(0), 2 * change)
    with pytest.raises(ChainInvalid, match="later than asked for"):
        provider.sign_leaf(modern.request())


def test_intermediate_for_another_key_is_refused(caller: Caller) -> None:
    provider = caller.provider()
    caller.state = provider.prepare_root(pki.intent(not_before=caller.now))

    def other(answer: Answer) -> Answer:
        return data({"certificate": pki.pem(pki.root_certificate(pki.key(number=3)))})

    caller.vault.replace["sign-intermediate"] = other
    with pytest.raises(ChainInvalid, match="different key than the CSR"):
        provider.generate_root()
    assert provider.chain() is None


def test_intermediate_that_is_not_what_was_asked_for_is_refused(caller: Caller) -> None:
    provider = caller.provider()
    caller.state = provider.prepare_root(pki.intent(not_before=caller.now))

    def with_room(answer: Answer) -> Answer:
        mount = caller.vault.mounts["root"]
        return _replaced(answer, mount.key_of(mount.default), constraints=x509.BasicConstraints(True, 1))

    caller.vault.replace["sign-intermediate"] = with_room
    with pytest.raises(ChainInvalid, match="must be a CA of path length 0"):
        provider.generate_root()
    caller.vault.replace["sign-intermediate"] = lambda answer: _replaced(answer, pki.key(number=3))
    with pytest.raises(ChainInvalid, match="intermediate from Vault does not verify"):
        provider.generate_root()
    assert provider.chain() is None
    assert not caller.vault.mounts["int"].issuers


def test_clock_of_vault_that_is_ahead_is_noticed(caller: Caller) -> None:
    provider, _ = caller.primary()
    caller.vault.clock_ahead = timedelta(seconds=45)
    provider.sign_leaf(caller.request())
    caller.vault.clock_ahead = timedelta(minutes=10)
    with pytest.raises(ProviderUnavailable, match=r"begins \d+s from now: the clock of Vault"):
        provider.sign_leaf(caller.request())


def test_cross_signed_certificate_that_is_not_the_one_asked_for_is_refused(caller: Caller) -> None:
    provider, _ = caller.primary()
    other = pki.pem(pki.root_certificate(pki.key(number=8), name="other", not_before=caller.now))
    caller.vault.replace["sign-self-issued"] = lambda _: data({"certificate": other})
    request = CrossSignRequest(other, pki.serial(7), caller.now, caller.now + pki.DAY)
    with pytest.raises(ChainInvalid, match="is not what was asked for"):
        provider.cross_sign(request)
    caller.vault.replace["sign-self-issued"] = lambda answer: _replaced(answer, pki.key(number=3))
    with pytest.raises(ChainInvalid, match="no valid path"):
        provider.cross_sign(request)


def test_cross_signing_is_not_offered_where_the_policy_forbids_it(caller: Caller) -> None:
    provider, _ = caller.primary()
    assert provider.supports_cross_signing()
    caller.vault.capabilities = ["update"]
    assert not provider.supports_cross_signing()
    caller.vault.capabilities = ["sudo", "update"]
    assert provider.supports_cross_signing()
    caller.vault.denied = {"capabilities-self"}
    assert provider.supports_cross_signing()


# --- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (failure(503, "Vault is sealed"), ProviderUnavailable, "Vault is unavailable: Vault is sealed"),
        (failure(500, "local node not active but active cluster node not found"), ProviderUnavailable, "not active"),
        (
            failure(500, "error during forwarding RPC request"),
            ProviderUnavailable,
            "Vault is unavailable: error during",
        ),
        (failure(502), ProviderUnavailable, "Vault is unavailable"),
        (failure(500, "internal error"), ProviderUnavailable, "error issuing cert: Vault answers 500"),
        (failure(429, "request path quota exceeded"), RateLimited, "operation rate limited by CA provider"),
        (TransportFailure("https://vault.test does not answer in time"), ProviderUnavailable, "not answer in time"),
        (TransportFailure("no TLS", is_tls=True), ProviderUnavailable, "check Address, CAFile"),
    ],
)
def test_trouble_is_said_and_over_when_it_is_over(
    caller: Caller, answer: Answer | TransportFailure, error: type[Exception], text: str
) -> None:
    provider, chain = caller.primary()
    caller.vault.outage = answer
    for _ in range(5):
        with pytest.raises(error, match=text) as caught:
            provider.sign_leaf(caller.request())
        assert TOKEN not in str(caught.value)
    # A leader that is elected meanwhile has the CA, and says the same.
    if isinstance(answer, TransportFailure) or answer.status >= 500:
        successor = caller.provider()
        assert successor.chain() == chain
    caller.vault.outage = None
    caller.clock.advance(16)
    provider.sign_leaf(caller.request())


def test_vault_that_is_away_is_left_alone(caller: Caller) -> None:
    provider, _ = caller.primary()
    caller.vault.outage = TransportFailure("https://vault.test:8200 does not answer in time")
    before = len(caller.vault.calls)
    results = provider.sign_leaves([caller.request()] * 32)
    assert all(isinstance(result, ProviderUnavailable) for result in results)
    # Three failures, and what the other threads had begun by then.
    assert len(caller.vault.calls) - before < 16
    before = len(caller.vault.calls)
    assert all(isinstance(result, ProviderUnavailable) for result in provider.sign_leaves([caller.request()] * 32))
    assert len(caller.vault.calls) == before


def test_vault_that_is_away_is_warned_of_until_it_is_back(caller: Caller) -> None:
    """Also when nobody wants a leaf meanwhile."""
    provider, _ = caller.primary()
    provider._look_after()
    caller.vault.outage = failure(503, "Vault is sealed")
    with pytest.raises(ProviderUnavailable):
        provider.sign_leaf(caller.request())
    assert list(provider.warnings()) == []  # once is nothing
    caller.clock.advance(301)
    for _ in range(3):
        provider._look_after()
    assert list(provider.warnings()) == ["Vault is unavailable: Vault is sealed"]
    caller.vault.outage = None
    caller.clock.advance(16)
    provider._look_after()
    assert list(provider.warnings()) == []


def test_outage_that_signing_has_found_is_over_at_the_next_look(caller: Caller) -> None:
    provider, _ = caller.primary()
    provider._look_after()
    caller.vault.outage = failure(503, "Vault is sealed")
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            provider.sign_leaf(caller.request())
    assert list(provider.warnings()) == ["Vault is unavailable: Vault is sealed"]
    caller.vault.outage = None
    caller.clock.advance(16)
    provider._look_after()
    assert list(provider.warnings()) == []


def test_vault_that_is_away_refuses_a_new_configuration(caller: Caller) -> None:
    caller.vault.outage = TransportFailure("https://vault.test:8200 cannot be reached: connection refused")
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        caller.provider()


def test_wrong_token_is_refused_also_when_there_is_a_ca(caller: Caller) -> None:
    caller.primary()
    with pytest.raises(ProviderUnavailable, match="the Vault token is refused") as caught:
        caller.provider(Token="t-secret")
    assert "t-secret" not in str(caught.value)


def test_revoked_token_is_said_while_signing(caller: Caller) -> None:
    provider, _ = caller.primary()
    provider.sign_leaf(caller.request())
    token = caller.vault.tokens.pop(TOKEN)
    with pytest.raises(ProviderUnavailable, match="the Vault token is refused"):
        provider.sign_leaf(caller.request())
    caller.vault.tokens[TOKEN] = token
    provider.sign_leaf(caller.request())


def test_path_that_the_policy_denies_is_named(caller: Caller) -> None:
    provider, _ = caller.primary()
    provider.sign_leaf(caller.request())
    caller.vault.denied = {"sign/"}
    with pytest.raises(ProviderUnavailable, match=r"Vault denies PUT int/.*sign/leaf-cert .*policy of the token"):
        provider.sign_leaf(caller.request())


def test_policy_that_keeps_the_role_from_us_does_not_stop_signing(caller: Caller) -> None:
    provider, _ = caller.primary()
    provider.sign_leaf(caller.request())
    caller.vault.denied = {"roles/"}
    caller.provider().sign_leaf(caller.request())


def test_removed_mount_is_another_signing_certificate_and_not_another_root(modern: Caller) -> None:
    provider, chain = modern.primary()
    del modern.vault.mounts["int"]
    with pytest.raises(SigningKeyGone, match="the issuer at int that signs leaves has been removed"):
        provider.sign_leaf(modern.request())
    renewed, modern.state = provider.renew_signing_cert()
    assert renewed.root_pem == chain.root_pem
    modern.provider().sign_leaf(modern.request())


def test_role_that_is_written_and_not_seen_yet_is_no_fault_of_the_request(caller: Caller) -> None:
    """A standby answers reads by itself, and hears of a write a moment later."""

    class Late(dict[str, Any]):
        def __setitem__(self, _key: str, _value: Any) -> None: ...

    provider, _ = caller.primary()
    provider.sign_leaf(caller.request())
    caller.vault.mounts["int"].roles = Late()
    with pytest.raises(ProviderUnavailable, match="unknown role"):
        provider.sign_leaf(caller.request())


def test_before_issuers_a_ca_that_was_replaced_asks_for_a_renewal(new_caller: Callable[[FakeVault], Caller]) -> None:
    caller = new_caller(FakeVault(is_legacy=True))
    provider, chain = caller.primary()
    theirs = caller.vault.mount_root("int")
    theirs.roles = {"leaf-cert": {}}
    caller.vault.mounts["int"] = theirs
    with pytest.raises(SigningKeyGone, match="has been replaced there"):
        provider.sign_leaf(caller.request())
    renewed, caller.state = provider.renew_signing_cert()
    assert renewed.root_pem == chain.root_pem
    caller.provider().sign_leaf(caller.request())


@pytest.mark.parametrize("change", [{"IntermediatePKIPath": "elsewhere"}, {"IntermediatePKINamespace": "team"}])
def test_intermediate_that_is_wanted_elsewhere_asks_for_its_renewal(modern: Caller, change: dict[str, Any]) -> None:
    _, chain = modern.primary()
    provider = modern.provider(**change)
    assert provider.wants_renewal()
    provider.sign_leaf(modern.request())
    _, modern.state = provider.renew_signing_cert()
    renewed = modern.provider(**change)
    assert not renewed.wants_renewal()
    assert renewed.chain() != chain
    renewed.sign_leaf(modern.request())
    assert modern.provider().wants_renewal()


def test_renewal_that_was_cut_off_for_long_is_not_taken_up_and_not_confused_with_the_next(modern: Caller) -> None:
    """Its certificate has expired meanwhile, so its name is passed over."""
    provider, _ = modern.primary(RootCertTTL="87600h", IntermediateCertTTL="240h", LeafCertTTL="72h")
    provider.renew_signing_cert()  # and the leader dies
    modern.clock.advance(11 * pki.DAY)
    modern.vault.clock_ahead += timedelta(days=11)
    seen = set()
    for _ in range(3):
        chain, modern.state = modern.provider(IntermediateCertTTL="240h").renew_signing_cert()
        seen.add(chain.signing_cert_pem)
        modern.provider(IntermediateCertTTL="240h").sign_leaf(modern.request())
    assert len(seen) == 3
    mount = modern.vault.mounts["int"]
    assert (len(mount.issuers), len(mount.keys)) == (2, 2)  # the one in use and the one before


def test_second_certificate_of_a_key_goes_with_it(modern: Caller) -> None:
    """Two leaders at once have each installed one."""
    _, chain = modern.primary()
    mount = modern.vault.mounts["int"]
    [(key_id, cert)] = mount.issuers.values()
    mount.issuers["twin"] = (key_id, cert)
    for _ in range(2):
        _, modern.state = modern.provider().renew_signing_cert()
    assert "twin" not in mount.issuers
    assert key_id not in mount.keys
    assert chain != modern.provider().chain()
    modern.provider().renew_signing_cert()  # cut off
    modern.provider().cleanup()
    assert "int" not in modern.vault.mounts


@pytest.mark.parametrize("is_shared", [False, True])
def test_ca_that_was_given_up_leaves_nothing_behind(modern: Caller, *, is_shared: bool) -> None:
    """What it has made since it was committed last is known by its name only."""
    config: dict[str, Any] = {} if is_shared else {"RootPKIPath": "new", "IntermediatePKIPath": "newint"}
    if is_shared:
        modern.primary()
    kept, modern.state = modern.state, b""
    provider = modern.provider(**config)
    modern.state = provider.prepare_root(pki.intent(number=2, not_before=modern.now))
    provider.generate_root()  # and the rotation is given up
    modern.provider(**config).cleanup()
    assert "newint" not in modern.vault.mounts
    if is_shared:
        mount = modern.vault.mounts["int"]
        assert (len(mount.issuers), len(mount.keys)) == (1, 1)
        modern.state = kept
        modern.provider().sign_leaf(modern.request())


@pytest.mark.parametrize("is_shared", [False, True])
def test_mount_that_is_left_goes_with_the_last_key_in_it(modern: Caller, *, is_shared: bool) -> None:
    provider, _ = modern.primary()
    moved = modern.provider(IntermediatePKIPath="other")
    _, modern.state = moved.renew_signing_cert()
    if is_shared:
        mount = modern.vault.mounts["int"]
        mount.keys["theirs"] = next(iter(mount.keys.values()))
    renewed = modern.provider(IntermediatePKIPath="other")
    renewed._look_after()
    provider.sign_leaf(modern.request())  # other processes go on with it for a moment
    modern.clock.advance(61)
    renewed._look_after()
    assert ("int" in modern.vault.mounts) == is_shared
    assert len(modern.vault.mounts["other"].issuers) == 1
    renewed.sign_leaf(modern.request())


def test_clean_up_removes_what_was_superseded_in_another_mount(modern: Caller) -> None:
    modern.primary()
    _, modern.state = modern.provider(IntermediatePKIPath="other").renew_signing_cert()
    assert {"int", "other"} <= set(modern.vault.mounts)
    modern.provider(IntermediatePKIPath="other").cleanup()
    assert set(modern.vault.mounts) == {"root"}


def test_root_that_a_mount_has_already_is_known_before_it_is_taken_over(caller: Caller) -> None:
    _, chain = caller.primary()
    caller.state = b""
    assert caller.provider().root_to_adopt() == chain.root_pem
    assert caller.provider(RootPKIPath="fresh").root_to_adopt() == ""


def test_pause_of_the_breaker_is_passed_on(caller: Caller) -> None:
    provider, _ = caller.primary()
    caller.vault.outage = failure(503, "Vault is sealed")
    pauses = []
    for _ in range(5):
        with pytest.raises(ProviderUnavailable, match="Vault is sealed") as refused:
            provider.sign_leaf(caller.request())
        pauses.append(refused.value.retry_after_seconds)
        caller.clock.advance(1.0)
    assert pauses == [1.0, 1.0, 1.0, 2.0, 1.0]


def test_pause_that_a_proxy_asks_for_is_passed_on(caller: Caller) -> None:
    provider, _ = caller.primary()
    caller.vault.outage = replace(failure(503, "busy"), retry_after_seconds=9.0)
    with pytest.raises(ProviderUnavailable) as refused:
        provider.sign_leaf(caller.request())
    assert refused.value.retry_after_seconds == 9.0


def test_removed_issuer_is_noticed_as_such(modern: Caller) -> None:
    provider, _ = modern.primary()
    modern.vault.mounts["int"].issuers.clear()
    with pytest.raises(SigningKeyGone):
        provider.sign_leaf(modern.request())


def test_root_that_was_replaced_in_vault_is_reported_and_signs_nothing(caller: Caller) -> None:
    provider, chain = caller.primary()
    mine = caller.vault.mounts["root"]
    caller.vault.mount_root("root")
    provider._look_after()
    [warning] = provider.warnings()
    assert "is not the one at RootPKIPath root any more" in warning
    provider.sign_leaf(caller.request())  # clients trust the stored root, and the intermediate is below it
    csr = pki.csr_pem(pki.key(number=9), uri=pki.ROOT_URI)
    for act in (
        provider.renew_signing_cert,
        lambda: provider.sign_intermediate(IntermediateRequest(csr, pki.serial(1), caller.now)),
        lambda: provider.cross_sign(CrossSignRequest(chain.root_pem, pki.serial(1), caller.now, caller.now + 9)),
    ):
        with pytest.raises(ChainInvalid, match="is not the one at RootPKIPath"):
            act()
    caller.vault.mounts["root"] = mine
    caller.clock.advance(301)
    provider._look_after()
    assert list(provider.warnings()) == []


def test_root_of_another_cluster_in_the_mount_is_reported_too(caller: Caller) -> None:
    provider, _ = caller.primary()
    caller.vault.mount_root("root", uris=(OTHER_URI,))
    provider._look_after()
    [warning] = provider.warnings()
    assert OTHER_URI in warning
    with pytest.raises(ChainInvalid, match="is not the one at RootPKIPath"):
        provider.renew_signing_cert()


def test_batch_goes_on_around_what_fails(caller: Caller) -> None:
    provider, _ = caller.primary()
    requests = [caller.request(), caller.request("nonsense"), caller.request()]
    results = provider.sign_leaves([replace(request, now=caller.now) for request in requests])
    assert [type(result) for result in results] == [IssuedLeaf, CSRRejected, IssuedLeaf]


def test_closed_provider_has_let_go_of_its_secrets(caller: Caller) -> None:
    provider, _ = caller.primary()
    assert _holds(provider, TOKEN)
    provider.close()
    calls = len(caller.vault.calls)
    provider._look_after()
    assert provider.chain() is None
    assert len(caller.vault.calls) == calls
    assert not _holds(provider, TOKEN)


def _holds(provider: VaultProvider, secret: str) -> bool:
    """Whether the text can be reached from the provider by any way that is not the test's own."""
    waiting: list[object] = [vars(provider)]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        if isinstance(found, str) and found == secret:
            return True
        if id(found) not in seen and not isinstance(found, type | ModuleType | FunctionType | FakeVault | FakeClock):
            seen.add(id(found))
            waiting += gc.get_referents(found)
    return False


def test_names_of_root_and_intermediate_differ(caller: Caller) -> None:
    _, chain = caller.primary()
    root, intermediate = pki.load(chain.root_pem), pki.load(chain.signing_cert_pem)
    assert common_name(root) != common_name(intermediate)
    assert common_name(intermediate).startswith("pri-")
    assert common_name(intermediate).endswith(".vault.ca.11111111.consul")


def test_provider_is_made_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes ask it for its secret keys only, and must not pay for hvac."""
    monkeypatch.setitem(__import__("sys").modules, "hvac", None)
    assert VaultProvider().secret_keys == {"Token", "AuthMethod", "auth_method"}


# --- a Vault whose every answer is in time, and late --------------------------------------------------------------


class SlowVault(FakeVault):
    """Uses up what a call may take."""

    clock: FakeClock | None = None

    def send(self, *arguments: Any, timeout_seconds: float, **named: Any) -> Answer:
        if self.clock is not None:
            self.clock.advance(0.97 * timeout_seconds)
        return super().send(*arguments, timeout_seconds=timeout_seconds, **named)


#: The last call may begin just before the end.
LONGEST = OPERATION_SECONDS + 1


def seconds(caller: Caller, operation: Callable[[], object]) -> float:
    started = caller.clock.monotonic()
    with pytest.raises(ProviderUnavailable, match=r"Vault is too slow: .* was still to be done after 40 s"):
        operation()
    return caller.clock.monotonic() - started


def test_every_operation_ends_however_slow_each_answer_is(new_caller: Callable[..., Caller]) -> None:
    vault = SlowVault()
    caller = new_caller(vault)
    provider = caller.provider()
    caller.state = provider.prepare_root(pki.intent(not_before=caller.now))
    vault.clock = caller.clock
    assert seconds(caller, provider.generate_root) <= LONGEST
    vault.clock = None
    _, caller.state = provider.generate_root()
    vault.clock = caller.clock
    assert seconds(caller, provider.renew_signing_cert) <= LONGEST
    assert seconds(caller, provider.cleanup) <= LONGEST


def test_batch_ends_however_slow_each_answer_is(new_caller: Callable[..., Caller]) -> None:
    vault = SlowVault()
    caller = new_caller(vault)
    provider, _ = caller.primary()
    vault.replace["roles/"] = lambda _: failure(500, "no")
    vault.clock = caller.clock
    started = caller.clock.monotonic()
    results = provider.sign_leaves([caller.request() for _ in range(32)])
    assert all(isinstance(result, ProviderUnavailable) for result in results)
    assert caller.clock.monotonic() - started <= LONGEST


def test_ca_at_a_path_that_a_release_before_took_goes_on_and_no_other_gets_one(
    modern: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd: dict[str, Any] = {"RootPKIPath": "root?x", "IntermediatePKIPath": "int%x"}
    with monkeypatch.context() as before:
        before.setattr(VaultConfig, "require_paths", lambda *_: None)
        modern.primary(**odd)
    assert modern.provider(**odd).sign_leaf(modern.request()).name == "web"
    with pytest.raises(Malformed, match="IntermediatePKIPath"):
        modern.provider(**{**odd, "IntermediatePKIPath": "int%y"})
    with pytest.raises(Malformed, match="RootPKIPath"):
        modern.provider(**{**odd, "RootPKIPath": "root?y"})
