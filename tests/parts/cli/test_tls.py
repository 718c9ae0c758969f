"""`quorumca tls`: files, flags and refusals. The certificates themselves are in test_tls_certs.py."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cluster.cli import tls
from tests.parts.cli.conftest import Run


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    old = os.umask(0o027)
    yield
    os.umask(old)


def cert(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(name).read_bytes())


def dns_names(name: str) -> list[str]:
    names = cert(name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


def mode(name: str) -> int:
    return stat.S_IMODE(Path(name).stat().st_mode)


def days(name: str) -> timedelta:
    return cert(name).not_valid_after_utc - cert(name).not_valid_before_utc


def test_ca_create(run: Run, tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    result = run("tls ca create")
    assert (result.code, result.err) == (0, "")
    assert result.out == "==> Saved consul-agent-ca.pem\n==> Saved consul-agent-ca-key.pem\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consul-agent-ca-key.pem", "consul-agent-ca.pem"]
    assert (mode("consul-agent-ca.pem"), mode("consul-agent-ca-key.pem")) == (0o640, 0o600)
    begin = cert("consul-agent-ca.pem").not_valid_before_utc + timedelta(seconds=60)  # clocks of clients may be late
    assert before <= begin <= datetime.now(UTC)
    assert days("consul-agent-ca.pem") == timedelta(days=1825)


def test_ca_create_flags(run: Run) -> None:
    argv = "-domain=acme.org -days 7 -cluster-id 1234 -name-constraint=true -additional-name-constraint x.org"
    assert run(f"tls ca create {argv}", "-common-name", "Our CA").code == 0
    made = cert("acme.org-agent-ca.pem")
    assert made.subject.rfc4514_string().startswith("CN=Our CA,")
    assert days("acme.org-agent-ca.pem") == timedelta(days=7)
    uris = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert uris.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://1234.acme.org"]
    constraints = made.extensions.get_extension_for_class(x509.NameConstraints).value
    assert constraints.permitted_subtrees == [x509.DNSName(name) for name in ("x.org", "acme.org", "localhost")]


@pytest.mark.parametrize("name", ["consul-agent-ca.pem", "consul-agent-ca-key.pem"])
def test_ca_create_replaces_nothing(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    result = run("tls ca create")
    assert (result.code, result.out, result.err) == (1, "", f"{name} already exists.\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_cert_create_for_a_server(run: Run) -> None:
    run("tls ca create")
    result = run("tls cert create -server -node a")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].startswith("==> WARNING: ")
    assert lines[5:] == [
        "==> Using consul-agent-ca.pem and consul-agent-ca-key.pem",
        "==> Saved dc1-server-consul-0.pem",
        "==> Saved dc1-server-consul-0-key.pem",
    ]
    assert dns_names("dc1-server-consul-0.pem") == ["a.server.dc1.consul", "server.dc1.consul", "localhost"]
    assert (mode("dc1-server-consul-0.pem"), mode("dc1-server-consul-0-key.pem")) == (0o640, 0o600)
    assert days("dc1-server-consul-0.pem") == timedelta(days=365)
    cert("dc1-server-consul-0.pem").verify_directly_issued_by(cert("consul-agent-ca.pem"))


def test_cert_create_with_every_flag(run: Run, tmp_path: Path) -> None:
    run("tls ca create -domain acme.org")
    (tmp_path / "acme.org-agent-ca.pem").rename("ca.pem")
    argv = (
        "-client -dc dc2 -domain acme.org -days 3 -ca ca.pem -key #DOMAIN#-agent-ca-key.pem"
        " -additional-dnsname one.org -additional-dnsname *.two.org -additional-ipaddress ::1"
    )
    result = run(f"tls cert create {argv}")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[0] == "==> Using ca.pem and acme.org-agent-ca-key.pem"
    name = "dc2-client-acme.org-0.pem"
    assert dns_names(name) == ["one.org", "*.two.org", "client.dc2.acme.org", "localhost"]
    assert days(name) == timedelta(days=3)


def test_cert_create_for_the_command_line(run: Run) -> None:
    run("tls ca create")
    result = run("tls cert create -cli -additional-dnsname x.org")
    assert (result.code, result.err) == (0, "-additional-dnsname has no effect with -cli\n")
    assert dns_names("dc1-cli-consul-0.pem") == ["cli.dc1.consul", "localhost"]


def test_cert_create_takes_the_first_free_number(run: Run, tmp_path: Path) -> None:
    run("tls ca create")
    (tmp_path / "dc1-client-consul-1-key.pem").touch()
    (tmp_path / "dc1-client-consul-2.pem").symlink_to("nowhere")
    for number in (0, 3, 4):
        assert f"==> Saved dc1-client-consul-{number}.pem" in run("tls cert create -client").out
    assert run("tls cert create -cli").out.endswith("==> Saved dc1-cli-consul-0-key.pem\n")


def test_cert_create_when_no_number_is_free(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_MAX_NUMBER", 0)
    run("tls ca create")
    (tmp_path / "dc1-client-consul-0.pem").touch()
    result = run("tls cert create -client")
    assert (result.code, result.out) == (1, "==> Using consul-agent-ca.pem and consul-agent-ca-key.pem\n")
    assert result.err == "no file name is free: dc1-client-consul-0.pem to dc1-client-consul-0.pem are taken\n"


def test_cert_create_says_what_may_surprise(run: Run) -> None:
    run("tls ca create -days 2")
    result = run("tls cert create -server")
    assert result.code == 0
    end = cert("consul-agent-ca.pem").not_valid_after_utc
    assert result.err.splitlines() == [
        "Without -node the certificate names no server; quorumca's own servers need one that does.",
        f"The certificate ends before -days 365, with the CA's: {end:%Y-%m-%d}",
    ]


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        ("cert create", 2, "Please provide either -server, -client, or -cli\n"),
        ("cert create -server -client", 2, "Please provide either -server, -client, or -cli\n"),
        ("cert create -client -node a", 2, "-node requires -server\n"),
        ("cert create -server -node A", 2, "argument --node: 'A' is not allowed: must be a DNS label"),
        ("cert create -server -dc ../x", 2, "argument --dc: '../x' is not allowed: must be a DNS label"),
        ("cert create -server -domain a/b", 2, "argument --domain: 'a/b' is not allowed: must be a DNS domain"),
        ("cert create -server -days 0", 2, "argument --days: '0' is not allowed: must be a whole number from 1 to"),
        ("cert create -cli -additional-ipaddress x", 2, "'x' is not allowed: must be an IP address"),
        (f"cert create -client -domain {'a' * 60}", 2, "-dc and -domain are too long"),
        ("cert create -client", 1, "consul-agent-ca.pem: No such file or directory\n"),
        ("ca create -cluster-id a/b", 2, "argument --cluster-id: 'a/b' is not allowed: must be letters, digits"),
        (f"ca create -common-name {'a' * 65}", 2, "is not allowed: must be at most 64 characters"),
        ("ca create -additional-name-constraint a", 2, "-additional-name-constraint requires -name-constraint\n"),
        ("ca", 2, "required: COMMAND"),
    ],
)
def test_refusals(run: Run, tmp_path: Path, argv: str, code: int, text: str) -> None:
    result = run(f"tls {argv}")
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("-key consul-agent-ca.pem", "cannot be used: unknown PEM block type for signing key"),
        ("-additional-dnsname x.org", "the CA's name constraints do not permit x.org: must be in consul, localhost\n"),
    ],
)
def test_nothing_is_signed_that_no_one_would_accept(run: Run, tmp_path: Path, argv: str, text: str) -> None:
    run("tls ca create -name-constraint")
    result = run(f"tls cert create -client {argv}")
    assert (result.code, result.out) == (1, "")
    assert text in result.err
    assert len(list(tmp_path.iterdir())) == 2
