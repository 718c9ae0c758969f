"""What a node looks after by itself, leader or not: room on its disk, the health of its files, its TLS certificate."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NoReturn

from cryptography import x509

from cluster.base.allocator import return_free_memory
from cluster.base.background import attempt
from cluster.base.log import Log
from cluster.base.telemetry import Metrics
from cluster.raft.replica import Replica
from cluster.record.reads import LedgerReads

_LOOK_SECONDS: Final = 10.0
#: The alarm ends when there is this much more than it begins at, so that it does not flap.
_HYSTERESIS: Final = 1.1
_EXPIRY_WARNING: Final = 0.2  # of the certificate's lifetime
_EXPIRY_REPEAT_SECONDS: Final = 3600.0
#: When somebody has to see to another one.
_SOON_SECONDS: Final = 14 * 86_400.0
#: Of the lifetime; a node that renews by itself has it done when a third is left.
_RENEWAL_IS_LATE: Final = 0.25


class DiskSpace:
    """Free space of the data directory, and an alarm while there is too little."""

    def __init__(self, directory: Path, alarm_below_bytes: int, log: Log, metrics: Metrics) -> None:
        self._directory = directory
        self._alarm_below = alarm_below_bytes
        self._log = log
        self._metrics = metrics
        self._is_alarmed = False

    def look(self) -> None:
        found = os.statvfs(self._directory)
        free = found.f_bavail * found.f_frsize
        self._metrics.disk_free_bytes.set(free)
        limit = self._alarm_below * (_HYSTERESIS if self._is_alarmed else 1.0)
        if (free < limit) != self._is_alarmed:
            self._is_alarmed = not self._is_alarmed
            event = "disk.low" if self._is_alarmed else "disk.recovered"
            self._log(event, free_bytes=free, alarm_below_bytes=self._alarm_below, directory=str(self._directory))
        self._metrics.disk_low.set(self._is_alarmed)


class CertificateFiles:
    """Takes renewed certificates into use without a restart, and warns before the present one expires.

    Connections that are open stay; every new one uses the new files. A CA that is *removed* from the CA file stays
    trusted until the next start, because a TLS context cannot forget.
    """

    def __init__(
        self,
        name: str,
        files: Iterable[Path],
        certificate: Path,
        reload: Callable[[], bool | None],
        now: Callable[[], float],
        log: Log,
        metrics: Metrics,
        *,
        renews: bool = False,
    ) -> None:
        """`reload` gives False if the files have to wait; then they are looked at again. `renews`: the node does."""
        self._name = name
        self._files = tuple(files)
        self._certificate = certificate
        self._reload = reload
        self._now = now
        self._log = log
        self._expiry = metrics.node_cert_not_after_seconds.labels(name)
        self._expires_soon = metrics.node_cert_expires_soon.labels(name)
        self._renews = renews
        self._versions = self._version()
        self._failure = ""
        self._not_before, self._not_after = self._read_validity()
        self._warned_at = float("-inf")

    def look(self) -> None:
        before, self._versions = self._versions, self._version()
        if (before != self._versions or self._failure) and not self._took(is_news=before != self._versions):
            return
        self._expiry.set(self._not_after)
        self._warn()

    def _took(self, *, is_news: bool) -> bool:
        """False if the files have to wait. What is refused is looked at again, and said once."""
        failure, self._failure = self._failure, ""
        try:
            if self._reload() is False:
                self._versions = ()
                return False
            self._not_before, self._not_after = self._read_validity()
        except (OSError, ValueError, ssl.SSLError) as error:
            # Perhaps half of the files are there yet, or a certificate is not valid yet: the old ones stay in use.
            self._failure = str(error) or type(error).__name__
            if is_news or self._failure != failure:
                self._log("tls.reload_failed", certificate=self._name, reason=self._failure)
        else:
            self._log("tls.reloaded", certificate=self._name, not_after=self._not_after)
        return True

    def _warn(self) -> None:
        now = self._now()
        left = self._not_after - now
        lifetime = self._not_after - self._not_before
        self._expires_soon.set(left < (_RENEWAL_IS_LATE * lifetime if self._renews else _SOON_SECONDS))
        if left < _EXPIRY_WARNING * lifetime and now - self._warned_at >= _EXPIRY_REPEAT_SECONDS:
            self._warned_at = now
            event = "tls.expires_soon" if left > 0 else "tls.expired"
            self._log(event, certificate=self._name, file=str(self._certificate), not_after=self._not_after)

    def _version(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_version(file) for file in self._files)

    def _read_validity(self) -> tuple[float, float]:
        """Raises: OSError, ValueError."""
        cert = x509.load_pem_x509_certificates(self._certificate.read_bytes())[0]
        return cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()


def _version(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class Scrub:
    """Reads the node's files again, so that damage is found while there are other copies."""

    def __init__(self, replica: Replica, ledger: LedgerReads, log: Log, metrics: Metrics) -> None:
        self._replica = replica
        self._ledger = ledger
        self._log = log
        self._metrics = metrics

    async def look(self) -> None:
        damage = await self._replica.scrub()
        for text in damage:
            self._log("journal.damaged", reason=text, action="a new snapshot takes the place of the damaged file")
        self._metrics.scrub_damage.labels("journal").inc(len(damage))
        found = await self._ledger.call(lambda reader: reader.damage()) or await self._replica.ledger_excess()
        if found:
            self._log("ledger.damaged", reason=found, action="remove this node and add it again with an empty disk")
        self._metrics.scrub_damage.labels("ledger").inc(bool(found))
        self._metrics.scrubs.inc()


async def look_after(
    space: DiskSpace, certificates: Iterable[CertificateFiles], hurry: asyncio.Event, log: Log, metrics: Metrics
) -> NoReturn:
    """For ever; `hurry` (SIGHUP) makes the next look now."""
    watched = tuple(certificates)
    while True:
        attempt("disk space", space.look, log, metrics)
        attempt("memory", return_free_memory, log, metrics)
        for certificate in watched:
            attempt("certificates", certificate.look, log, metrics)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await hurry.wait()
        hurry.clear()


async def keep_scrubbing(scrub: Scrub, interval_seconds: float) -> NoReturn:
    while True:
        await asyncio.sleep(interval_seconds)
        await scrub.look()
