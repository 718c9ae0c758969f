"""The machine and the versions behind the numbers."""

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil
from cryptography.hazmat.backends.openssl import backend

_PACKAGES: Final = ("quorumca", "pysyncobj", "cryptography", "aiohttp", "uvloop", "msgpack")
_SYNCS: Final = 100
_BLOCK: Final = bytes(4096)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the numbers were measured on."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    filesystem: str
    fsync_ms: float  # median of 4 KB appended and synced, as the log does it
    versions: Mapping[str, str]


def describe_machine(data_dir: Path) -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        kernel=f"{platform.system()} {platform.release()}",
        filesystem=_filesystem(data_dir),
        fsync_ms=round(_fsync_ms(data_dir), 3),
        versions=_versions(),
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _filesystem(path: Path) -> str:
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(mount.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown"


def _fsync_ms(directory: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            file.write(_BLOCK)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "openssl": backend.openssl_version_text()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


class StolenTime:
    """How much of the machine its host gave to others since this was made."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def percent(self) -> float:
        now = psutil.cpu_times()
        total = sum(now) - sum(self._before)
        stolen = getattr(now, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return round(100 * stolen / total, 2) if total else 0.0
