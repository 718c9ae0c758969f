"""Tests of this folder are functions: what starts a process or a thread, or opens a connection, is in tests/parts."""

import asyncio
import socket
import subprocess
import threading
from typing import Any, Final

import pytest

_BANNED: Final = (
    (threading.Thread, "start"),
    (subprocess.Popen, "__init__"),
    (socket.socket, "connect"),
    (asyncio.BaseEventLoop, "create_server"),
)


@pytest.fixture(autouse=True)
def _stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError(
            "a test of tests/unit starts no process or thread and opens no connection: tests/parts may"
        )

    for owner, name in _BANNED:
        monkeypatch.setattr(owner, name, refused)
