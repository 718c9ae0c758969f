"""System call filters (seccomp(2), mode filter) as programs of the classic Berkeley packet filter, and their loading.

Small on purpose: what units of systemd need, for the machine that the tests run on.
"""

import ctypes
import platform
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.kit.syscalls import AARCH64, X86_64

Program = bytes

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
#: linux/audit.h
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, X86_64), "aarch64": (0xC00000B7, AARCH64)}
_X32_BIT: Final = 0x40000000

#: linux/bpf_common.h; struct seccomp_data has the number, the architecture, and the arguments from 16 on.
_LOAD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_AND: Final = 0x54
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16
_INSTRUCTION: Final = struct.Struct("=HBBI")


@dataclass(frozen=True, slots=True)
class Only:
    """A call whose argument (its low half) must be one of these; none: the call is refused."""

    call: str
    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """A call whose argument may have none of these bits."""

    call: str
    argument: int
    bits: int


@dataclass(frozen=True, slots=True)
class NotAll:
    """A call whose argument may not have all of these bits together."""

    call: str
    argument: int
    bits: int


Rule = Only | Without | NotAll


def unavailable() -> str:
    """Why there can be no filter here; empty where there can."""
    if platform.machine() not in _ARCHITECTURES:
        return f"no table of system calls for {platform.machine()}"
    library = ctypes.CDLL(None, use_errno=True)
    # Without a program the kernel says "bad address" if it knows filters, and something else if not (prctl(2)).
    if not hasattr(library, "prctl") or library.prctl(_PR_SET_SECCOMP, _MODE_FILTER, None, 0, 0) == 0:
        return "no seccomp"
    return "" if ctypes.get_errno() == 14 else f"the kernel has no seccomp filters (error {ctypes.get_errno()})"


def only(calls: Iterable[str], error: int) -> Program:
    """Lets these calls through; all others fail with this error."""
    numbers = _ARCHITECTURES[platform.machine()][1]
    body = b"".join(
        _instruction(_JUMP_EQUAL, numbers[name], 0, 1) + _instruction(_RETURN, _ALLOW)
        for name in sorted(calls)
        if name in numbers  # another machine's
    )
    return _head() + body + _instruction(_RETURN, _ERRNO | error)


def rules(wanted: Sequence[Rule], error: int) -> Program:
    """Calls that break a rule fail with this error; all others are let through."""
    numbers = _ARCHITECTURES[platform.machine()][1]
    body = b""
    for rule in wanted:
        if rule.call in numbers:
            check = _check(rule, error)
            length = len(check) // _INSTRUCTION.size
            body += _instruction(_JUMP_EQUAL, numbers[rule.call], 0, length) + check
    return _head() + body + _instruction(_RETURN, _ALLOW)


def install(program: Program) -> None:
    """For this process and what it starts, for good. Raises: OSError."""

    class _Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    count = len(program) // _INSTRUCTION.size
    loaded = _Filter(count, program)
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(loaded), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"a filter of {count} instructions was not taken")


def _head() -> Program:
    """Other kinds of system calls than the machine's own end the process or are refused."""
    architecture = _ARCHITECTURES[platform.machine()][0]
    return (
        _instruction(_LOAD, _ARCHITECTURE_AT)
        + _instruction(_JUMP_EQUAL, architecture, 1, 0)
        + _instruction(_RETURN, _KILL_PROCESS)
        + _instruction(_LOAD, _NUMBER_AT)
        + _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1)
        + _instruction(_RETURN, _KILL_PROCESS)
    )


def _check(rule: Rule, error: int) -> Program:
    """Decides: nothing comes after it for this call."""
    load = _instruction(_LOAD, _ARGUMENTS_AT + 8 * rule.argument)
    refuse, allow = _instruction(_RETURN, _ERRNO | error), _instruction(_RETURN, _ALLOW)
    match rule:
        case Only(values=values):
            tests = b"".join(_instruction(_JUMP_EQUAL, value, 0, 1) + allow for value in values)
            return load + tests + refuse
        case Without(bits=bits):
            return load + _instruction(_JUMP_ANY_BIT, bits, 0, 1) + refuse + allow
        case NotAll(bits=bits):
            return load + _instruction(_AND, bits) + _instruction(_JUMP_EQUAL, bits, 0, 1) + refuse + allow


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> Program:
    return _INSTRUCTION.pack(code, if_true, if_false, value)
