"""Where in a worker a call is done: beside those for other providers, if it may take long."""

import io
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.seal.cover import Cover
from cluster.seal.keeper import new_cover_key
from cluster.signing.worker import Host, _Server

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
