"""What is found wrong with a node's files, one broken thing at a time; and that looking changes nothing."""

import errno
import fcntl
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster.cli.dev.local_cluster import LocalNode, make_node, make_shared
from cluster.cli.doctor_rules import RULES
from cluster.doctor.data_dir import is_in_use
from cluster.doctor.findings import Finding, Severity, ranked
from cluster.doctor.node import check_node
from cluster.raft.codec import MEMBERSHIP, pack_change
from cluster.raft.disk import RealDisk
from cluster.raft.journal import Journal
from cluster.raft.macs import FileMacs
from cluster.raft.membership import ChangeKind, Member, MembershipChange
from cluster.raft.skips import Skip, save_skips
from cluster.raft.snapshot import Snapshot, SnapshotFile
from cluster.seal.disk_key import DiskKeyFile
from cluster.seal.node_file import NodeFile
from cluster.seal.sealer import Sealer
from cluster.seal.secret_files import SecretFileError
from cluster.seal.sources import FileKey, write_key_file
from cluster.tls.certificates import Identity, load_ca, new_ca, new_cert
from cluster.tls.keys import first_certificate, hashes_of_file, key_from
from fsm.codec import dump_state
from fsm.ledger import Ledger
from fsm.state import State
from tests.kit import broken_cas, pki, samples, tls_files
from tests.kit.ports import free_ports

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)  # the files are made while the test runs

Break = Callable[["NodeFiles"], object]


class NodeFiles:
    """One node as it stopped, with everything that a data directory can hold."""

    def __init__(self, root: Path) -> None:
        make_shared(root)
        http, rpc, raft = (f"127.0.0.1:{port}" for port in free_ports(3))
        self.root = root
        self.local = LocalNode("ca-1", root / "ca-1", http, rpc, raft)
        make_node(root, self.local, [self.local], {"limits": {"disk_alarm_mb": 1}})
        self.data = self.local.data_dir
        sealer = Sealer(FileKey(self.data / "seal.key"))
        seal = sealer.new_data_key()
        sealer.unlock(seal)
        NodeFile(self.data).write({"node_name": "ca-1", "datacenter": "dc1", "seal": sealer.node_facts()})
        self.seal = seal
        self.mac_key = DiskKeyFile(self.data, "ca-1", sealer).open().key
        self._write_log(FileMacs(self.mac_key))
        self._write_ledger()

    def write_again(self, macs: FileMacs | None) -> None:
        """Journal and snapshot, by somebody else."""
        shutil.rmtree(self.data / "wal")
        self._write_log(macs)

    def mark_an_entry(self, macs: FileMacs) -> None:
        """As one to be passed over."""
        save_skips(RealDisk(), str(self.data), {Skip(20, 1, "ab" * 32)}, macs)

    def _write_log(self, macs: FileMacs | None) -> None:
        disk = RealDisk(sync=lambda _fd: None)
        journal = Journal(disk, str(self.data / "wal"), macs=macs)
        for index in range(1, 30):
            journal.append(bytes(100), index, 1)
        journal.sync()
        journal.compact_to(10)
        journal.close()
        state = dump_state(State(seal=self.seal))
        SnapshotFile(disk, str(self.data / "snapshot"), macs).save(Snapshot(12, 1, (), state))

    def _write_ledger(self) -> None:
        ledger = Ledger(str(self.data / "ledger.db"))
        ledger.add(12, 1, samples.ISSUER, [samples.record(number) for number in range(1, 50)])
        ledger.commit(12)
        ledger.close()

    @property
    def cert(self) -> Path:
        return self.local.directory / "cert.pem"

    @property
    def key(self) -> Path:
        return self.local.directory / "key.pem"

    @property
    def ca(self) -> Path:
        return self.root / "tls" / "consul-agent-ca.pem"

    def edit_config(self, old: str, new: str) -> None:
        text = self.local.config.read_text()
        assert old in text
        self.local.config.write_text(text.replace(old, new))

    def new_certificate(self, start: datetime = NOW, days: int = 100, node: str = "ca-1", role: str = "server") -> None:
        ca_key = self.ca.with_name("consul-agent-ca-key.pem").read_text()
        issuer = load_ca(self.ca.read_text(), ca_key, NOW)
        pair = new_cert(issuer, Identity(role, node=node), start, days)
        self.cert.write_text(pair.cert_pem)
        self.key.write_text(pair.key_pem)

    def new_ca(self, start: datetime = NOW, days: int = 100) -> None:
        self.ca.write_text(new_ca(start, days).cert_pem)

    def flip(self, path: Path, offset: int) -> None:
        data = bytearray(path.read_bytes())
        data[offset] ^= 0xFF
        path.write_bytes(data)

    @property
    def segment(self) -> Path:
        return sorted((self.data / "wal").glob("*.wal"))[0]

    def found(self) -> list[Finding]:
        return ranked(check_node(self.local.config, NOW + HOUR, RULES))

    def content(self) -> dict[str, tuple[str, int]]:
        """Every file below, by digest and time of its last change."""
        return {
            str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def node(tmp_path: Path) -> NodeFiles:
    return NodeFiles(tmp_path)


@contextmanager
def running(node: NodeFiles) -> Iterator[None]:
    fd = os.open(node.data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def test_nothing_is_wrong_with_a_sound_node(node: NodeFiles) -> None:
    assert node.found() == []


def with_expired_ca(node: NodeFiles) -> None:
    """And a certificate of it that has not."""
    pair = new_ca(NOW - 100 * DAY, 99)
    issuer = load_ca(pair.cert_pem, pair.key_pem, NOW - 50 * DAY)
    node.ca.write_text(pair.cert_pem)
    made = new_cert(issuer, Identity("server", node="ca-1"), NOW - 50 * DAY, 40)
    node.cert.write_text(made.cert_pem)
    node.key.write_text(made.key_pem)


def wrong_seal_key(node: NodeFiles) -> None:
    (node.data / "seal.key").unlink()
    write_key_file(node.data / "seal.key")


def foreign_seal_in_the_snapshot(node: NodeFiles) -> None:
    """The one of node.json is right."""
    write_key_file(node.root / "other.key")
    other = Sealer(FileKey(node.root / "other.key")).new_data_key()
    disk = RealDisk(sync=lambda _fd: None)
    file = SnapshotFile(disk, str(node.data / "snapshot"), FileMacs(node.mac_key))
    file.save(Snapshot(12, 1, (), dump_state(State(seal=other))))


def log_that_begins_too_late(node: NodeFiles) -> None:
    (node.data / "snapshot").unlink()


def one_row_of_the_ledger(node: NodeFiles) -> None:
    path = node.data / "ledger.db"
    node.flip(path, path.read_bytes().rindex(samples.record(20).public_key_sha256))


BROKEN: dict[str, tuple[Break, set[str]]] = {
    "config": (lambda n: n.edit_config("[http]", "[htp]"), {"config"}),
    "config-file": (lambda n: n.local.config.unlink(), {"config"}),
    "no-certificate": (lambda n: n.cert.unlink(), {"tls-missing"}),
    "no-key": (lambda n: n.key.unlink(), {"tls-missing"}),
    "no-ca": (lambda n: n.ca.unlink(), {"tls-missing"}),
    "certificate-no-pem": (lambda n: n.cert.write_text("text"), {"tls-unreadable"}),
    "key-no-pem": (lambda n: n.key.write_text("text"), {"tls-unreadable"}),
    "key-encrypted": (
        lambda n: n.key.write_bytes(tls_files.encrypted(n.key.read_bytes(), "pkcs8")),
        {"tls-key-encrypted"},
    ),
    "ca-no-pem": (lambda n: n.ca.write_text("text"), {"tls-unreadable"}),
    "other-key": (
        lambda n: shutil.copy(n.ca.with_name("consul-agent-ca-key.pem"), n.key),
        {"tls-key-mismatch"},
    ),
    "open-key": (lambda n: n.key.chmod(0o604), {"key-exposed"}),
    "other-name": (lambda n: n.new_certificate(node="ca-2"), {"tls-name"}),
    "client-certificate": (lambda n: n.new_certificate(role="cli", node=""), {"tls-name"}),
    "expired": (lambda n: n.new_certificate(NOW - 100 * DAY, 99), {"tls-expired"}),
    "soon": (lambda n: n.new_certificate(NOW - 81 * DAY, 100), {"tls-expires-soon"}),
    "future": (lambda n: n.new_certificate(NOW + DAY), {"tls-not-valid-yet"}),
    "other-ca": (lambda n: n.new_ca(), {"tls-untrusted"}),
    "expired-ca": (with_expired_ca, {"tls-ca-expired", "tls-expired"}),
    "no-seal": (lambda n: (n.data / "seal.key").unlink(), {"seal"}),
    "wrong-seal": (wrong_seal_key, {"seal"}),
    "foreign-seal": (foreign_seal_in_the_snapshot, {"seal"}),
    "open-seal": (lambda n: (n.data / "seal.key").chmod(0o640), {"key-exposed", "seal"}),
    "node-file": (lambda n: (n.data / "node.json").write_text("{"), {"node-file-damaged"}),
    "other-node": (lambda n: n.edit_config('node_name = "ca-1"', 'node_name = "ca-2"'), {"other-nodes-data"}),
    "journal": (lambda n: n.flip(n.segment, 400), {"journal-damaged"}),
    "manifest": (lambda n: (n.data / "wal" / "manifest").unlink(), {"journal-damaged"}),
    "other-journal": (lambda n: n.write_again(FileMacs(b"o" * 32)), {"journal-damaged", "snapshot-damaged"}),
    "no-macs": (lambda n: n.write_again(None), {"journal-damaged"}),
    "marks": (lambda n: n.mark_an_entry(FileMacs(b"o" * 32)), {"journal-damaged"}),
    "mac-key": (lambda n: (n.data / "mac.key").write_text("{}"), {"mac-key"}),
    "no-journal": (lambda n: shutil.rmtree(n.data / "wal"), {"log-missing"}),
    "snapshot": (lambda n: n.flip(n.data / "snapshot", 30), {"snapshot-damaged"}),
    "no-snapshot": (log_that_begins_too_late, {"journal-damaged"}),
    "ledger": (one_row_of_the_ledger, {"ledger-damaged"}),
    "ledger-head": (lambda n: n.flip(n.data / "ledger.db", 3), {"ledger-damaged"}),
    "no-ledger": (lambda n: (n.data / "ledger.db").unlink(), {"ledger-missing"}),
    "disk": (lambda n: n.edit_config("disk_alarm_mb = 1", "disk_alarm_mb = 1000000"), {"disk-low"}),
    "address": (
        lambda n: n.edit_config(f'[raft]\naddress = "{n.local.raft}"', '[raft]\naddress = "203.0.113.1:8300"'),
        {"port-in-use", "address-differs", "key-beside-data"},
    ),
    "name": (
        lambda n: n.edit_config(f'[rpc]\naddress = "{n.local.rpc}"', '[rpc]\naddress = "no.such.host.invalid:8400"'),
        {"port-in-use", "address-differs"},
    ),
    "http-tls": (
        lambda n: n.edit_config("[http]", '[http]\ntls_cert = "/no/cert"\ntls_key = "/no/key"'),
        {"tls-missing"},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_thing_is_named_and_nothing_is_changed(node: NodeFiles, name: str) -> None:
    do, expected = BROKEN[name]
    do(node)
    before = node.content()
    findings = node.found()
    codes = {finding.code for finding in findings if finding.severity is not Severity.NOTE}
    if name == "other-node":  # of another name than its certificate and the list of servers
        codes -= {"tls-name"}
    assert expected <= codes <= expected | ({"tls-untrusted"} if name == "ca-no-pem" else set()), findings
    assert all(all((finding.what, finding.why, finding.next)) for finding in findings)
    assert node.content() == before


@pytest.mark.parametrize("name", broken_cas.BROKEN)
def test_ca_whose_certificates_no_peer_accepts_is_named_with_the_reason(node: NodeFiles, name: str) -> None:
    broken = broken_cas.BROKEN[name]
    cert, private = broken_cas.certificate_of(broken)
    made = pki.certificate(
        pki.key(number=1).public_key(),
        private,
        [
            *pki.without(
                pki.leaf_extensions(pki.key(number=1).public_key(), pki.ski(cert)), x509.SubjectAlternativeName
            ),
            (x509.SubjectAlternativeName(pki.alt_names([], NAMES, ["127.0.0.1"])), False),
        ],
        subject="server.dc1.consul",
        issuer="agent CA",
        not_before=int((NOW - DAY).timestamp()),
        not_after=int((NOW + 50 * DAY).timestamp()),
    )
    node.ca.write_text(pki.pem(cert))
    node.cert.write_text(pki.pem(made))
    node.key.write_text(pki.key_pem(pki.key(number=1)))
    (finding,) = node.found()
    assert finding.severity is Severity.CRITICAL
    assert (finding.code, finding.subject) == (
        "tls-ca-expired" if name == "expired" else "tls-ca-refused",
        str(node.ca),
    )
    assert name == "expired" or finding.what.startswith(broken.reason), finding
    assert finding.next


NAMES = ["ca-1.server.dc1.consul", "server.dc1.consul", "localhost"]


def test_certificate_that_no_peer_accepts_is_named(node: NodeFiles) -> None:
    """Sound in everything that is looked at by itself: only a peer's own judgement finds it."""
    ca_key = serialization.load_pem_private_key(node.ca.with_name("consul-agent-ca-key.pem").read_bytes(), None)
    authority = pki.load(node.ca.read_text())
    private = pki.key()
    made = pki.certificate(
        private.public_key(),
        cast(pki.PrivateKey, ca_key),
        [
            *pki.without(pki.leaf_extensions(private.public_key(), pki.ski(authority)), x509.SubjectAlternativeName),
            (x509.SubjectAlternativeName(pki.alt_names([], NAMES, ["127.0.0.1"])), False),
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
        ],
        not_after=int((NOW + 50 * DAY).timestamp()),
        not_before=int(NOW.timestamp()),
        issuer_name=authority.subject,
    )
    node.cert.write_text(pki.pem(made))
    node.key.write_text(pki.key_pem(private))
    (finding,) = node.found()
    assert (finding.code, finding.subject) == ("tls-refused", str(node.cert))
    assert finding.what == "the TLS library's verification says: unhandled critical extension"


def test_http_certificate_that_is_for_no_server_is_named(node: NodeFiles) -> None:
    private = pki.key()
    extensions = pki.leaf_extensions(private.public_key(), b"x")
    extensions[1] = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    made = pki.certificate(private.public_key(), private, extensions, not_before=int((NOW - DAY).timestamp()))
    for name, text in (("http.pem", pki.pem(made)), ("http.key", pki.key_pem(private))):
        (node.root / name).write_text(text)
        (node.root / name).chmod(0o600)
    paths = f'tls_cert = "{node.root}/http.pem"\ntls_key = "{node.root}/http.key"'
    node.edit_config("[http]", f"[http]\n{paths}")
    node.new_certificate()
    (finding,) = node.found()
    assert (finding.code, finding.subject) == ("tls-usage", f"{node.root}/http.pem")
    assert "serverAuth" in finding.what


@pytest.mark.parametrize("key", ["http", "rpc", "raft"])
def test_port_that_something_else_has(node: NodeFiles, key: str) -> None:
    host, _, port = getattr(node.local, key).rpartition(":")
    with socket.create_server((host, int(port))):
        (finding,) = node.found()
    assert (finding.code, finding.subject) == ("port-in-use", getattr(node.local, key))
    assert f"sport = :{port}" in finding.next


@pytest.mark.parametrize("key", ["http", "rpc", "raft"])
def test_address_of_another_machine_is_not_said_to_be_in_use(node: NodeFiles, key: str) -> None:
    address = getattr(node.local, key)
    foreign = f"203.0.113.1:{address.rpartition(':')[2]}"
    in_clear = "allow_plaintext_off_loopback = true\n" if key == "http" else ""
    node.edit_config(f'[{key}]\naddress = "{address}"', f'[{key}]\n{in_clear}address = "{foreign}"')
    (finding,) = [found for found in node.found() if found.code == "port-in-use"]
    assert finding.subject == foreign
    assert finding.what == f"{key}.address: 203.0.113.1 is not an address of this machine"
    assert f"set {key}.address" in finding.next
    assert (f"{key}.advertise" in finding.next) is (key != "http")
    assert "end what listens" not in finding.next


def test_port_that_only_root_may_have_is_not_said_to_be_in_use(
    node: NodeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_socket: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    for finding in node.found():
        assert finding.code == "port-in-use"
        assert "Permission denied" in finding.what
        assert "CAP_NET_BIND_SERVICE" in finding.next
        assert "end what listens" not in finding.next


def test_name_without_an_address_is_not_said_to_be_in_use(node: NodeFiles) -> None:
    node.edit_config(f'[rpc]\naddress = "{node.local.rpc}"', '[rpc]\naddress = "no.such.host.invalid:8400"')
    (finding,) = [found for found in node.found() if found.code == "port-in-use"]
    assert "no.such.host.invalid" in finding.next
    assert "rpc.address" in finding.next
    assert "end what listens" not in finding.next


def test_node_that_runs_has_its_ports_for_itself(node: NodeFiles) -> None:
    host, _, port = node.local.http.rpartition(":")
    one_row_of_the_ledger(node)  # its own look-out: read from outside, it would seem damaged when it is not
    with running(node), socket.create_server((host, int(port))):
        assert is_in_use(node.data)
        (finding,) = node.found()
    assert (finding.severity, finding.code) == (Severity.NOTE, "node-runs")
    assert not is_in_use(node.data)


def test_log_that_is_being_written_is_not_damaged(node: NodeFiles) -> None:
    """What a torn write, or one under way, leaves at the end."""
    newest = sorted((node.data / "wal").glob("*.wal"))[-1]
    with newest.open("ab") as file:
        file.write(newest.read_bytes()[:7])
    before = node.content()
    assert node.found() == []
    assert node.content() == before


def test_ledger_with_a_write_ahead_log_is_read_with_it(node: NodeFiles) -> None:
    """As a node that was killed leaves it."""
    ledger = Ledger(str(node.data / "ledger.db"))
    ledger.add(13, 50, samples.ISSUER, [samples.record(50)])
    ledger.commit(13)
    saved = {name: (node.data / name).read_bytes() for name in ("ledger.db", "ledger.db-wal")}
    ledger.close()
    for name, data in saved.items():
        (node.data / name).write_bytes(data)
    before = node.content()
    assert node.found() == []
    assert node.content() == before
    node.flip(node.data / "ledger.db", 3)
    assert [finding.code for finding in node.found()] == ["ledger-damaged"]


def test_data_that_cannot_be_read_is_said_once(node: NodeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.doctor.data_dir.os.access", lambda *_: False)
    (finding,) = node.found()
    assert (finding.severity, finding.code) == (Severity.CRITICAL, "data-dir-closed")


def test_new_node_has_only_notes(node: NodeFiles) -> None:
    shutil.rmtree(node.data)
    seal, new = node.found()
    assert [(found.severity, found.code) for found in (seal, new)] == [
        (Severity.CRITICAL, "seal"),
        (Severity.NOTE, "data-dir-new"),
    ]
    assert "begins a new cluster" in new.why
    assert "the seal key first" in new.next
    node.data.mkdir()
    shutil.copy(node.root / "seal.key", node.data)
    assert node.found() == []


def test_new_node_whose_key_is_in_place_is_not_told_to_bring_one(node: NodeFiles) -> None:
    (node.data / "seal.key").rename(node.root / "elsewhere.key")
    shutil.rmtree(node.data)
    node.edit_config("[http]", f'[seal]\nkey_file = "{node.root / "elsewhere.key"}"\n\n[http]')
    (finding,) = node.found()
    assert (finding.code, finding.next) == ("data-dir-new", "start it")
    node.edit_config('name = "ca-1"\nraft', 'name = "ca-9"\nraft')
    (finding,) = (found for found in node.found() if found.code == "data-dir-new")
    assert "waits to be given the cluster's data" in finding.why


def test_data_dir_that_is_a_file_is_the_only_thing_told_of_it(node: NodeFiles) -> None:
    shutil.rmtree(node.data)
    node.data.write_text("")
    (finding,) = node.found()
    assert (finding.severity, finding.code) == (Severity.CRITICAL, "data-dir-no-directory")
    assert "mv " not in finding.next


def denied(*_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_configuration_that_may_not_be_read_has_no_mistake(node: NodeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.base.config.Path.open", denied)
    (finding,) = node.found()
    assert (finding.code, finding.what) == ("config", "cannot be read by you: Permission denied")
    assert "mistake" not in finding.why
    assert "run this as the user that the node runs as" in finding.next


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "run this as the user that the node runs as"),
        (SecretFileError("others can get at it (mode 0640): chmod 600 it"), "do as it says"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "copy the seal key from another node"),
    ],
    ids=["not allowed", "exposed", "missing"],
)
def test_seal_key_that_is_there_is_not_to_be_copied_again(
    node: NodeFiles, monkeypatch: pytest.MonkeyPatch, reason: Exception, advice: str
) -> None:
    def read(_path: Path) -> bytes:
        raise reason

    monkeypatch.setattr("cluster.seal.sources.read_secret", read)
    for finding in (found for found in node.found() if found.code == "seal"):
        assert finding.next.startswith(advice), finding


def test_node_file_that_may_not_be_read_is_not_to_be_moved_away(
    node: NodeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.seal.node_file.NodeFile.read", denied)
    (finding,) = (found for found in node.found() if found.code == "node-file-damaged")
    assert finding.next.startswith("run this as the user that the node runs as")


def test_key_in_force_that_is_still_the_next_one_is_a_warning(node: NodeFiles) -> None:
    """Whoever takes it for a leftover removes the only key that opens the data."""
    (node.data / "seal.key").rename(node.data / "seal.next.key")
    write_key_file(node.data / "seal.key")
    (finding,) = (found for found in node.found() if found.code == "seal-key-not-moved")
    assert finding.severity is Severity.WARNING
    (node.data / "seal.next.key").rename(node.data / "seal.key")
    write_key_file(node.data / "seal.next.key")  # of a change to come
    assert node.found() == []


@pytest.mark.parametrize(("is_new", "severity"), [(True, Severity.CRITICAL), (False, Severity.WARNING)])
def test_what_a_new_ca_would_be_made_of_is_judged_with_the_operators_key(
    node: NodeFiles, is_new: bool, severity: Severity
) -> None:
    node.edit_config("[http]", '[connect.ca_config]\nprivate_key = "-----BEGIN PRIVATE KEY-----SECRET"\n\n[http]')
    if is_new:
        (node.data / "node.json").unlink()
    (finding,) = [found for found in node.found() if found.code == "connect"]
    assert finding.severity is severity
    assert finding.what.startswith("connect.ca_config: PrivateKey cannot be used")
    assert "SECRET" not in str(finding)


def test_key_that_nobody_reads_is_a_warning(node: NodeFiles) -> None:
    node.edit_config("[http]", '[connect.ca_config]\nleaf_cert_tttl = "72h"\n\n[http]')
    (finding,) = node.found()
    assert (finding.severity, finding.code) == (Severity.WARNING, "connect-unknown-key")
    assert finding.what.endswith("does not read: leaf_cert_tttl")


def test_node_that_is_no_founder_is_told_how_to_join(node: NodeFiles) -> None:
    node.edit_config('name = "ca-1"\nraft', 'name = "ca-9"\nraft')
    (finding,) = node.found()
    assert (finding.severity, finding.code) == (Severity.NOTE, "not-a-founder")
    assert f"add-peer -id ca-1 -address {node.local.raft} -rpc {node.local.rpc}" in finding.next


# -- who the others take it for


def pinned(node: NodeFiles, key: bytes, *, in_log: bool = False, is_removed: bool = False) -> None:
    """What the node knew last of itself."""
    disk, member = RealDisk(sync=lambda _fd: None), Member("ca-1", "h:1", "h:2", keys=(key,))
    state, macs = dump_state(State()), FileMacs(node.mac_key)
    if not in_log and not is_removed:
        SnapshotFile(disk, str(node.data / "snapshot"), macs).save(Snapshot(12, 1, (member,), state))
        return
    journal = Journal(disk, str(node.data / "wal"), macs=macs)
    kinds = (ChangeKind.PIN, ChangeKind.REMOVE) if is_removed else (ChangeKind.PIN,)
    for kind in kinds:
        change = bytes([MEMBERSHIP]) + pack_change(MembershipChange(kind, member))
        journal.append(change, journal.entries[-1].log_index + 1, 1)
    journal.sync()
    journal.close()


def own_key(node: NodeFiles) -> bytes:
    [anchor] = hashes_of_file(node.ca.read_bytes())
    key = key_from(first_certificate(node.cert.read_bytes()), None)
    return key[:32] + anchor + key[64:]


@pytest.mark.parametrize("in_log", [False, True], ids=["in the snapshot", "in the log"])
def test_key_that_the_cluster_does_not_know_is_named_with_the_way_out(node: NodeFiles, in_log: bool) -> None:
    former = own_key(node)
    pinned(node, former, in_log=in_log)
    assert node.found() == []
    pinned(node, bytes(32) + former[32:], in_log=in_log)
    [finding] = node.found()
    assert (finding.code, finding.severity) == ("tls-key-not-pinned", Severity.CRITICAL)
    assert f"add-peer -id ca-1 -address {node.local.raft} -rpc {node.local.rpc}" in finding.next
    with running(node):
        assert "tls-key-not-pinned" not in [found.code for found in node.found()]


def test_key_of_an_agent_ca_that_was_replaced_does_not_matter(node: NodeFiles) -> None:
    pinned(node, bytes(72))
    assert node.found() == []


def test_removed_server_is_told_so(node: NodeFiles) -> None:
    pinned(node, own_key(node), is_removed=True)
    assert [finding.code for finding in node.found()] == ["server-removed"]


def test_marks_with_the_nodes_own_mac_are_nothing_to_tell(node: NodeFiles) -> None:
    node.mark_an_entry(FileMacs(node.mac_key))
    assert "journal-damaged" not in {finding.code for finding in node.found()}
