"""The key that a server is known by: the same in its own files and to whoever meets it, whatever certificate it has."""

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.tls.contexts import NodeTls, TlsFileRefused, TlsFiles
from cluster.tls.keys import KEY_BYTES, anchor_part, public_part, shown_by
from tests.kit.tls_files import Authority


def tls_of(directory: Path, name: str, ca: str = "ca", node: str = "") -> NodeTls:
    """As the node of this name has it, whose files are called so, or as `node` does."""
    files = TlsFiles(str(directory / f"{ca}.pem"), str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
    return NodeTls(files, "dc1", "consul", node or name)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    authority, other = Authority(), Authority()
    authority.write_ca(tmp_path / "ca.pem")
    other.write_ca(tmp_path / "other.pem")
    for name in ("a", "b"):
        authority.write_server(tmp_path, name)
    authority.write_certificate(tmp_path, "next", "a.server.dc1.consul")
    other.write_certificate(tmp_path, "foreign", "a.server.dc1.consul")
    return tmp_path


def put(directory: Path, name: str) -> None:
    """In the place of a's certificate and key."""
    for kind in ("pem", "key"):
        (directory / f"a.{kind}").write_bytes((directory / f"{name}.{kind}").read_bytes())


def met(server: NodeTls, client: NodeTls, name: str) -> bytes:
    """What a client takes the server's key for."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.client_context.wrap_bio(incoming, outgoing, server_hostname=client.server_name(name))
    two = server.server_context.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(4):
        for end in (one, two):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert server.peer_key(two) == client.key
    return client.peer_key(one)


def test_key_is_what_others_see_of_it(directory: Path) -> None:
    a, b = tls_of(directory, "a"), tls_of(directory, "b")
    assert met(a, b, "a") == a.key
    assert len(a.key) == KEY_BYTES
    assert public_part(a.key) != public_part(b.key)
    assert anchor_part(a.key) == anchor_part(b.key)
    assert a.anchors == {anchor_part(a.key)}


def test_renewed_certificate_of_the_same_key_is_the_same_server(tmp_path: Path) -> None:
    authority = Authority()
    authority.write_ca(tmp_path / "ca.pem")
    authority.write_server(tmp_path, "a")
    tls = tls_of(tmp_path, "a")
    before, cert = tls.key, (tmp_path / "a.pem").read_bytes()
    authority.renew_server(tmp_path, "a")
    assert (tmp_path / "a.pem").read_bytes() != cert
    tls.reload()
    assert tls.key == before


def test_new_files_are_looked_at_without_being_used(directory: Path) -> None:
    a, b = tls_of(directory, "a"), tls_of(directory, "b")
    before = a.key
    put(directory, "next")
    assert a.read_key() == tls_of(directory, "next", node="a").key
    assert a.key == before == met(a, b, "a")


def test_ca_that_was_taken_out_is_trusted_until_the_next_start(directory: Path) -> None:
    a = tls_of(directory, "a")
    old = a.anchors
    (directory / "ca.pem").write_bytes((directory / "other.pem").read_bytes())
    a.reload()  # its own certificate is still of the old one
    assert anchor_part(a.key) in old
    put(directory, "foreign")
    a.reload()
    assert old < a.anchors
    assert tls_of(directory, "foreign", node="a").anchors == a.anchors - old


def test_own_certificate_that_nobody_accepts_has_a_key_and_no_ca(directory: Path) -> None:
    tls = tls_of(directory, "foreign", node="a")
    assert public_part(tls.key) == public_part(tls_of(directory, "foreign", "other", "a").key)
    assert anchor_part(tls.key) not in tls.anchors


def test_handshake_that_fails_says_so(directory: Path) -> None:
    with pytest.raises(ssl.SSLError):
        shown_by(tls_of(directory, "a").server_context, tls_of(directory, "foreign", "other", "a").client_context)


#: Certificates that no other server takes, for a server that is `a`, and what is said of them.
UNACCEPTABLE: dict[str, tuple[Callable[[Authority, Path], None], str]] = {
    "expired": (
        lambda agent_ca, path: agent_ca.write_server(path, "a", days_from_now=-2),
        "would be refused by every other server: certificate has expired",
    ),
    "not valid yet": (
        lambda agent_ca, path: agent_ca.write_server(path, "a", days_from_now=2),
        "would be refused by every other server: certificate is not yet valid",
    ),
    "of another CA": (
        lambda _agent_ca, path: Authority().write_server(path, "a"),
        "would be refused by every other server: ",
    ),
    "of another server": (
        lambda agent_ca, path: agent_ca.write_certificate(path, "a", "b.server.dc1.consul"),
        "is that of b.server.dc1.consul, and this is a.server.dc1.consul",
    ),
    "of a client": (
        lambda agent_ca, path: agent_ca.write_certificate(path, "a", "a.client.dc1.consul"),
        "is that of no server, and this is a.server.dc1.consul",
    ),
}


@pytest.mark.parametrize("kind", UNACCEPTABLE)
def test_certificate_that_nobody_accepts_does_not_take_the_place_of_a_good_one(tmp_path: Path, kind: str) -> None:
    """Else its key would be announced, and the server be known by one that it cannot show."""
    authority = Authority()
    authority.write_ca(tmp_path / "ca.pem")
    for name in ("a", "b"):
        authority.write_server(tmp_path, name)
    a, b = tls_of(tmp_path, "a"), tls_of(tmp_path, "b")
    before, anchors = a.key, a.anchors
    make, text = UNACCEPTABLE[kind]
    make(authority, tmp_path)
    for take in (a.read_key, a.reload):
        with pytest.raises(TlsFileRefused) as refused:
            take()
        said = str(refused.value)
        assert said.startswith(f"tls.cert_file {tmp_path / 'a.pem'} {text}"), said
        assert "The one in use stays." in said
        assert "`quorumca tls cert create -server -node a`" in said
    assert (met(a, b, "a"), a.key, a.anchors) == (before, before, anchors)
    authority.write_server(tmp_path, "a")
    a.reload()
    assert met(a, b, "a") == a.key != before


def test_node_that_starts_with_a_certificate_that_nobody_accepts_takes_a_good_one(tmp_path: Path) -> None:
    authority = Authority()
    authority.write_ca(tmp_path / "ca.pem")
    authority.write_server(tmp_path, "b")
    authority.write_server(tmp_path, "a", days_from_now=-2)
    a = tls_of(tmp_path, "a")
    before = a.key
    a.reload()  # the same files: as when the one in use expires, which is for whoever watches its time to say
    assert a.key == a.read_key() == before
    authority.write_server(tmp_path, "a")
    a.reload()
    assert met(a, tls_of(tmp_path, "b"), "a") == a.key


#: What a server that is `a` may start with: nothing of it says whose the next certificate must be.
STARTS: dict[str, Callable[[Authority, Path], None]] = {
    "expired": lambda agent_ca, path: agent_ca.write_server(path, "a", days_from_now=-2),
    "not valid yet": lambda agent_ca, path: agent_ca.write_server(path, "a", days_from_now=2),
    "of another CA": lambda _agent_ca, path: Authority().write_server(path, "a"),
    "of another server, expired": lambda agent_ca, path: agent_ca.write_certificate(
        path, "a", "b.server.dc1.consul", days_from_now=-2
    ),
    "of a client": lambda agent_ca, path: agent_ca.write_certificate(path, "a", "a.client.dc1.consul"),
}


@pytest.mark.parametrize("dns_name", ["b.server.dc1.consul", "a.client.dc1.consul", "a.server.dc2.consul"])
@pytest.mark.parametrize("start", STARTS)
def test_whatever_a_node_starts_with_the_next_certificate_is_its_own(tmp_path: Path, start: str, dns_name: str) -> None:
    """Its name is the configured one: else it would announce the key of another server, and be known by that."""
    authority = Authority()
    authority.write_ca(tmp_path / "ca.pem")
    authority.write_server(tmp_path, "b")
    STARTS[start](authority, tmp_path)
    a = tls_of(tmp_path, "a")
    before = a.key
    a.reload()
    assert a.read_key() == before
    authority.write_certificate(tmp_path, "a", dns_name)
    for take in (a.read_key, a.reload):
        with pytest.raises(TlsFileRefused, match=r"and this is a\.server\.dc1\.consul"):
            take()
    assert a.key == before
    authority.write_server(tmp_path, "a")
    a.reload()
    assert met(a, tls_of(tmp_path, "b"), "a") == a.key != before


def test_node_does_not_start_with_a_valid_certificate_of_another_server(tmp_path: Path) -> None:
    """On every machine the files may have the same names. It would be refused on both sides, and say nothing of it."""
    authority = Authority()
    authority.write_ca(tmp_path / "ca.pem")
    for name in ("a", "b"):
        authority.write_server(tmp_path, name)
    with pytest.raises(TlsFileRefused) as refused:
        tls_of(tmp_path, "b", node="a")
    said = str(refused.value)
    assert said.startswith(
        f"tls.cert_file {tmp_path / 'b.pem'} is that of b.server.dc1.consul, and this is a.server.dc1.consul. Put"
    )
    assert "`quorumca tls cert create -server -node a`" in said
    tls_of(tmp_path, "b", node="b")


def test_files_that_changed_since_their_key_was_read_are_not_used(tmp_path: Path) -> None:
    """The others have been told of the key that was read."""
    authority = Authority()
    authority.write_ca(tmp_path / "ca.pem")
    authority.write_server(tmp_path, "a")
    a = tls_of(tmp_path, "a")
    before = a.key
    authority.write_server(tmp_path, "a")
    told = a.read_key()
    authority.write_server(tmp_path, "a")
    with pytest.raises(TlsFileRefused, match="has changed again"):
        a.reload(told)
    assert a.key == before
    a.reload(a.read_key())
    assert a.key not in (before, told)
