"""The sandbox of deploy/quorumca.service, taken from the file and applied to small processes: what it lets through.

tests/integration/test_unit_file.py runs whole nodes in it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit import seccomp
from tests.kit.unit_file import allowed_calls, read_service

PROJECT = Path(__file__).parents[2]
UNIT = PROJECT / "deploy" / "quorumca.service"
#: What a program says of a call: its errno, or 0.
ATTEMPT = """
import ctypes, json, mmap, os, resource, socket, sys
def attempt(do):
    try:
        do()
    except OSError as error:
        return error.errno
    return 0
"""

needs_seccomp = pytest.mark.skipif(seccomp.unavailable() != "", reason=seccomp.unavailable() or "there is one")


def told_in(unit: Path, code: str) -> Any:
    command = [sys.executable, "-P", "-m", "tests.kit.in_unit", str(unit), "--", sys.executable, "-c", ATTEMPT + code]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_filter_is_read_as_the_service_manager_reads_it() -> None:
    assert allowed_calls(["read write"]) >= {"read", "write", "execve"}  # with what every program needs
    assert "openat" not in allowed_calls(["read write"])
    assert allowed_calls(["@resources", "~@resources", "setpriority"]) - allowed_calls([""]) == {"setpriority"}
    assert "clock_settime" not in allowed_calls(["@system-service @clock", "~@privileged"])
    allowed = allowed_calls(read_service(UNIT)["SystemCallFilter"])
    assert allowed >= {"setpriority", "prctl", "fdatasync", "clone3"}
    assert not allowed & {"ptrace", "mount", "chown", "setuid", "clock_settime", "bpf", "process_vm_write"}


@needs_seccomp
def test_what_a_node_needs_is_let_through_and_what_it_never_needs_is_not() -> None:
    code = """
packet = lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
library = ctypes.CDLL(None, use_errno=True)
library.malloc.restype = ctypes.c_size_t
library.mprotect.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
def called(name, *arguments):
    def call():
        if getattr(library, name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)
    return call
print(json.dumps({
    "nice": attempt(lambda: os.nice(5)),
    "umask": attempt(lambda: os.umask(0o077)) or os.umask(0o077),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "inet": attempt(lambda: socket.socket(socket.AF_INET).close()),
    "packet": attempt(packet),
    "chown": attempt(lambda: os.chown("/tmp", -1, -1)),
    "setuid bit": attempt(lambda: os.chmod("/tmp/no such file", 0o4755)),
    "plain bits": attempt(lambda: os.chmod("/tmp/no such file", 0o755)),
    "namespace": attempt(called("unshare", 0x10000000)),
    "setns": attempt(called("setns", 0, 0)),
    "ptrace": attempt(called("ptrace", 16, 1, 0, 0)),
    "personality": attempt(called("personality", 0x0040000)),
    "its own": attempt(called("personality", 0xFFFFFFFF)),
    "code": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()),
    "code to write": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close()),
    "code later": attempt(called("mprotect", library.malloc(4096) & ~4095, 4096, 5)),
    "program": os.spawnv(os.P_WAIT, "/bin/true", ["true"]),
}))
"""
    assert told_in(UNIT, code) == {
        "nice": 0,
        "umask": 0o077,
        "core": 0,
        "inet": 0,
        "packet": 97,
        "chown": 1,
        "setuid bit": 1,
        "plain bits": 2,
        "namespace": 1,
        "setns": 1,
        "ptrace": 1,
        "personality": 1,
        "its own": 0,
        "code": 0,
        "code to write": 1,
        "code later": 1,
        "program": 0,
    }


@needs_seccomp
def test_filter_that_is_in_the_file_is_the_one_that_counts(tmp_path: Path) -> None:
    """What was wrong with it once: the processes that sign lower their priority."""
    stricter = tmp_path / "quorumca.service"
    stricter.write_text(UNIT.read_text().replace(" setpriority\n", "\n"))
    assert told_in(stricter, "print(json.dumps(attempt(lambda: os.nice(5))))") == 1


def _systemd() -> str:
    if shutil.which("systemd-analyze") is None:
        return "none"
    done = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, timeout=60, check=False)
    return " ".join(done.stdout.split()[:2])


@pytest.mark.skipif(_systemd() != "systemd 252", reason=f"judged by systemd 252, and this is {_systemd()}")
def test_unit_has_the_score_that_is_documented() -> None:
    page = (PROJECT / "docs" / "security.md").read_text()
    [said] = re.findall(r"judges it: (\d\.\d) of 10", page)
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=100", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert f"Overall exposure level for quorumca.service: {said} " in done.stdout, done.stderr
    # Every line that is not closed is explained.
    rows = "".join(re.findall(r"^\| .* \| \d\.\d \| .*$", page, re.MULTILINE))
    for name in re.findall(r"^✗ (\S+)", done.stdout, re.MULTILINE):
        key = re.sub(r"^\w+=~|=.*$", "", name)
        assert key.replace("AF_(INET|INET6)", "AF_INET") in rows, name
    points = sum(float(found) for found in re.findall(r"^✗ .* (\d\.\d) *$", done.stdout, re.MULTILINE))
    assert points == pytest.approx(
        sum(float(found) for found in re.findall(r"^\| .* \| (\d\.\d) \| ", page, re.MULTILINE))
    )
