"""Look-ups of names that hang: they take their own places, once each, for as long as their threads are there."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from cluster.access.methods.resolving import Names
from tests.kit.wait import until


class Resolver:
    """Hangs for names that begin with `hangs`, until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("hangs"):
            self.go_on.wait(60)
        if host.startswith("slow"):
            time.sleep(0.1)
        if host.endswith("nowhere"):
            raise OSError(-2, "Name or service not known")
        if host.endswith("wild"):
            raise UnicodeError("label too long")
        return ["192.0.2.1", "2001:db8::1"]


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.go_on.set()


async def given_up(names: Names, host: str, seconds: float = 0.05) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await names(host, 443)


async def test_a_name_has_its_addresses_and_its_troubles(resolver: Resolver) -> None:
    names = Names(resolver)
    assert await names("a.example", 443) == ["192.0.2.1", "2001:db8::1"]
    with pytest.raises(OSError, match="not known"):
        await names("nowhere", 443)
    with pytest.raises(OSError, match="it is not the name of a host"):
        await names("wild", 443)
    assert "127.0.0.1" in await Names()("localhost", 443)
    assert len(names._under_way) == 0


async def test_a_host_whose_look_up_hangs_gets_no_second_one(resolver: Resolver) -> None:
    names = Names(resolver, places=4)
    for _ in range(3):
        await asyncio.gather(*(given_up(names, "hangs.example") for _ in range(20)))
    assert resolver.asked == ["hangs.example"]
    # Nor do others wait for it: not in the resolver, and not in the event loop's own.
    began = time.monotonic()
    for k in range(20):
        assert await names(f"h{k}.example", 443)
    assert await asyncio.get_running_loop().getaddrinfo("localhost", 1)
    assert time.monotonic() - began < 3
    waiting = asyncio.create_task(names("hangs.example", 443))
    await asyncio.sleep(0.01)
    resolver.go_on.set()
    assert await waiting == ["192.0.2.1", "2001:db8::1"]
    assert await names("hangs.example", 443)
    assert resolver.asked.count("hangs.example") == 2


async def test_look_ups_that_hang_are_so_many_until_their_threads_are_done(resolver: Resolver) -> None:
    names = Names(resolver, places=3, wait_seconds=0.05)
    before = threading.active_count()
    for _ in range(5):
        await asyncio.gather(*(given_up(names, f"hangs{k}.example") for k in range(3)))
        for host in ("hangs4.example", "good.example"):
            with pytest.raises(OSError, match="busy: 3 other names are being looked up"):
                await names(host, 443)
    assert threading.active_count() == before + 3
    assert await names("192.0.2.7", 443) == ["192.0.2.7"]  # it is no name
    resolver.go_on.set()
    await until(lambda: len(names._under_way) == 0)
    assert await names("good.example", 443)


async def test_many_names_at_once_wait_for_each_other(resolver: Resolver) -> None:
    names = Names(resolver, places=3)
    found = await asyncio.gather(*(names(f"h{k % 40}.example", 443) for k in range(200)))
    assert len(found) == 200
    assert (names._free._value, len(names._under_way)) == (3, 0)


async def test_who_waits_for_a_place_gets_the_look_up_that_somebody_else_has_begun_meanwhile(
    resolver: Resolver,
) -> None:
    names = Names(resolver, places=2)
    slow = [asyncio.create_task(names(f"slow{k}.example", 443)) for k in range(2)]
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(names("hangs.example", 443)) for _ in range(5)]
    await asyncio.gather(*slow)
    await until(lambda: "hangs.example" in resolver.asked)
    assert await names("good.example", 443)
    assert resolver.asked.count("hangs.example") == 1
    resolver.go_on.set()
    assert len(await asyncio.gather(*waiting)) == 5
    await until(lambda: names._free._value == 2)


async def test_thread_that_cannot_be_had_takes_no_place(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = Names(resolver, places=1, wait_seconds=0.05)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for _ in range(3):
            with pytest.raises(OSError, match="no thread could be had"):
                await names("a.example", 443)
    assert await names("a.example", 443)


async def test_trouble_that_nobody_waits_for_any_more_is_not_said(resolver: Resolver) -> None:
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
    names = Names(resolver)
    await given_up(names, "hangs.nowhere")
    resolver.go_on.set()
    await until(lambda: len(names._under_way) == 0)
    await asyncio.sleep(0.01)
    gc.collect()
    assert said == []


def test_loop_that_is_gone_is_told_nothing(resolver: Resolver) -> None:
    async def ask() -> None:
        await given_up(Names(resolver), "hangs.example")

    asyncio.run(ask())
    resolver.go_on.set()
    for thread in threading.enumerate():
        if thread.name == "look-up":
            assert thread.daemon
            thread.join(5)
            assert not thread.is_alive()
