"""The CA of a leading node: the active root's provider configured in the workers, and what leaves are signed with now.

Decides nothing: duties (leader.py) and operators (reconfigure.py, operators.py) do. What it holds is dropped when
leadership ends.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from cluster.api.access import Caller, Judge
from cluster.api.leaves import IssuedCert
from cluster.base.clock import Clock
from cluster.base.errors import InternalError, NotLeader, NotReady
from cluster.base.signals import Signal, wait_any
from cluster.ca.health import HealthBoard
from cluster.ca.opened import Opener, Stored, config_map
from cluster.ca.roots import name_limits
from cluster.signing.limits import SigningLimiter
from cluster.signing.line import Rank, rank_of
from cluster.signing.pipeline import SignedLeaf, SigningContext, SigningPipeline
from cluster.signing.pool import Configured, WorkerPool
from cluster.signing.quotas import Quotas
from fsm.ca import CAConfig, CARoot, Intermediate
from fsm.links import local_chain
from fsm.state import State
from providers.config.common import CommonConfig
from providers.errors import NotGranted, ProviderError, SigningKeyGone
from providers.pki import x509

#: Of signing certificates before the present one: requests are under way for seconds only.
_CHAINS_KEPT: Final = 4
_UNINITIALIZED: Final = "CA is uninitialized and unable to sign certificates yet"

#: The validity of the newest certificate of a SPIFFE ID that is on record.
Newest = Callable[[str], Awaitable[tuple[int, int] | None]]


@dataclass(frozen=True, slots=True)
class _Signing:
    """What the leader signs with; replaced as a whole."""

    ca_index: int
    context: SigningContext
    limiter: SigningLimiter
    root: CARoot
    path: tuple[Intermediate, ...]  # between leaf and root, beginning with the one that signs; empty if the root does
    wants_renewal: bool  # the configuration asks for another signing certificate


class Authority:
    """Only a leading node's is ever ready."""

    def __init__(
        self,
        pool: WorkerPool,
        opener: Opener,
        pipeline: SigningPipeline,
        health: HealthBoard,
        clock: Clock,
        datacenter: str,
        quotas: Quotas,
        newest: Newest,
    ) -> None:
        self._pool = pool
        self._opener = opener
        self._pipeline = pipeline
        self._health = health
        self._clock = clock
        self._datacenter = datacenter
        self._quotas = quotas
        self._newest = newest
        self._is_leading = False
        self._ended_terms = 0
        self._signing: _Signing | None = None
        self._key_lost_in: _Signing | None = None
        #: What goes with a leaf, by the key that signed it: a renewal changes that under requests that are under way.
        self._chains: dict[bytes, str] = {}
        self._adopting = asyncio.Lock()
        self._changed = Signal()  # it has begun or ceased to sign
        self.renewal_wanted = Signal()

    @property
    def is_ready(self) -> bool:
        return self._signing is not None

    def is_behind(self, state: State) -> bool:
        """Whether it signs with the CA of an older state than this."""
        return self._signing is not None and self._signing.ca_index < state.ca_index

    @property
    def wants_renewal(self) -> bool:
        """Whether another certificate must sign leaves, whatever the age of the present one."""
        signing = self._signing
        return signing is not None and (signing.wants_renewal or self._key_lost_in is signing)

    def lose_key(self) -> None:
        """It has been found out that the key that signs leaves is gone: another certificate is needed."""
        if self._signing is not None:
            self._key_lost_in = self._signing
            self.renewal_wanted.fire()

    async def settled(self, ca_index: int, seconds: float) -> None:
        """A leader of this CA: until it can sign, has found out why it cannot, leads no more, or the time is over."""
        term = self._ended_terms

        def is_open() -> bool:
            health = self._health.now  # what a CA before this one suffered from says nothing
            is_known = bool(health.trouble) and health.ca_index >= ca_index
            return self._signing is None and not is_known and self._ended_terms == term

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while is_open():
                    await wait_any((self._changed, self._health.changed), is_open)

    # -- leadership

    def lead(self) -> None:
        """This node leads from now on: it may adopt."""
        self._is_leading = True
        self._pool.admit()

    async def drop(self) -> None:
        """This node no longer leads: the processes with the keys end, and what would be signed with is forgotten."""
        self._is_leading = False
        self._ended_terms += 1
        self._pool.renew()  # whoever is just adopting fails, and lets go of the lock
        async with self._adopting:
            self._signing = None
            self._key_lost_in = None
            self._changed.fire()

    # -- the CA in force

    async def configure(self, stored: Stored) -> Configured:
        """Have the stored configuration's provider in the workers, under its id. Raises: ProviderError."""
        config = stored.config
        setup = stored.settings.setup(config.cluster_id, self._datacenter, stored.record.state)
        return await self._pool.configure(config.provider_id, setup)

    async def adopt(self, state: State) -> None:
        """Sign with the CA of this state, which has an active root, from now on. Cheap when nothing has changed.

        Raises: ProviderError, SealError; NotLeader; InternalError when the provider's root is not the one agreed on.
        """
        async with self._adopting:
            if self._signing is not None and self._signing.ca_index >= state.ca_index:
                return
            self._require_leadership()
            if not self._opener.is_unlocked(state):
                # In a thread: a passphrase is stretched, and this loop answers for the whole node.
                await asyncio.to_thread(self._opener.unlock, state)
                self._require_leadership()
            opened = self._opener.opened(state)
            config, root = opened.config, opened.root
            self._learn_chain(root)
            configured = await self.configure(Stored(config, opened.record))
            found = x509.root_id(configured.chain.root_pem) if configured.chain else "none"
            if found != root.root_id:
                raise InternalError(f'stored CA root "{root.root_id}" is not the active root ({found})')
            self._pool.use(config.provider_id)
            self._signing = _Signing(
                state.ca_index,
                SigningContext(
                    config.provider_id,
                    config.provider,
                    state.trust_domain,
                    self._datacenter,
                    name_limits(root, state.roots, self._clock.now()),
                ),
                self._limiter(config),
                root,
                local_chain(root),
                configured.wants_renewal,
            )
            self._changed.fire()

    def _require_leadership(self) -> None:
        """Its keys would stay in the workers of a node that nobody asks for a signature, and an old seal in use.

        Raises: NotLeader.
        """
        if not self._is_leading:
            raise NotLeader("this node does not lead any more")

    def _learn_chain(self, root: CARoot) -> None:
        """Before any worker signs with it."""
        key_id = x509.parse_hex(root.signing_key_id)
        self._chains.pop(key_id, None)
        self._chains[key_id] = _chain_of(root)
        while len(self._chains) > _CHAINS_KEPT:
            del self._chains[next(iter(self._chains))]

    def _limiter(self, config: CAConfig) -> SigningLimiter:
        """The one in force if its limits stay: a change of something else must not hand out fresh tokens."""
        common = CommonConfig.parse(config_map(config.config_json))
        if self._signing is not None and self._signing.limiter.has(
            common.csr_max_per_second, common.csr_max_concurrent
        ):
            return self._signing.limiter
        return SigningLimiter(common.csr_max_per_second, common.csr_max_concurrent, self._clock)

    # -- signing

    async def sign(self, csr_pem: str, serial: bytes, requested_by: str, judge: Judge) -> IssuedCert:
        """On the leader. `serial`, minimal big-endian, identifies the request too.

        Raises: NotReady, NotLeader, CSRRejected, PermissionDenied, RateLimitReached, InternalError, and as
        SigningPipeline.sign.
        """
        signing = self._signing
        if signing is None:
            raise NotReady(f"{_UNINITIALIZED}: {self._health.now.trouble or 'no root certificate'}")
        sign = self._sign if signing.limiter.is_off and self._quotas.are_off else self._sign_in_turn
        signed = await sign(signing, csr_pem, serial, requested_by, judge)
        leaf = signed.leaf
        chain = self._chains.get(leaf.issuer_key_id)
        if chain is None:  # several renewals ago
            chain = _chain_of(signing.root)
        return IssuedCert(
            serial=leaf.serial,
            cert_pem=leaf.cert_pem + chain,
            kind=leaf.kind,
            name=leaf.name,
            spiffe_id=leaf.spiffe_id,
            not_before=leaf.not_before,
            not_after=leaf.not_after,
            index=signed.index,
        )

    async def _sign_in_turn(
        self, signing: _Signing, csr_pem: str, serial: bytes, requested_by: str, judge: Judge
    ) -> SignedLeaf:
        caller, quotas, spiffe_id = judge(), self._quotas, ""
        with quotas.of_token("" if caller.is_anonymous else caller.accessor_id):
            if not signing.limiter.is_off or not quotas.by_identity.is_off:
                # Consul's order: what breaks a rule is refused as that, and takes no token (consul-compat 3).
                spiffe_id = await self._check_csr(signing.context, csr_pem, caller)
            with quotas.of_identity(spiffe_id):
                async with signing.limiter.turn(partial(self._rank, spiffe_id)):
                    return await self._sign(signing, csr_pem, serial, requested_by, judge)

    async def _sign(
        self, signing: _Signing, csr_pem: str, serial: bytes, requested_by: str, judge: Judge
    ) -> SignedLeaf:
        self._check_expiry(signing)
        try:
            return await self._pipeline.sign(signing.context, csr_pem, serial, requested_by, judge)
        except (InternalError, ProviderError) as error:
            if isinstance(error, SigningKeyGone) and signing is self._signing:
                self.lose_key()
            if signing is not self._signing:
                # Nothing was recorded: the keys went with the leadership while the request waited, and if they have
                # come back since, it is asked again with those.
                raise NotLeader("this node has lost the lead, or the CA has changed, while it signed") from error
            raise

    async def _rank(self, spiffe_id: str) -> Rank:
        return rank_of(await self._newest(spiffe_id), self._clock.now())

    async def _check_csr(self, context: SigningContext, csr_pem: str, caller: Caller) -> str:
        """The SPIFFE ID that is asked for."""
        try:
            _, _, spiffe_id = await self._pool.check_csr(
                context.trust_domain, context.datacenter, csr_pem, caller.rules.grant, context.limits
            )
        except NotGranted as error:
            raise caller.denied(str(error)) from error
        return spiffe_id

    def _check_expiry(self, signing: _Signing) -> None:
        now = self._clock.now()
        if now > signing.root.not_after:
            raise InternalError(f"root expired: certificate expired, {_expiration(signing.root.not_after)}")
        # Not the cross-signed ones after them: those are for clients that know older roots alone.
        if signing.path and now > (end := min(found.not_after for found in signing.path)):
            raise InternalError(f"intermediate expired: certificate expired, {_expiration(end)}")


def _chain_of(root: CARoot) -> str:
    return "".join(intermediate.cert_pem for intermediate in root.intermediates)


def _expiration(moment: int) -> str:
    return f"expiration date: {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} +0000 UTC"
