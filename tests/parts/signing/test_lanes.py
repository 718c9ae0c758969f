"""Where in a worker a call is done: beside those for other providers, if it may take long."""

import io
import socket
import threading
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from cluster.seal.cover import Cover
from cluster.seal.keeper import new_cover_key
from cluster.signing.worker import FRAME_HEADER, Host, _Server
from tests.kit.wait import wait_until

KEY = "k"


@pytest.mark.parametrize(("provider", "is_aside"), [("consul", False), ("vault", True)])
def test_who_asks_a_backend_does_not_sign_where_every_call_begins(provider: str, *, is_aside: bool) -> None:
    """Not even once: it may not answer, and the CA in use is in the same process."""
    host = Host(Cover(new_cover_key()))
    host._providers[KEY] = SimpleNamespace(name=provider)  # type: ignore[assignment]
    threads: list[threading.Thread] = []
    done = threading.Event()

    def sign(*_: object) -> list[Any]:
        threads.append(threading.current_thread())
        done.set()
        return []

    host.operations["sign_leaves"] = sign
    server = _Server(host, io.BytesIO(), io.BytesIO())
    server._dispatch(KEY, "sign_leaves", [1, "sign_leaves", [KEY, [], 0, []]])
    assert done.wait(5)
    assert (threads != [threading.current_thread()]) is is_aside


def test_parent_that_is_gone_while_a_backend_is_asked_ends_it_quietly() -> None:
    """The answer comes when there is nobody left to be told, nor anything to tell it by."""
    ours, theirs = socket.socketpair()
    entered, gate = threading.Event(), threading.Event()
    failed: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        with theirs, theirs.makefile("rb") as incoming, theirs.makefile("wb") as outgoing:
            host = Host(Cover(new_cover_key()))

            def slow(_key: str) -> str:
                entered.set()
                gate.wait(10)
                return "warnings"

            host.operations["warnings"] = slow
            server = _Server(host, incoming, outgoing)
            body = msgpack.packb([1, "warnings", [KEY]])
            ours.sendall(FRAME_HEADER.pack(len(body)) + body)
            assert _answered_in_a_lane(server, ours, entered)
        gate.set()
        lane = server._lanes[KEY]
        wait_until("the lane has answered", lambda: bool(failed) or lane.is_idle)
    finally:
        threading.excepthook = before
    assert not failed


def _answered_in_a_lane(server: _Server, ours: socket.socket, entered: threading.Event) -> bool:
    serving = threading.Thread(target=server.serve)
    serving.start()
    is_entered = entered.wait(10)
    ours.close()
    serving.join(10)
    return is_entered and not serving.is_alive()
