"""A process that is asked to end while its event loop stands still, and one whose loop turns."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
DEADLINE_SECONDS = 20.0

#: `block` holds up the loop as a library's system call does: it goes on after a signal, and no Python runs meanwhile.
PROGRAM = """
import asyncio, ctypes, os, signal, sys, threading, time
import uvloop
from cluster.node.last_resort import last_resort

def block():
    reader, _ = os.pipe()
    print("blocks", flush=True)
    ctypes.CDLL(None).read(reader, ctypes.create_string_buffer(1), 1)

def stuck_report(reason):
    threading.Event().wait()

def say(reason):
    print(reason, flush=True)

async def run():
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: print("reloads", flush=True))
    loop.add_signal_handler(signal.SIGUSR1, block)
    with last_resort(loop, stuck_report if "stuck" in sys.argv else say, 0.4):
        print("runs", flush=True)
        await ended.wait()
        await asyncio.sleep(1.0)  # stopping in order takes longer than the loop may stand still
    print("ends", flush=True)

uvloop.run(run())
"""


@contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert line(process) == "runs"
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def blocked(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGUSR1)
    assert line(process) == "blocks"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_whose_loop_turns_handles_its_signals_and_stops_in_order(number: signal.Signals) -> None:
    with program() as process:
        process.send_signal(signal.SIGHUP)
        assert line(process) == "reloads"
        process.send_signal(number)
        assert line(process) == "ends"
        assert process.wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_whose_loop_stands_still_ends_by_itself_and_says_why(number: signal.Signals) -> None:
    with program() as process:
        blocked(process)
        process.send_signal(number)
        wanted = f"asked to end by {number.name}, and the API has stood still for [0-9] s since"
        assert re.fullmatch(wanted, line(process))
        assert process.wait(DEADLINE_SECONDS) == 1


def test_loop_that_comes_to_a_stop_while_the_process_ends_does_not_keep_it() -> None:
    with program() as process:
        process.send_signal(signal.SIGTERM)
        blocked(process)
        assert line(process).startswith("asked to end by SIGTERM")
        assert process.wait(DEADLINE_SECONDS) == 1


def test_process_ends_although_nothing_can_be_reported() -> None:
    with program("stuck") as process:
        blocked(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 1


def test_standing_still_is_no_reason_to_end_as_long_as_nobody_asks() -> None:
    with program() as process:
        blocked(process)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.0)
