"""A worker process: holds configured providers and does the CPU-heavy part of a CA, away from the Raft thread's
interpreter.

Started by `WorkerPool` (pool.py) with one socket, its standard input, and two arguments: a descriptor from which it
reads the key of the cover that is on secrets when they come and when they go (cluster/seal/cover.py), and this node's
directory for credentials, if it has one. Reads requests, answers them (those for one provider in order), and ends when
the socket closes, which the death of its parent does too. It writes nothing else.

Frame: length u32 little endian, then msgpack: `[id, operation, arguments]`, answered by `[id, error or nil, result]`
with an error of `[type, text, retry_after_seconds]`. The first frame is an answer that nobody asked for, with the id
HELLO: a list of what the system refused to this process.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, BinaryIO, Final

import msgpack

from cluster.base import process
from cluster.base.allocator import hash_without_openssl, limit_arenas
from cluster.base.wire import pack_error
from cluster.seal.cover import Cover, CoverError, take_over
from providers.api import (
    CAChain,
    CSRPolicy,
    NameLimits,
    Provider,
    ProviderSettings,
    RootIntent,
)
from providers.errors import NotInitialized, ProviderError, ProviderRefused
from providers.grants import Grant
from providers.pki.serials import serial_bytes

FRAME_HEADER: Final = struct.Struct("<I")
HELLO: Final = 0
#: The name of the agent CA's key among its covered secrets.
AGENT_KEY: Final = "PrivateKey"
_NICENESS: Final = 5
_SIGN: Final = "sign_leaves"
_BUILT_IN: Final = "consul"
_GRANTS_KEPT: Final = 1024
#: With the key of the agent CA, which is nowhere but in their arguments, covered.
_OF_NODES: Final = ("check_agent_ca", "sign_node")
_WITHOUT_PROVIDER: Final = frozenset({"check_csr", "make_csr", "private_key_fits", "warm_up", *_OF_NODES})


class Host:
    """The operations; each takes and returns msgpack values. A provider's state is covered in both directions."""

    def __init__(self, cover: Cover, credentials_dir: str = "") -> None:
        """`credentials_dir`: see `ProviderSettings`."""
        self._cover = cover
        self._credentials_dir = credentials_dir
        self._providers: dict[str, Provider] = {}
        self.operations: dict[str, Callable[..., Any]] = {
            "configure": self.configure,
            "prepare_root": self.prepare_root,
            "root_to_adopt": self.root_to_adopt,
            "generate_root": self.generate_root,
            "renew_signing_cert": self.renew_signing_cert,
            "warnings": self.warnings,
            "sign_leaves": self.sign_leaves,
            "supports_cross_signing": self.supports_cross_signing,
            "cross_sign": self.cross_sign,
            "cleanup": self.cleanup,
            "check_csr": self.check_csr,
            "make_csr": self.make_csr,
            "private_key_fits": self.private_key_fits,
            "warm_up": self.warm_up,
            "check_agent_ca": self.check_agent_ca,
            "sign_node": self.sign_node,
            "forget": self.forget,
        }

    def configure(
        self,
        key: str,
        name: str,
        cluster_id: str,
        datacenter: str,
        is_primary: bool,
        config: str,
        secrets: dict[str, bytes],
        state: bytes,
    ) -> list[Any]:
        from providers.registry import create_provider

        provider = create_provider(name)
        settings = ProviderSettings(
            cluster_id,
            datacenter,
            is_primary,
            self._whole(config, secrets),
            self._cover.uncover(state),
            self._credentials_dir,
        )
        provider.configure(settings)
        old = self._providers.get(key)
        self._providers[key] = provider
        if old is not None:
            old.close()
        wants_renewal = is_primary and provider.wants_renewal()
        return [_pack_chain(provider.chain()), dict(provider.public_state()), wants_renewal]

    def prepare_root(self, key: str, serial: bytes, uid: str, not_before: int) -> bytes:
        intent = RootIntent(int.from_bytes(serial, "big"), uid, not_before)
        return self._cover.cover(self._provider(key).prepare_root(intent))

    def root_to_adopt(self, key: str) -> str:
        return self._provider(key).root_to_adopt()

    def generate_root(self, key: str) -> list[Any]:
        chain, state = self._provider(key).generate_root()
        return [_pack_chain(chain), self._cover.cover(state)]

    def renew_signing_cert(self, key: str) -> list[Any]:
        chain, state = self._provider(key).renew_signing_cert()
        return [_pack_chain(chain), self._cover.cover(state)]

    def warnings(self, key: str) -> list[str]:
        return list(self._provider(key).warnings())

    def supports_cross_signing(self, key: str) -> bool:
        return self._provider(key).supports_cross_signing()

    def cross_sign(self, key: str, cert_pem: str, serial: bytes, now: int, not_after: int) -> str:
        from providers.api import CrossSignRequest

        number = int.from_bytes(serial, "big")
        return self._provider(key).cross_sign(CrossSignRequest(cert_pem, number, now, not_after))

    def cleanup(self, key: str, is_unused: bool) -> None:
        self._provider(key).cleanup(is_unused=is_unused)

    def sign_leaves(self, key: str, policy: list[Any], now: int, requests: list[tuple[str, bytes, bytes]]) -> list[Any]:
        """Each result is a list of the IssuedLeaf's fields, or an error as in the frame."""
        from providers.api import LeafRequest

        rules = _policy(policy)
        leaves = self._provider(key).sign_leaves(
            [
                LeafRequest(csr_pem, rules, int.from_bytes(serial, "big"), now, _grant(grant))
                for csr_pem, serial, grant in requests
            ]
        )
        return [
            [pack_error(leaf, "in a worker"), None] if isinstance(leaf, ProviderError) else [None, _pack_leaf(leaf)]
            for leaf in leaves
        ]

    def check_csr(self, policy: list[Any], csr_pem: str, grant: bytes) -> list[Any]:
        """Kind, name and SPIFFE ID of an acceptable CSR."""
        from providers.pki.csr import check_csr

        checked = check_csr(csr_pem, _policy(policy), _grant(grant))
        return [checked.kind, checked.name, checked.spiffe_id]

    def make_csr(self, spiffe_id: str, dns_names: list[str], addresses: list[str]) -> list[str]:
        """A new EC P-256 key and a CSR for it, both PEM: what an agent does for a local service."""
        from providers.pki.x509 import new_leaf_csr

        csr_pem, key_pem = new_leaf_csr(spiffe_id, dns_names, addresses)
        return [csr_pem, key_pem]

    def private_key_fits(self, config: str, secrets: dict[str, bytes]) -> bool:
        from providers.builtin.state import private_key_fits

        return private_key_fits(self._whole(config, secrets))

    def check_agent_ca(self, secrets: dict[str, bytes], ca_pem: str, datacenter: str, domain: str, now: int) -> str:
        """What is wrong with an agent CA; empty: nothing."""
        from cluster.tls.node_certs import check_agent_ca

        try:
            check_agent_ca(ca_pem, self._agent_key(secrets), datacenter, domain, now)
        except ValueError as error:
            return str(error)
        return ""

    def sign_node(
        self,
        secrets: dict[str, bytes],
        ca_pem: str,
        csr_pem: str,
        identity: list[str],
        addresses: list[str],
        present_pem: str,
        now: int,
        ttl_seconds: int,
    ) -> list[Any]:
        """`identity`: node, datacenter, domain. A certificate, and how the servers will know it."""
        from cluster.tls.node_certs import sign_node

        node, datacenter, domain = identity
        try:
            cert_pem, key = sign_node(
                ca_pem,
                self._agent_key(secrets),
                csr_pem,
                node=node,
                datacenter=datacenter,
                domain=domain,
                addresses=addresses,
                present_pem=present_pem,
                now=now,
                ttl_seconds=ttl_seconds,
            )
        except ValueError as error:
            raise ProviderRefused(f"the agent CA cannot sign it: {error}") from error
        return [cert_pem, key]

    def _agent_key(self, secrets: dict[str, bytes]) -> str:
        return str(self._cover.uncover_values(secrets)[AGENT_KEY])

    def warm_up(self) -> None:
        """Import now what the first provider would wait for."""
        import providers.pki.leaf
        import providers.registry  # noqa: F401 - for what it leaves behind

    def forget(self, key: str) -> None:
        provider = self._providers.pop(key, None)
        if provider is not None:
            provider.close()

    def has(self, key: str) -> bool:
        return key in self._providers

    def signs_here(self, key: str) -> bool:
        """Whether it signs without asking anybody, who may not answer."""
        provider = self._providers.get(key)
        return provider is None or provider.name == _BUILT_IN

    def _whole(self, config: str, secrets: dict[str, bytes]) -> dict[str, object]:
        return {**json.loads(config), **self._cover.uncover_values(secrets)}

    def _provider(self, key: str) -> Provider:
        """Raises: NotInitialized when it has been forgotten, as at the end of leadership."""
        provider = self._providers.get(key)
        if provider is None:
            raise NotInitialized("provider not initialized")
        return provider


def _pack_chain(chain: CAChain | None) -> list[Any] | None:
    return None if chain is None else [chain.root_pem, chain.signing_cert_pem, list(chain.intermediate_pems)]


def _policy(packed: list[Any]) -> CSRPolicy:
    trust_domain, datacenter, domain, *limits = packed
    return CSRPolicy(trust_domain, datacenter, domain, tuple(map(NameLimits.unpacked, limits)))


@lru_cache(maxsize=_GRANTS_KEPT)
def _grant(packed: bytes) -> Grant:
    """The same callers ask again and again."""
    return Grant.from_bytes(packed)


def _pack_leaf(leaf: Any) -> list[Any]:
    return [
        leaf.cert_pem,
        serial_bytes(leaf.serial),
        leaf.kind,
        leaf.name,
        leaf.spiffe_id,
        leaf.not_before,
        leaf.not_after,
        leaf.public_key_sha256,
        leaf.issuer_key_id,
    ]


class _Lane:
    """Calls for one provider, one after the other, beside those for other providers: a backend that does not answer
    while a change to it is tried must not hold up the CA that signs.
    """

    def __init__(self, run: Callable[[list[Any]], None]) -> None:
        self._run = run
        self._requests: queue.Queue[list[Any] | None] = queue.Queue()
        # Not waited for at the end of the process: its backend may never answer.
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def is_idle(self) -> bool:
        return self._requests.unfinished_tasks == 0

    def put(self, request: list[Any]) -> None:
        self._requests.put(request)

    def end(self) -> None:
        """After what is waiting."""
        self._requests.put(None)

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            self._run(request)
            self._requests.task_done()


class _Server:
    def __init__(self, host: Host, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._host = host
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing = threading.Lock()
        self._lanes: dict[str, _Lane] = {}

    def serve(self) -> None:
        """Until the other side closes."""
        while True:
            header = self._incoming.read(FRAME_HEADER.size)
            if len(header) < FRAME_HEADER.size:
                return
            request = msgpack.unpackb(self._incoming.read(FRAME_HEADER.unpack(header)[0]))
            _, operation, arguments = request
            if operation in _WITHOUT_PROVIDER:
                self._run(request)
            else:
                self._dispatch(arguments[0], operation, request)

    def _dispatch(self, key: str, operation: str, request: list[Any]) -> None:
        lane = self._lanes.get(key)
        if operation == _SIGN and (lane is None or lane.is_idle) and self._host.signs_here(key):
            self._run(request)  # a hand-over to a thread would cost a tenth of a signature
            return
        if lane is None:
            self._end_lanes()
            lane = self._lanes[key] = _Lane(self._run)
        lane.put(request)

    def _end_lanes(self) -> None:
        """Of providers that are forgotten. Not as soon as they are: what comes next for the same key waits its turn."""
        for key, lane in list(self._lanes.items()):
            if lane.is_idle and not self._host.has(key):
                lane.end()
                del self._lanes[key]

    def _run(self, request: list[Any]) -> None:
        identifier, operation, arguments = request
        try:
            answer = [identifier, None, self._host.operations[operation](*arguments)]
        except Exception as error:
            answer = [identifier, pack_error(error, "in a worker"), None]
        self.send(answer)

    def send(self, answer: list[Any]) -> None:
        body = msgpack.packb(answer)
        # The other side has gone: reading ends, too. It has ended where a lane finds this closed (ValueError).
        with self._writing, contextlib.suppress(ConnectionError, ValueError):
            self._outgoing.write(FRAME_HEADER.pack(len(body)) + body)
            self._outgoing.flush()


def serve(connection: socket.socket, cover: Cover, refused: Sequence[str] = (), credentials_dir: str = "") -> None:
    """Until the other side closes, which it may do at any moment: nobody is left to be told of it."""
    with (
        contextlib.suppress(ConnectionError),
        connection.makefile("rb") as incoming,
        connection.makefile("wb") as outgoing,
    ):
        server = _Server(Host(cover, credentials_dir), incoming, outgoing)
        server.send([HELLO, None, list(refused)])
        server.serve()


def main() -> int:
    # Keys live here, and never longer than the parent.
    refused = [*process.protect(), *process.end_with_parent(signal.SIGKILL)]
    for number in process.NODE_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    limit_arenas(1)
    hash_without_openssl()
    # Heartbeats come before signatures.
    refused += process.be_nicer(_NICENESS)
    connection = socket.socket(fileno=os.dup(0))
    key_from, credentials_dir = sys.argv[1:]
    try:
        cover = Cover(take_over(socket.socket(fileno=int(key_from))))
    except CoverError:
        return 1  # the node is ending, and its keeper has ended first
    serve(connection, cover, refused, credentials_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
