import io
import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.cli.api_flags import parse_address
from cluster.client import api as client
from cluster.client.api import Api, TlsOptions, objects
from cluster.client.errors import CommandError, Exit
from cluster.tls.certificates import Identity, load_ca, new_ca, new_cert
from tests.kit.fake_api import FakeApi, Request, serving


@pytest.fixture
def node(api: FakeApi) -> Api:
    return Api(parse_address(api.address), token="secret", query={"dc": "dc2"})


def test_request_carries_query_token_and_body(api: FakeApi, node: Api) -> None:
    api.answer("PUT", "/x", {"A": 1})
    assert node.json("PUT", "/x", query={"id": "a b&c"}, body={"B": "ä"}) == {"A": 1}
    assert api.last == Request("PUT", "/x", {"dc": "dc2", "id": "a b&c"}, "secret", {"B": "ä"})


def test_other_status_is_an_error_in_consuls_words(api: FakeApi, node: Api) -> None:
    api.answer("GET", "/x", "Permission denied\x1b[2J\n", status=403)
    with pytest.raises(CommandError) as failed:
        node.json("GET", "/x")
    assert str(failed.value) == "Unexpected response code: 403 (Permission denied\ufffd[2J)"
    assert failed.value.code is Exit.FAILED
    assert node.text("GET", "/x", accept=(403,)).startswith("Permission denied")


@pytest.mark.parametrize("body", ["", "[]", "not json", '"text"', "[" * 100_000])
def test_answer_that_is_no_object_is_an_error(api: FakeApi, node: Api, body: str) -> None:
    api.answer("GET", "/x", body)
    with pytest.raises(CommandError, match="did not answer with a JSON object"):
        node.json("GET", "/x")


@pytest.mark.parametrize(
    ("method", "hint"), [("GET", ""), ("PUT", "; it may or may not have been done: look before you send it again")]
)
def test_answer_that_ends_early_is_no_answer(api: FakeApi, node: Api, method: str, hint: str) -> None:
    """A trust bundle cut short would still be PEM."""
    api.answer(method, "/x", "half")
    api.missing_bytes = 4
    with pytest.raises(CommandError, match=f"closed before the whole answer was there{hint}$") as failed:
        node.text(method, "/x")
    assert failed.value.code is Exit.UNREACHABLE


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x03\x00\x02\x02\x46"], ids=["nothing", "an alert"])
def test_port_that_does_not_answer_in_clear_may_speak_tls(answer: bytes) -> None:
    """What servers with TLS do, by their kind."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(CommandError) as failed:
            Api(parse_address(address)).text("PUT", "/x")
        thread.join()
    assert f"; the port may speak TLS: try https://{address}; it may or may not have been done" in str(failed.value)
    assert failed.value.code is Exit.UNREACHABLE


def test_answers_are_bounded(api: FakeApi, node: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MAX_ANSWER_BYTES", 10)
    api.answer("GET", "/x", "x" * 10)
    assert node.text("GET", "/x") == "x" * 10
    api.answer("GET", "/x", "x" * 11)
    with pytest.raises(CommandError, match="is larger than 10 bytes"):
        node.text("GET", "/x")


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(CommandError) as failed:
            Api(parse_address(address)).text("PUT", "/x")
    assert str(failed.value) == f"cannot reach http://{address}: Connection refused"
    assert failed.value.code is Exit.UNREACHABLE


@pytest.mark.timeout(10)
def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_CONNECT_SECONDS", 60)
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CommandError, match=f"^no answer from http://{address} in time$") as failed:
            Api(parse_address(address)).text("GET", "/x")
    assert failed.value.code is Exit.UNREACHABLE


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
def test_name_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(CommandError, match=r"^cannot reach http://a") as failed:
        Api(parse_address(f"{host}:1")).text("GET", "/x")
    assert failed.value.code is Exit.UNREACHABLE


def test_objects_in_an_answer() -> None:
    assert objects({"A": [{"B": 1}]}, "A") == [{"B": 1}]
    assert objects({"A": None}, "A") == objects({}, "A") == []
    for wrong in ("text", {"B": 1}, [1]):
        with pytest.raises(CommandError, match="A is not a list of objects"):
            objects({"A": wrong}, "A")


def test_https_with_client_certificate_and_server_name(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ca = new_ca(now, 1)
    issuer = load_ca(ca.cert_pem, ca.key_pem, now)
    (tmp_path / "ca.pem").write_text(ca.cert_pem)
    for role in ("server", "client"):
        pair = new_cert(issuer, Identity(role), now, 1)
        (tmp_path / f"{role}.pem").write_text(pair.cert_pem)
        (tmp_path / f"{role}-key.pem").write_text(pair.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain("server.pem", "server-key.pem")
    with serving(context) as api:
        api.answer("GET", "/x", {"A": 1})
        origin = parse_address(f"https://{api.address}")
        own = TlsOptions("ca.pem", "client.pem", "client-key.pem", "server.dc1.consul")
        assert Api(origin, tls=own).json("GET", "/x") == {"A": 1}
        for refused in (TlsOptions(), TlsOptions("ca.pem", "client.pem", "client-key.pem", "server.dc2.consul")):
            with pytest.raises(CommandError, match="certificate verify failed") as failed:
                Api(origin, tls=refused).json("GET", "/x")
            assert failed.value.code is Exit.UNREACHABLE


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name, text in (
        ("ca.pem", "--ca-file ca.pem holds no certificate (PEM)"),
        ("missing.pem", "--ca-file missing.pem cannot be read: No such file or directory"),
    ):
        with pytest.raises(CommandError) as caught:
            TlsOptions(name).context()
        assert str(caught.value) == text


def test_find_tells_what_is_not_there_from_trouble(api: FakeApi, node: Api) -> None:
    api.answer("GET", "/x", {"A": 1})
    assert node.find("/x") == {"A": 1}
    assert node.find("/y") is None
    api.answer("GET", "/x", "no", status=403)
    with pytest.raises(CommandError, match=r"^Unexpected response code: 403 \(no\)$"):
        node.find("/x")


@pytest.mark.parametrize(("body", "found"), [("[]", []), ("null\n", []), ('[{"A": 1}]', [{"A": 1}])])
def test_array_of_objects(api: FakeApi, node: Api, body: str, found: list[object]) -> None:
    api.answer("GET", "/x", body)
    assert node.array("/x", query={"a": "b"}) == found
    assert api.last.query == {"dc": "dc2", "a": "b"}


@pytest.mark.parametrize("body", ["", "{}", "[1]", "not json", "0", "[" * 100_000])
def test_answer_that_is_no_array_is_an_error(api: FakeApi, node: Api, body: str) -> None:
    api.answer("GET", "/x", body)
    with pytest.raises(CommandError, match="did not answer with a JSON array of objects"):
        node.array("/x")


def test_errors_do_not_repeat_the_token_that_was_sent(api: FakeApi, node: Api) -> None:
    api.answer("GET", "/x", "unknown token secret", status=403)
    with pytest.raises(CommandError, match=r"\(unknown token <hidden>\)$"):
        node.text("GET", "/x")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(api: FakeApi, status: int) -> None:
    """A token is for the address that somebody has typed, and for no other that an answer names."""

    def answer(server: socket.socket) -> None:
        for _ in range(3):
            connection, _ = server.accept()
            with connection:
                while not connection.recv(65536).endswith((b"\r\n\r\n", b"body")):
                    pass
                lines = (f"HTTP/1.1 {status} Elsewhere", f"Location: http://{api.address}/x", "Content-Length: 0")
                connection.sendall("\r\n".join((*lines, "", "")).encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        node = Api(parse_address(f"127.0.0.1:{server.getsockname()[1]}"), token="secret")
        for ask in (
            lambda: node.text("GET", "/x"),
            lambda: node.download("/x", io.BytesIO(), 10),
            lambda: node.upload("/x", io.BytesIO(b"body"), 4),
        ):
            with pytest.raises(CommandError, match=f"Unexpected response code: {status} "):
                ask()
        thread.join()
    assert not api.requests
