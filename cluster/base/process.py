"""What a process that holds secrets does first: it keeps others of its user out of its memory, and out of its files.

What the system refuses (a sandbox, another kernel) is told and costs nothing else: a node that cannot be protected as
well as it should be is better than none, and the log says so.
"""

import ctypes
import os
import resource
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
#: Nothing that a node writes is for anybody but its user.
_UMASK: Final = 0o077


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


def take_from_environment(name: str) -> str | None:
    """A variable's value, which is in the environment no more: neither for processes that are started later, nor where
    others read what this one was started with (/proc/PID/environ).
    """
    value = os.environ.get(name)
    if value is None:
        return None
    _overwrite(name)
    del os.environ[name]
    return value


def _overwrite(name: str) -> None:
    """`unsetenv` only forgets where the text is."""
    try:
        entries = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    except (ValueError, OSError):  # a C library that does not show it
        return
    prefix = os.fsencode(name) + b"="
    position = 0
    while address := entries[position]:
        text = ctypes.string_at(address)
        if text.startswith(prefix):
            ctypes.memset(address + len(prefix), 0, len(text) - len(prefix))
        position += 1


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
