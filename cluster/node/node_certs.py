"""The leader's side of servers' certificates: the agent CA's key, join tokens, joining, renewal.

The key comes once, from an operator, and is sealed like a CA's: the main process carries it under the cover that the
keeper puts on it, and it is open in a process that signs, for as long as that takes. A cluster that has no such key
says so, and its servers' certificates remain its operators' matter.

To join: who has a token proves it by a signature, and shows that it holds a key; the certificate is made, then the
token is taken through the log, where one of all that use it is the first; then the newcomer is put into the log as a
learner, with its key. What fails before the token is taken leaves it good. Only after all that has anybody the
certificate. The signature is over the key of the server that the machine has met (`tls/join_proof.py`), which must be
one that the log has of the server that brings it: with the key of a removed one nobody gets anything to join with.

To renew: a server asks over a connection that has proved the key pinned for it, and gets a certificate for this key and
no other. So no pin changes but for the end of the certificate, which the leader sees by itself (`RaftNode._pin_member`)
and one file takes the place of one file.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from cluster.api.access import Caller, Judge
from cluster.api.joining import AgentCAInfo
from cluster.base.clock import Clock
from cluster.base.errors import (
    BadRequest,
    ChangeUnderWay,
    Conflict,
    InternalError,
    NotLeader,
    NotReady,
    PermissionDenied,
    Refused,
)
from cluster.base.log import Log, Seldom
from cluster.base.names import ip_address, is_address, is_node_name
from cluster.node.membership import Membership
from cluster.raft.admission import is_key_of
from cluster.raft.membership import Member
from cluster.raft.replica import Replica
from cluster.rpc.messages import (
    DONE,
    AgentCARequest,
    JoinRequest,
    JoinTokenAnswer,
    JoinTokenRequest,
    NodeCertAnswer,
    Nothing,
    RenewNodeRequest,
)
from cluster.seal.keeper import CoveredRecord
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.sources import SealError
from cluster.signing.pool import WorkerPool
from cluster.signing.worker import AGENT_KEY
from cluster.tls.join_proof import JoinStatement, is_proved, public_of
from cluster.tls.keys import expiry_part, first_certificate, hash_of_certificate, public_part
from fsm import nodes_rules
from fsm.commands import Applied, Command, Rejected
from fsm.nodes import (
    LEAST_TTL_SECONDS,
    MOST_TTL_SECONDS,
    AddJoinToken,
    AgentCA,
    JoinToken,
    SetAgentCA,
    TakeJoinToken,
)
from providers.errors import CSRRejected

DEFAULT_TTL_SECONDS: Final = 72 * 3600
LEAST_TOKEN_SECONDS: Final = 60
MOST_TOKEN_SECONDS: Final = 3600
_COMMIT_SECONDS: Final = 10.0
_ATTEMPTS: Final = 4
_SECRET_BYTES: Final = 32
#: What it is sealed for.
_PURPOSE: Final = "the key of the agent CA"
NO_AGENT_CA: Final = (
    "the cluster has no key of the agent CA, so it makes no certificates for servers: hand it over with `quorumca"
    " operator agent-ca`, or make them with `quorumca tls cert create -server`"
)
#: One text for all: whoever guesses learns nothing.
_NOT_GOOD: Final = (
    "the join token is unknown, was used, has expired, is for another server, or whoever had it made has no token any"
    " more"
)
#: To whoever has a good one.
_OTHER_SERVER: Final = (
    "the machine has met a server with a key that is not that of {}: somebody else answers between the two, or the"
    " server's certificate is being exchanged. The token was not used"
)


class Sealer(Protocol):
    """As far as it is needed to seal again."""

    def open_record(self, purpose: str, sealed: bytes) -> CoveredRecord: ...
    def seal_record(self, purpose: str, record: CoveredRecord) -> bytes: ...


def agent_ca_sealed_again(before: Sealer, after: Sealer, agent_ca: AgentCA | None) -> AgentCA | None:
    """The same under another data key. Raises: SealError."""
    if agent_ca is None:
        return None
    return replace(agent_ca, sealed=after.seal_record(_PURPOSE, before.open_record(_PURPOSE, agent_ca.sealed)))


def fingerprint_of(cert_pem: str) -> str:
    """SHA-256 of the first certificate, hex. Raises: ValueError."""
    return hashlib.sha256(first_certificate(cert_pem.encode())).hexdigest()


def shown(agent_ca: AgentCA) -> AgentCAInfo:
    return AgentCAInfo(agent_ca.cert_pem, fingerprint_of(agent_ca.cert_pem), agent_ca.cert_ttl_seconds, agent_ca.set_at)


class NodeCerts:
    """Each method takes the request of an operation and gives its answer."""

    def __init__(
        self,
        replica: Replica,
        pool: WorkerPool,
        sealer: NodeSealer,
        membership: Membership,
        datacenter: str,
        domain: str,
        clock: Clock,
        log: Log,
    ) -> None:
        self._replica = replica
        self._pool = pool
        self._sealer = sealer
        self._membership = membership
        self._datacenter = datacenter
        self._domain = domain
        self._clock = clock
        self._log = log
        self._log_seldom = Seldom(log, time.monotonic)

    # -- the agent CA

    async def set_agent_ca(self, request: AgentCARequest, judge: Judge) -> Nothing:
        self._require_ready()
        if not request.cert_pem and not request.key_pem:
            by = await self._write(judge, lambda _: SetAgentCA(self._replica.state.ca_index, None))
            self._log("join.ca_removed", by=by)
            return DONE
        cert_pem = self._checked_ca(request)
        covered = self._sealer.cover_values({AGENT_KEY: request.key_pem})
        if problem := await self._pool.check_agent_ca(covered, cert_pem, self._datacenter, self._domain, self._now):
            raise BadRequest(f"Certificate and PrivateKey cannot be used: {problem}")
        record = CoveredRecord(covered, b"", "{}")

        def make(_: Caller) -> Command:
            ca_index = self._replica.state.ca_index
            try:
                sealed = self._sealer.seal_record(_PURPOSE, record)
            except SealError as error:
                raise NotReady(str(error)) from error
            return SetAgentCA(ca_index, AgentCA(cert_pem, sealed, request.cert_ttl_seconds, self._now))

        by = await self._write(judge, make)
        fingerprint = fingerprint_of(cert_pem)
        self._log("join.ca_set", fingerprint=fingerprint, cert_ttl_seconds=request.cert_ttl_seconds, by=by)
        return DONE

    def _checked_ca(self, request: AgentCARequest) -> str:
        """Raises: BadRequest."""
        ttl = request.cert_ttl_seconds
        if not LEAST_TTL_SECONDS <= ttl <= MOST_TTL_SECONDS:
            raise BadRequest(f"NodeCertTTL is {ttl}s: must be from {LEAST_TTL_SECONDS}s to {MOST_TTL_SECONDS}s")
        # Here and not above: the main process of a node that never does this has no use for it.
        from providers.pki.x509 import cert_pem, load_cert

        try:
            der = first_certificate(request.cert_pem.encode())
            text = cert_pem(load_cert(request.cert_pem))
        except ValueError as error:
            raise BadRequest(f"Certificate must be one certificate (PEM): {error}") from error
        anchors = self._replica.admission.anchors
        if anchors and hash_of_certificate(der) not in anchors:
            raise BadRequest("Certificate is none that the leader trusts: it must be in tls.ca_file of every server")
        return text

    def _agent_ca(self) -> AgentCA:
        """Raises: Refused."""
        agent_ca = self._replica.state.nodes.agent_ca
        if agent_ca is None:
            raise Refused(NO_AGENT_CA)
        return agent_ca

    async def _signed(
        self, agent_ca: AgentCA, name: str, csr_pem: str, addresses: list[str], present_pem: str = ""
    ) -> tuple[str, bytes]:
        """Raises: CSRRejected, ProviderError, NotReady, NotLeader."""
        try:
            record = self._sealer.open_record(_PURPOSE, agent_ca.sealed)
        except SealError as error:
            raise NotReady(str(error)) from error
        cert_pem, key = await self._pool.sign_node(
            record.secrets,
            agent_ca.cert_pem,
            csr_pem,
            (name, self._datacenter, self._domain),
            addresses,
            present_pem,
            self._now,
            agent_ca.cert_ttl_seconds,
        )
        return cert_pem, key

    # -- joining

    async def new_join_token(self, request: JoinTokenRequest, judge: Judge) -> JoinTokenAnswer:
        self._require_ready()
        agent_ca = self._agent_ca()
        await self._check_wanted(request)
        secret = secrets.token_hex(_SECRET_BYTES)
        expires_at = self._now + request.ttl_seconds
        token = JoinToken(
            public_key=public_of(secret),
            name=request.name,
            raft_address=request.raft_address,
            rpc_address=request.rpc_address,
            is_rejoin=request.is_rejoin,
            is_forced=request.is_forced,
            expires_at=expires_at,
            made_by=None,
        )

        def make(caller: Caller) -> Command:
            return AddJoinToken(replace(token, made_by=caller.accessor_on_record or None), self._now)

        by = await self._write(judge, make)
        self._log("join.token_made", member=request.name, expires_at=expires_at, is_rejoin=request.is_rejoin, by=by)
        return JoinTokenAnswer(secret, expires_at, fingerprint_of(agent_ca.cert_pem))

    async def _check_wanted(self, request: JoinTokenRequest) -> None:
        """Raises: BadRequest, Conflict, Refused."""
        if not is_node_name(request.name):
            raise BadRequest(
                f"Name {request.name!r:.100} is not allowed: must be a DNS label: lower-case letters, digits and inner"
                " hyphens"
            )
        if not LEAST_TOKEN_SECONDS <= request.ttl_seconds <= MOST_TOKEN_SECONDS:
            raise BadRequest(
                f"TTL is {request.ttl_seconds}s: must be from {LEAST_TOKEN_SECONDS}s to {MOST_TOKEN_SECONDS}s"
            )
        for field, address in (("Address", request.raft_address), ("RPC", request.rpc_address)):
            if (address or not request.is_rejoin) and not is_address(address):
                raise BadRequest(f"{field} {address!r:.100} is not allowed: must be host:port")
        if request.rpc_address and request.rpc_address == request.raft_address:
            raise BadRequest(f"RPC {request.rpc_address!r:.100} is not allowed: must be another than Address")
        is_member = request.name in self._replica.members
        if is_member and not request.is_rejoin:
            raise Refused(f"{request.name} is a server already: a token for it must say so (-rejoin)")
        if request.is_rejoin and not is_member:
            raise Refused(f"{request.name} is no server of this cluster: a token for it is one without -rejoin")
        if request.is_rejoin and not request.is_forced:
            await self._require_silent(request.name)

    async def _require_silent(self, name: str) -> None:
        """A token for a server that is there would be somebody else's way to take its place. Raises: Refused."""
        if await self._membership.is_heard(name):
            raise Refused(f"{name} is there, and would lose its place: a token for it all the same is one with -force")

    async def join(self, request: JoinRequest) -> NodeCertAnswer:
        """Raises: PermissionDenied, CSRRejected, Conflict, Refused, NotLeader, CommitUnknown."""
        self._require_ready()
        token = self._good_token(request)
        agent_ca = self._agent_ca()
        newcomer = self._newcomer(request, token)
        if token.is_rejoin and not token.is_forced:
            await self._require_silent(request.name)
        addresses = _ips(newcomer.raft_address, newcomer.rpc_address)
        cert_pem, key = await self._signed(agent_ca, request.name, request.csr_pem, addresses)
        await self._take(request, token)
        newcomer = replace(newcomer, keys=(key,))
        # From here on the token is used up, whatever happens.
        try:
            if token.is_rejoin:
                await self._membership.admit_again(newcomer)
            else:
                await self._membership.admit(newcomer)
        except (Conflict, Refused) as error:
            raise type(error)(f"{error}; the token is used up: have another one made then") from error
        self._log("member.joined", member=newcomer.id, is_rejoin=token.is_rejoin, not_after=expiry_part(key))
        return NodeCertAnswer(cert_pem)

    def _good_token(self, request: JoinRequest) -> JoinToken:
        """Raises: PermissionDenied."""
        found = nodes_rules.find_join_token(self._replica.state, request.name, self._clock.now())
        statement = JoinStatement(
            request.name, request.raft_address, request.rpc_address, request.csr_pem, request.server_key
        )
        if found is None or not is_proved(found.public_key, statement, request.proof):
            raise self._refused_join(request, _NOT_GOOD)
        through = self._replica.members.get(request.through)
        if through is None or request.server_key not in map(public_part, through.keys):
            raise self._refused_join(request, _OTHER_SERVER.format(request.through or "a server"))
        return found

    def _refused_join(self, request: JoinRequest, reason: str) -> PermissionDenied:
        self._log_seldom("join.refused", "", member=request.name[:63], reason=reason)
        return PermissionDenied(reason)

    def _newcomer(self, request: JoinRequest, token: JoinToken) -> Member:
        """Raises: PermissionDenied, BadRequest, Conflict, Refused."""
        for field, address, bound in (
            ("Address", request.raft_address, token.raft_address),
            ("RPC", request.rpc_address, token.rpc_address),
        ):
            if not is_address(address):
                raise BadRequest(f"{field} {address!r:.100} is not allowed: must be host:port")
            if bound and bound != address:
                raise PermissionDenied(f"the join token is for {field} {bound}, and not for {address!r:.100}")
        if request.raft_address == request.rpc_address:
            raise BadRequest(f"RPC {request.rpc_address!r:.100} is not allowed: must be another than Address")
        newcomer = Member(request.name, request.raft_address, request.rpc_address, is_voter=False)
        if token.is_rejoin:
            self._membership.returning(newcomer)
        else:
            self._membership.check_newcomer(newcomer)
        return newcomer

    async def _take(self, request: JoinRequest, token: JoinToken) -> None:
        """Raises: PermissionDenied, NotLeader, NoLeader, Overloaded, CommitUnknown."""
        command = TakeJoinToken(token.public_key, request.name, self._now)
        if isinstance(await self._replica.propose(command, timeout=_COMMIT_SECONDS), Rejected):
            raise self._refused_join(request, _NOT_GOOD)

    # -- renewal

    async def renew(self, request: RenewNodeRequest) -> NodeCertAnswer:
        """`request.name` is that of the server which has asked. Raises: Refused, CSRRejected, NotLeader."""
        self._require_ready()
        agent_ca = self._agent_ca()
        member = self._replica.members.get(request.name)
        if member is None or not member.keys:
            raise Refused(f"no key is pinned for {request.name!r:.70}: only a server with a pinned key renews")
        cert_pem, key = await self._signed(agent_ca, request.name, request.csr_pem, [], request.present_pem)
        if not is_key_of(key, member.keys):
            raise CSRRejected(f"the CSR is for another key than the one that is pinned for {request.name}")
        self._log("member.renewed", member=request.name, not_after=expiry_part(key))
        return NodeCertAnswer(cert_pem)

    # -- what they have in common

    async def _write(self, judge: Judge, make: Callable[[Caller], Command]) -> str:
        """Whoever asks is judged with each attempt. Returns who that is, for the log.

        Raises: as both; Refused, ChangeUnderWay, NotLeader, NoLeader, Overloaded, CommitUnknown.
        """
        for _ in range(_ATTEMPTS):
            caller = judge()
            result = await self._replica.propose(make(caller), timeout=_COMMIT_SECONDS)
            if isinstance(result, Applied):
                return caller.by
            match result.code:
                case nodes_rules.STALE_SEAL:
                    continue
                case nodes_rules.NO_AGENT_CA:
                    raise Refused(NO_AGENT_CA)
                case nodes_rules.FULL:
                    raise Refused(f"too many join tokens are out: {result.detail}; the oldest expires within the hour")
            raise InternalError(f"{result.code}: {result.detail}")
        raise ChangeUnderWay("the seal is being changed all the time: try again later")

    @property
    def _now(self) -> int:
        return int(self._clock.now())

    def _require_ready(self) -> None:
        """Raises: NotLeader, NotReady."""
        if not self._replica.leadership.is_ready:
            raise NotLeader("this node does not lead")
        # With it, every server knows what this puts into the log (fsm/duties.py): they came with one release.
        if self._replica.state.acl.key is None:
            raise NotReady("the servers do not know each other by their keys yet, or the CA is not initialized")


def _ips(*addresses: str) -> list[str]:
    """Names are left out: one could be that of another server."""
    hosts = (address.rpartition(":")[0].strip("[]") for address in addresses)
    return list(dict.fromkeys(host for host in hosts if ip_address(host) is not None))
