"""Errors of the system and of libraries in words for a person."""

import errno
import json
import socket
import ssl

import pytest

from cluster.base.words import plain
from tests.kit.words import assert_plain


def _json_error() -> json.JSONDecodeError:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    return caught.value


def _tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] text (_ssl.c:1000)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, "No such file or directory", "x"), "No such file or directory"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError(), "it took too long"),
        (ConnectionResetError(), "the connection was closed"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed"), "the connection was closed"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "it is not text in UTF-8"),
        (_json_error(), "it is not JSON: expecting property name enclosed in double quotes (line 1, column 2)"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (TypeError("Meta.__init__() got an unexpected keyword argument 'x'"), "it cannot be read"),
        (_tls_error("WRONG_VERSION_NUMBER"), "wrong version number"),
        (_tls_error("EE_KEY_TOO_SMALL"), "the key is too small: must be RSA of 2048 bits or more, or EC"),
        (ssl.SSLError("x (_ssl.c:1)"), "the other side does not speak TLS, or ended the handshake"),
        (
            ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1)"),
            "the other side does not speak TLS, or",
        ),
    ],
)
def test_reason_is_told_without_what_is_for_programmers(error: BaseException, text: str) -> None:
    assert plain(error).startswith(text)
    assert_plain(plain(error))


def test_refused_certificate_is_told_in_openssls_words() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_message = "certificate has expired"
    assert plain(error) == "its certificate is refused: certificate has expired"
