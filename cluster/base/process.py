"""What a process that holds secrets does first: it keeps others of its user out of its memory, and out of its files.

What the system refuses (a sandbox, another kernel) is told and costs nothing else: a node that cannot be protected as
well as it should be is better than none, and the log says so.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
#: Nothing that a node writes is for anybody but its user.
_UMASK: Final = 0o077
_MAX_VALUE: Final = 4096  # PIPE_BUF
#: They ask a node to stop, or to look at its files again. A terminal (Ctrl-C, or when it is closed) and a service
#: manager send them to all of a node's processes, of which the main one decides when the others end.
NODE_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def protect() -> list[str]:
    """No core dumps, no debugger of the same user (prctl(2), PR_SET_DUMPABLE), files for this user alone.

    Returns what was refused, in words.
    """
    os.umask(_UMASK)
    refused = [
        _refusal("core dumps cannot be switched off", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
        _refusal("debuggers of the same user cannot be refused", lambda: _prctl(_PR_SET_DUMPABLE, 0)),
    ]
    return [text for text in refused if text]


def end_with_parent(number: int) -> list[str]:
    """Have this signal sent to this process when its parent dies. Returns what was refused."""
    text = _refusal("the parent's death would not be noticed", lambda: _prctl(_PR_SET_PDEATHSIG, number))
    return [text] if text else []


def be_nicer(by: int) -> list[str]:
    """Where there is less CPU than work, others come first. Returns what was refused."""
    text = _refusal("the priority cannot be lowered", lambda: os.nice(by))
    return [text] if text else []


def take_from_environment(name: str) -> int | None:
    """A descriptor from which a variable's value can be read, once, by whoever has it; None where there is no such
    variable. It is in the environment no more: neither for processes that are started later, nor where others read what
    this one was started with (/proc/PID/environ); and not in this process's memory, if it is taken before anything
    copies the environment, as modules of the standard library do (wsgiref).

    Raises: ValueError for a value of more than 4 KiB, which is taken out all the same.
    """
    key = os.fsencode(name)
    if key not in os.environb:
        return None
    _overwrite(name)
    value = os.environb.pop(key)
    try:
        if len(value) > _MAX_VALUE:
            raise ValueError(f"{name} has {len(value)} bytes: must be at most {_MAX_VALUE}")
        reading, writing = os.pipe()
        with open(writing, "wb", 0) as file:
            file.write(value)  # as much as every pipe takes at once: nobody is waited for
        return reading
    finally:
        _wipe(value)


def _wipe(value: bytes) -> None:
    """Of an object that nobody else has. CPython leaves its text in memory that is free."""
    # Of a single byte there is one object, which everybody has.
    if sys.implementation.name == "cpython" and len(value) > 1:
        ctypes.memset(id(value) + bytes.__basicsize__ - 1, 0, len(value))


def _overwrite(name: str) -> None:
    """`unsetenv` only forgets where the text is. Nothing of it is copied."""
    library = ctypes.CDLL(None)
    try:
        entries = ctypes.POINTER(ctypes.c_void_p).in_dll(library, "environ")
    except (ValueError, OSError):  # a C library that does not show it
        return
    library.strncmp.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
    library.strlen.argtypes, library.strlen.restype = (ctypes.c_void_p,), ctypes.c_size_t
    prefix = os.fsencode(name) + b"="
    position = 0
    while address := entries[position]:
        if library.strncmp(address, prefix, len(prefix)) == 0:
            ctypes.memset(address + len(prefix), 0, library.strlen(address) - len(prefix))
        position += 1


@contextlib.contextmanager
def block_node_signals() -> Iterator[None]:
    """Processes that are started in this context never get NODE_SIGNALS."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NODE_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    prctl = getattr(library, "prctl", None)
    if prctl is None:
        raise OSError("this system has no prctl")
    if prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _refusal(what: str, ask: Callable[[], object]) -> str:
    try:
        ask()
    except (OSError, ValueError) as error:  # ValueError: setrlimit's, in some Pythons
        return f"{what}: {error}"
    return ""
