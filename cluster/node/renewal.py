"""A server's own certificate, renewed by the cluster while it is valid (`tls.renew`).

The key stays: it is what the others know this server by, so no pin has to move before the new certificate is used, and
one file takes the place of one file, whenever the process ends. Another key comes with `quorumca join -rejoin -new-key`
or from an operator's files (pinning.py).

It is asked for when two thirds of the life are over, at a moment of its own, so that servers which were made together
do not ask together. What fails is tried again for as long as the certificate is valid; afterwards nobody hears this
server any more, and the way back is a token (`quorumca join -rejoin`).
"""

import asyncio
import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from cluster.base.clock import Clock
from cluster.base.config import NodeConfig
from cluster.base.errors import ClusterError
from cluster.base.log import Log
from cluster.base.words import plain
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import RENEW_NODE, RenewNodeRequest
from providers.errors import ProviderError

#: Of the certificate's life, when it is asked for.
_EARLIEST: Final = 0.62
_LATEST: Final = 0.70
#: Of the life: how long until what failed is tried again; within these bounds.
_AGAIN: Final = 0.02
_LEAST_PAUSE_SECONDS: Final = 0.5
_MOST_PAUSE_SECONDS: Final = 300.0
#: However long the life is: an operator may put another certificate into the file.
_LOOK_SECONDS: Final = 60.0
_MAX_FILE_BYTES: Final = 64 << 10


class _Unusable(ValueError):
    """What is in the files, or has come as an answer."""


@dataclass(frozen=True, slots=True)
class _Present:
    """What is in the files."""

    cert_pem: str
    key_pem: str = field(repr=False)
    ca_pem: str
    not_before: float
    not_after: float

    def due(self, share: float) -> float:
        return self.not_before + share * (self.not_after - self.not_before)


class Renewal:
    def __init__(
        self, config: NodeConfig, forwarder: Forwarder, take: Callable[[], object], clock: Clock, log: Log
    ) -> None:
        """`take` has the new file taken into use. Raises: ssl.SSLError."""
        self._config = config
        self._forwarder = forwarder
        self._take = take
        self._clock = clock
        self._log = log
        self._share = random.SystemRandom().uniform(_EARLIEST, _LATEST)
        self._said = ""

    async def run(self) -> NoReturn:
        while True:
            pause = await self.look()
            await asyncio.sleep(pause)

    async def look(self) -> float:
        """Renews if it is time; in how many seconds to look again."""
        try:
            present = await asyncio.to_thread(self._read)
            left = present.due(self._share) - self._clock.now()
            if left > 0:
                return min(left, _LOOK_SECONDS)
            await self._renew(present)
            self._said = ""
            return 0.0
        except (ClusterError, ProviderError, OSError, ValueError) as error:  # ssl.SSLError is an OSError
            return self._failed(plain(error) if isinstance(error, OSError) else str(error))

    def _failed(self, reason: str) -> float:
        if self._said != reason:
            self._said = reason
            self._log("tls.renewal_failed", certificate="node", reason=reason)
        try:
            life = (present := self._read()).not_after - present.not_before
        except (OSError, ValueError):
            return _LOOK_SECONDS
        return max(_LEAST_PAUSE_SECONDS, min(_AGAIN * life, _MOST_PAUSE_SECONDS))

    async def _renew(self, present: _Present) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        from cluster.tls.node_certs import node_csr

        now = self._clock.now()
        if now >= present.not_after:
            raise _Unusable(
                f"{self._config.tls.cert_file} has expired, and no other server hears this one any more: have a token"
                f" made on one of them (`quorumca operator join-token -name {self._config.node_name} -rejoin`), and"
                " bring it here with `quorumca join -rejoin`"
            )
        key = load_pem_private_key(present.key_pem.encode(), None)
        request = RenewNodeRequest(node_csr(key), present.cert_pem, self._config.node_name)  # type: ignore[arg-type]  # judged there
        answer = await self._forwarder.call(RENEW_NODE, request)
        await asyncio.to_thread(self._put, answer.cert_pem, present)
        self._take()
        self._log("tls.renewed", certificate="node")

    def _put(self, cert_pem: str, present: _Present) -> None:
        """In the place of the one before, if every other server takes it. Raises: _Unusable, OSError."""
        from cluster.tls.certificates import Identity, Pair
        from cluster.tls.proof import check_made

        config = self._config
        identity = Identity("server", config.datacenter, config.tls.domain, config.node_name)
        try:
            check_made(Pair(cert_pem, present.key_pem), identity, present.ca_pem)
        except ValueError as error:
            raise _Unusable(f"the certificate that the leader has made is of no use: {error}") from error
        if cert_pem == present.cert_pem or _validity(cert_pem)[1] <= present.not_after:
            raise _Unusable("the certificate that the leader has made ends no later than the one in use")
        _replace(Path(config.tls.cert_file), cert_pem)

    def _read(self) -> _Present:
        """Raises: OSError, ValueError."""
        files = self._config.tls
        cert_pem, key_pem, ca_pem = (_text(path) for path in (files.cert_file, files.key_file, files.ca_file))
        return _Present(cert_pem, key_pem, ca_pem, *_validity(cert_pem))


def _validity(cert_pem: str) -> tuple[float, float]:
    """Raises: ValueError."""
    from cryptography import x509

    cert = x509.load_pem_x509_certificates(cert_pem.encode())[0]
    return cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES).decode("ascii", "replace")


def _replace(path: Path, text: str) -> None:
    """Whoever reads it sees the old one or the new one, whole; a link stays one. Raises: OSError."""
    path = Path(os.path.realpath(path))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    mode = path.stat().st_mode & 0o777
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, mode)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
