"""`quorumca tls` writes nothing that no peer would accept, and says why."""

import time
from itertools import product
from pathlib import Path

import pytest

from cluster.tls import certificates
from providers.errors import ConfigInvalid
from providers.pki import keys, verify
from tests.kit import broken_cas, pki
from tests.kit.broken_cas import BROKEN
from tests.parts.cli.conftest import Run


def save(cert: object, private: pki.PrivateKey) -> None:
    Path("consul-agent-ca.pem").write_text(pki.pem(cert))  # type: ignore[arg-type]
    Path("consul-agent-ca-key.pem").write_text(pki.key_pem(private))


ROLES = ("-server -node a", "-client", "-cli")
#: Such a certificate does not carry the name that the CA is not good for.
FINE = {
    ("not for its address", "-cli"),
    ("not for servers of this domain", "-client"),
    ("not for servers of this domain", "-cli"),
}


@pytest.mark.parametrize(("name", "role"), [case for case in product(BROKEN, ROLES) if case not in FINE])
def test_certificate_that_no_peer_accepts_is_not_written(run: Run, tmp_path: Path, name: str, role: str) -> None:
    save(*broken_cas.certificate_of(BROKEN[name]))
    result = run(f"tls cert create {role}")
    assert result.code == 1
    assert "consul-agent-ca.pem" in result.err
    assert " cannot be used: " in result.err
    told = BROKEN[name].reason
    # One that has a list of what is permitted is refused for the first name outside of it.
    assert told in result.err or ("permitted" in told and "the CA's name constraints do not permit" in result.err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consul-agent-ca-key.pem", "consul-agent-ca.pem"]


def test_certificate_of_a_faultless_ca_is_written(run: Run) -> None:
    save(*broken_cas.certificate_of(broken_cas.Broken("")))
    for role in ROLES:
        assert run(f"tls cert create {role}").code == 0


def test_ca_below_another_is_good_with_that_one_in_the_file(run: Run) -> None:
    """As an operator has it whose company has a root."""
    root_key, own_key = pki.key(number=1), pki.key()
    root = pki.root_certificate(root_key, "company", not_before=int(broken_cas.NOW.timestamp()))
    public = own_key.public_key()
    own = pki.certificate(
        public,
        root_key,
        pki.ca_extensions(public, pki.ski(root), uris=()),
        subject="agents",
        issuer="company",
        not_before=int(broken_cas.NOW.timestamp()),
    )
    save(own, own_key)
    assert "must hold that one, too" in run("tls cert create -server -node a").err
    Path("consul-agent-ca.pem").write_text(pki.pem(own) + pki.pem(root))
    assert run("tls cert create -server -node a").code == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "consul-agent-ca.pem and consul-agent-ca-key.pem cannot be used: no PEM-encoded certificate found"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be used: it is damaged, or no X.509",
        ),
        ("\ufeff{pem}", "consul-agent-ca.pem: begins with a byte-order mark: must be UTF-8 without one"),
        ("é\n{pem}", None),
        ("{pem}é", None),
        ("  {pem}", "nodes cannot read it: it must hold certificates only, as PEM, without a byte-order mark"),
    ],
)
def test_ca_file_that_nodes_cannot_read_is_refused(run: Run, tmp_path: Path, content: str, text: str | None) -> None:
    cert, private = broken_cas.certificate_of(broken_cas.Broken(""))
    save(cert, private)
    Path("consul-agent-ca.pem").write_text(content.replace("{pem}", pki.pem(cert)))
    result = run("tls cert create -server -node a")
    if text is None:  # text around it is for people
        assert result.code == 0
    else:
        assert (result.code, result.out) == (1, "")
        assert text in result.err
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "-domain acme.org -days 1",
        "-name-constraint",
        "-domain a.b -name-constraint -additional-name-constraint x.org -additional-name-constraint y",
        "-cluster-id 11111111-2222-3333-4444-555555555555",
    ],
)
def test_ca_that_is_made_serves_servers_and_clients(run: Run, flags: str) -> None:
    assert run(f"tls ca create {flags}").code == 0
    domain = flags.split()[1] if flags.startswith("-domain") else "consul"
    for role in ROLES:
        assert run(f"tls cert create {role} -domain {domain}").code == 0


@pytest.mark.parametrize("constraint", ["*.x.org", "*.org", "", "a..b", "x.org.", "10.0.0.1", "1", "x.org.1"])
def test_name_constraint_that_is_no_domain_is_refused(run: Run, tmp_path: Path, constraint: str) -> None:
    result = run("tls ca create -name-constraint -additional-name-constraint", constraint)
    assert (result.code, result.out) == (2, "")
    assert f"argument --additional-name-constraint: {constraint!r} is not allowed: must be a DNS domain" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\0b", "a\u2028b", "a\x7f"])
def test_common_name_that_nobody_can_print_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    result = run("tls ca create -common-name", name)
    assert (result.code, result.out) == (2, "")
    assert (
        f"argument --common-name: {name!r} is not allowed: must be at most 64 characters, all of them pr" in result.err
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("domain", ["consul", "acme.org"])
def test_ca_for_a_cluster_is_made_and_told_of_if_it_can_never_be_the_meshs_root(run: Run, domain: str) -> None:
    result = run(f"tls ca create -domain {domain} -cluster-id {pki.CLUSTER_ID}")
    assert result.code == 0
    text = f"this CA cannot become the root of a Quorum CA mesh, whose trust domain is {pki.CLUSTER_ID}.consul."
    assert (text in result.err) == (domain != "consul")
    root_pem, key_pem = (Path(f"{domain}-agent-ca{end}.pem").read_text() for end in ("", "-key"))
    judged = (root_pem, keys.load_pem(key_pem))
    if domain == "consul":
        verify.check_supplied_root(*judged, cluster_id=pki.CLUSTER_ID, now=int(time.time()))
    else:
        with pytest.raises(ConfigInvalid, match=r"RootCert has URI SANs .*, expected exactly one"):
            verify.check_supplied_root(*judged, cluster_id=pki.CLUSTER_ID, now=int(time.time()))


def test_ca_that_no_peer_accepts_is_not_made(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever flags or a change of ours may lead to one."""
    cert, private = broken_cas.certificate_of(BROKEN["no certificate signing"])
    made = certificates.Pair(pki.pem(cert), pki.key_pem(private))
    monkeypatch.setattr(certificates, "new_ca", lambda *_, **__: made)
    result = run("tls ca create")
    assert (result.code, result.out) == (2, "")
    assert "the CA that these flags ask for cannot be used: no peer would accept" in result.err
    assert list(tmp_path.iterdir()) == []
