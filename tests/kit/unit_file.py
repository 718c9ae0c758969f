"""A systemd unit as far as a test can have it: the sandbox of its [Service] that needs neither systemd nor root.

What is left out: everything that needs a mount namespace of its own (ProtectSystem, PrivateTmp, ...), and TasksMax.
"""

import ctypes
import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kit import seccomp
from tests.kit.seccomp import NotAll, Only, Program, Without
from tests.kit.syscalls import SETS

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_LAST_CAPABILITY: Final = 40
_FAMILIES: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
_NAMESPACES: Final = 0x7E020080  # every CLONE_NEW* of sched.h
_SET_ID_BITS: Final = 0o6000
_WRITE: Final = 2  # PROT_WRITE
_EXECUTE: Final = 4  # PROT_EXEC
_SHM_EXECUTE: Final = 0o100000
_EPERM: Final = 1
_ENOSYS: Final = 38
_EAFNOSUPPORT: Final = 97


def read_service(path: Path) -> dict[str, list[str]]:
    """The values of each key of [Service], in their order; a key may be there more than once."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        if text[0] == "[":
            section = text
        elif section == "[Service]":
            key, _, value = text.partition("=")
            values.setdefault(key.strip(), []).append(value.strip())
    return values


def allowed_calls(filters: Iterable[str]) -> frozenset[str]:
    """What SystemCallFilter= leaves, line after line (systemd.exec(5)): the first says that it is a list of what is
    allowed, ~ takes away, and a line after that adds again.
    """
    allowed = set(SETS["@default"])
    for position, line in enumerate(filters):
        takes_away = line.startswith("~")
        assert not (takes_away and position == 0), "a list of what is forbidden is not understood here"
        names = _expanded(line.removeprefix("~").split())
        allowed = allowed - names if takes_away else allowed | names
    return frozenset(allowed)


def _expanded(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        found |= _expanded(SETS[name]) if name.startswith("@") else {name}
    return found


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is applied to a process before it becomes another program."""

    programs: tuple[Program, ...]
    umask: int
    limits: Mapping[int, int]

    def enter(self) -> None:
        """For good, for this process and all that it starts. Raises: OSError where the kernel cannot."""
        os.umask(self.umask)
        for which, limit in self.limits.items():
            hard = resource.getrlimit(which)[1]
            resource.setrlimit(which, (limit, limit) if hard == resource.RLIM_INFINITY else (min(limit, hard),) * 2)
        if os.geteuid() == 0:  # CapabilityBoundingSet=, from the next program on
            for capability in range(_LAST_CAPABILITY + 1):
                _prctl(_PR_CAPBSET_DROP, capability)
        if _prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        for program in self.programs:
            seccomp.install(program)


def sandbox(service: Mapping[str, list[str]]) -> Sandbox:
    """Raises: KeyError for a unit that lacks what is exercised here."""
    programs = [
        seccomp.only(allowed_calls(service["SystemCallFilter"]), _EPERM),
        seccomp.rules(
            [Only("socket", 0, tuple(_FAMILIES[name] for name in _one(service, "RestrictAddressFamilies").split()))],
            _EAFNOSUPPORT,
        ),
    ]
    assert _one(service, "SystemCallErrorNumber") == "EPERM"
    assert _one(service, "SystemCallArchitectures") == "native"
    if _one(service, "RestrictNamespaces") == "yes":
        programs.append(
            seccomp.rules(
                [Without("clone", 0, _NAMESPACES), Without("unshare", 0, _NAMESPACES), Only("setns", 0, ())], _EPERM
            )
        )
        programs.append(seccomp.rules([Only("clone3", 0, ())], _ENOSYS))  # its flags cannot be seen
    if _one(service, "LockPersonality") == "yes":
        programs.append(seccomp.rules([Only("personality", 0, (0, 0xFFFFFFFF))], _EPERM))
    if _one(service, "MemoryDenyWriteExecute") == "yes":
        programs.append(
            seccomp.rules(
                [
                    NotAll("mmap", 2, _WRITE | _EXECUTE),
                    Without("mprotect", 2, _EXECUTE),
                    Without("pkey_mprotect", 2, _EXECUTE),
                    Without("shmat", 2, _SHM_EXECUTE),
                ],
                _EPERM,
            )
        )
    if _one(service, "RestrictSUIDSGID") == "yes":
        programs.append(
            seccomp.rules(
                [
                    Without("chmod", 1, _SET_ID_BITS),
                    Without("fchmod", 1, _SET_ID_BITS),
                    Without("fchmodat", 2, _SET_ID_BITS),
                    Without("mkdir", 1, _SET_ID_BITS),
                    Without("mkdirat", 2, _SET_ID_BITS),
                ],
                _EPERM,
            )
        )
    assert _one(service, "NoNewPrivileges") == "yes"
    limits = {
        resource.RLIMIT_NOFILE: int(_one(service, "LimitNOFILE")),
        resource.RLIMIT_CORE: int(_one(service, "LimitCORE")),
    }
    return Sandbox(tuple(programs), int(_one(service, "UMask"), 8), limits)


def _one(service: Mapping[str, list[str]], key: str) -> str:
    [value] = service[key]
    return value


def _prctl(option: int, value: int) -> int:
    arguments = (ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, *arguments))
