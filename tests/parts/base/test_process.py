"""What a process does to be left alone: tried on real processes, which tell what has come of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECRET = "correct horse battery staple"
VARIABLE = "QUORUMCA_SEAL_PASSPHRASE"


def told_by(code: str, **environment: str) -> Any:
    """What a new process prints as JSON."""
    program = f"import json, os, sys\nfrom cluster.base import process\n{code}"
    environment = {**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout)


def test_files_are_private_and_nothing_of_the_memory_is_left_to_others(tmp_path: Path) -> None:
    code = f"""
import ctypes, resource
os.umask(0)
refused = process.protect()
open({str(tmp_path / "file")!r}, "w").close()
os.mkdir({str(tmp_path / "directory")!r})
print(json.dumps([refused, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)]))
"""
    assert told_by(code) == [[], 0, [0, 0]]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the user that looks")
def test_another_process_of_the_same_user_cannot_read_its_memory() -> None:
    code = """
import ctypes, subprocess
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as a program that was started by that user
def look():
    def reading(name):
        return subprocess.run(["cat", f"/proc/{os.getpid()}/{name}"], capture_output=True).returncode == 0
    return [reading("environ"), reading("auxv"), reading("maps")]
before = look()
process.protect()
print(json.dumps([before, look()]))
"""
    assert told_by(code) == [[True, True, True], [False, False, False]]


def test_variable_that_is_taken_is_nowhere_any_more() -> None:
    """Neither for a process that is started afterwards nor where others read what this one was started with."""
    code = f"""
import subprocess
value = os.read(process.take_from_environment({VARIABLE!r}), 1000).decode()
child = subprocess.run([sys.executable, "-c", "import os; print(sorted(os.environ))"], capture_output=True, text=True)
shown = open(f"/proc/{{os.getpid()}}/environ", "rb").read()
other = os.environ["KEPT"]
print(json.dumps([value, {VARIABLE!r} in child.stdout, "horse" in shown.decode(), b"KEPT=kept" in shown, other]))
"""
    assert told_by(code, **{VARIABLE: SECRET, "KEPT": "kept"}) == [SECRET, False, False, True, "kept"]


def test_variable_that_is_taken_is_not_in_memory_either() -> None:
    """As long as nobody has copied the environment before."""
    pattern = f"[{SECRET[0]}]{SECRET[1:]}".encode()  # which is not what it looks for
    code = f"""
import re
def looks():
    found, pattern = 0, re.compile({pattern!r})
    with open("/proc/self/mem", "rb", 0) as memory:
        for line in open("/proc/self/maps"):
            span, access, *_ = line.split()
            begin, end = (int(bound, 16) for bound in span.split("-"))
            if "rw" in access and "[v" not in line:
                memory.seek(begin)
                found += len(pattern.findall(memory.read(end - begin)))
    return found
"""
    # What was free is used again, at some time: nobody waits for that.
    wiped = f"held = os.environb._data[{VARIABLE.encode()!r}]\nprocess.take_from_environment({VARIABLE!r})\n"
    assert told_by(f"{wiped}print(json.dumps(held.hex()))", **{VARIABLE: SECRET}) == "00" * len(SECRET)
    # In a process for each: what the first look has read would be found by the second.
    assert told_by(f"{code}print(json.dumps(looks() > 0))", **{VARIABLE: SECRET})
    taken = f"reading = process.take_from_environment({VARIABLE!r})\n"
    told = told_by(f"{code}{taken}print(json.dumps([looks(), os.read(reading, 1000).decode()]))", **{VARIABLE: SECRET})
    assert told == [0, SECRET]


def test_variable_that_is_too_long_is_taken_out_and_an_error() -> None:
    code = f"""
try:
    process.take_from_environment({VARIABLE!r})
except ValueError as error:
    print(json.dumps([str(error), {VARIABLE!r} in os.environ]))
"""
    text, is_there = told_by(code, **{VARIABLE: "x" * 5_000})
    assert (text, is_there) == (f"{VARIABLE} has 5000 bytes: must be at most 4096", False)


def test_variable_of_one_letter_leaves_that_letter_to_others() -> None:
    code = f"""
os.close(process.take_from_environment({VARIABLE!r}))
print(json.dumps([ord(b"x1"[1:]), ord(b"1")]))
"""
    assert told_by(code, **{VARIABLE: "1"}) == [ord("1"), ord("1")]


def test_variable_that_is_not_there_is_none() -> None:
    assert told_by("print(json.dumps(process.take_from_environment('NO_SUCH_THING')))") is None


def test_what_the_system_refuses_is_told_and_costs_nothing_else() -> None:
    code = """
def refuse(*_):
    raise PermissionError(1, "Operation not permitted")
os.nice = process._prctl = process.resource.setrlimit = refuse
print(json.dumps([process.protect(), process.be_nicer(5), process.end_with_parent(9)]))
"""
    refused = "[Errno 1] Operation not permitted"
    assert told_by(code) == [
        [f"core dumps cannot be switched off: {refused}", f"debuggers of the same user cannot be refused: {refused}"],
        [f"the priority cannot be lowered: {refused}"],
        [f"the parent's death would not be noticed: {refused}"],
    ]
