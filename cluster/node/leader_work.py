"""What only the leader can do, as operations for every node of the cluster."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Final

from cluster.api.access import Judge
from cluster.api.ca import ConfigUpdate
from cluster.api.seals import NodeSeal
from cluster.backup.restore import SnapshotWork
from cluster.base.errors import BadRequest, NotLeader, NotReady
from cluster.base.log import audited_signature
from cluster.ca.attempts import Attempt
from cluster.ca.operators import OperatorRotation
from cluster.ca.parts import Parts
from cluster.ca.reconfigure import Reconfigurer
from cluster.ca.uptake import Watchers
from cluster.node.acl_work import AclWork
from cluster.node.membership import Membership
from cluster.node.node_certs import NodeCerts
from cluster.node.reseal import Resealer, SealChecks
from cluster.rpc.messages import (
    ACL_BOOTSTRAP,
    ACL_CLONE,
    ACL_DELETE,
    ACL_LOGIN,
    ACL_LOGOUT,
    ACL_PUT,
    ADD_PEER,
    ANNOUNCE_KEY,
    CLUSTER,
    CONFIGURE,
    DISTRUST_ROOT,
    DONE,
    JOIN,
    JOIN_TOKEN,
    PLAN_ROTATION,
    REMOVE_PEER,
    RENEW_NODE,
    RESTORE_CA,
    RESTORE_CHECKED,
    RESTORE_JUDGED,
    RESTORE_PROVEN_ROWS,
    RESTORE_ROWS,
    ROTATE,
    ROTATE_SEAL,
    ROTATION_UPTAKE,
    SEAL_CHECK,
    SEAL_STATUS,
    SET_AGENT_CA,
    SIGN,
    STEER_ROTATION,
    TRANSFER,
    WATCHERS,
    AddPeerRequest,
    AnnounceKeyRequest,
    ClusterAnswer,
    ConfigureRequest,
    DistrustRequest,
    Nothing,
    PlanAnswer,
    PlanRequest,
    RemovePeerRequest,
    RotateSealRequest,
    RotationRequest,
    SealCheckAnswer,
    SealCheckRequest,
    SealStatusAnswer,
    SignAnswer,
    SignRequest,
    SteerRequest,
    TransferRequest,
    UptakeAnswer,
    WatchersAnswer,
    WatchersRequest,
)
from cluster.rpc.operations import Gate, Operations, served, served_from, served_to
from cluster.seal.sources import SealError
from cluster.signing.serials import is_request_id, is_serial, serial_from
from providers.errors import NotInitialized

#: A leader that was elected a moment ago takes its provider into use first.
_SETTLE_SECONDS: Final = 5.0


class LeaderWork:
    """Each method takes the request of an operation and gives its answer."""

    def __init__(
        self,
        parts: Parts,
        reconfigurer: Reconfigurer,
        rotation: OperatorRotation,
        watchers: Watchers,
        snapshots: SnapshotWork,
        membership: Membership,
        resealer: Resealer,
        seal_status: Callable[[], NodeSeal],
        gate: Gate,
        acl: AclWork,
        node_certs: NodeCerts,
    ) -> None:
        self._replica = parts.replica
        self._log = parts.log
        self._authority = parts.authority
        self._snapshots = snapshots
        self._reconfigurer = reconfigurer
        self._rotation = rotation
        self._watchers = watchers
        self._membership = membership
        self._sealer = parts.sealer
        self._seal_checks = SealChecks(parts.sealer, parts.clock)
        self._resealer = resealer
        self._seal_status = seal_status
        self._gate = gate
        self._acl = acl
        self._node_certs = node_certs

    def operations(self) -> Operations:
        return Operations(
            self._gate,
            served_to(SIGN, self._sign),
            served_to(CONFIGURE, self._configure),
            served(PLAN_ROTATION, self._plan_rotation),
            served_to(ROTATE, self._rotate),
            served_to(STEER_ROTATION, self._steer_rotation),
            served(ROTATION_UPTAKE, self._rotation_uptake),
            served_to(DISTRUST_ROOT, self._distrust_root),
            served(RESTORE_ROWS, self._snapshots.unproven),
            served(RESTORE_CA, self._snapshots.unproven),
            served(RESTORE_CHECKED, self._snapshots.checked),
            served(RESTORE_PROVEN_ROWS, self._snapshots.rows),
            served_to(RESTORE_JUDGED, self._snapshots.ca),
            served(CLUSTER, self._cluster),
            served_to(TRANSFER, self._transfer),
            served_to(ADD_PEER, self._add_peer),
            served_to(REMOVE_PEER, self._remove_peer),
            served(ANNOUNCE_KEY, self._announce_key),
            served(WATCHERS, self._count_watchers),
            served(SEAL_CHECK, self._check_seal),
            served(SEAL_STATUS, self._show_seal),
            served_to(ROTATE_SEAL, self._rotate_seal),
            served_to(ACL_PUT, self._acl.put),
            served_to(ACL_DELETE, self._acl.delete),
            served_to(ACL_CLONE, self._acl.clone),
            served_from(ACL_BOOTSTRAP, self._acl.bootstrap),
            served_from(ACL_LOGIN, self._acl.login),
            served_to(ACL_LOGOUT, self._acl.logout),
            served_to(SET_AGENT_CA, self._node_certs.set_agent_ca),
            served_to(JOIN_TOKEN, self._node_certs.new_join_token),
            served(JOIN, self._node_certs.join),
            served(RENEW_NODE, self._node_certs.renew),
        )

    async def _sign(self, request: SignRequest, judge: Judge) -> SignAnswer:
        if not self._replica.leadership.is_ready:
            raise NotLeader("this node does not lead")
        state = self._replica.state
        if not self._authority.is_ready and state.active_root is not None:
            # A new leader may not even have opened the seal yet, without which no serial can be drawn.
            await self._authority.settled(state.ca_index, _SETTLE_SECONDS)
            if not self._replica.leadership.is_ready:
                raise NotLeader("this node does not lead any more")
        serial = self._serial_for(request)
        with audited_signature(self._log, serial=serial.hex(), by=request.requested_by):
            return await self._signed(request, serial, judge)

    async def _signed(self, request: SignRequest, serial: bytes, judge: Judge) -> SignAnswer:
        try:
            if self._authority.is_behind(state := self._replica.state) and state.active_root is not None:
                # The CA has changed a moment ago: whoever has seen that must not get a leaf of the CA before the
                # change.
                await self._authority.adopt(state)
            cert = await self._authority.sign(request.csr_pem, serial, request.requested_by, judge)
        except (NotReady, NotInitialized):
            if self._replica.leadership.is_ready:
                raise
            # The keys were dropped with leadership; the next leader has them.
            raise NotLeader("this node does not lead") from None
        return SignAnswer.of(cert)

    def _serial_for(self, request: SignRequest) -> bytes:
        """Raises: BadRequest, NotReady."""
        request_id = request.request_id
        if self._replica.admission.is_pinned:
            # The CSR is a part of it: a server that sends another one under the same id asks for another certificate.
            csr = hashlib.sha256(request.csr_pem.encode()).digest()
            try:
                return serial_from(self._sealer.draw(request_id + csr))
            except SealError as error:
                raise NotReady(str(error)) from error
        if not (is_serial(request_id) or is_request_id(request_id)):
            raise BadRequest(f"request id {request_id.hex()} is no serial of a server: must be 16 or 20 bytes long")
        return request_id

    async def _configure(self, request: ConfigureRequest, judge: Judge) -> Nothing:
        update = ConfigUpdate(
            provider=request.provider,
            config=_json_object(request.config),
            state=request.state,
            force_without_cross_signing=request.force_without_cross_signing,
            modify_index=request.modify_index,
            is_staged=request.is_staged,
            wait_seconds=request.wait_seconds,
        )
        attempt = Attempt(request.request_id, request.ca_index, request.is_repeat)
        rotation_id = await self._reconfigurer.apply(update, attempt, judge)
        if rotation_id:
            await self._reconfigurer.wait_for_rotation(rotation_id)
        if self._replica.state.active_root is None:
            await self._reconfigurer.wait_for_root()
        return DONE

    async def _plan_rotation(self, request: PlanRequest) -> PlanAnswer:
        return PlanAnswer.of(await self._rotation.plan(request.value()))

    async def _rotate(self, request: RotationRequest, judge: Judge) -> Nothing:
        attempt = Attempt(request.request_id, request.ca_index, request.is_repeat)
        rotation_id = await self._rotation.rotate(request.value(), attempt, judge)
        if rotation_id:
            await self._reconfigurer.wait_for_rotation(rotation_id)
        return DONE

    async def _steer_rotation(self, request: SteerRequest, judge: Judge) -> Nothing:
        await self._rotation.steer(request.steering, judge)
        return DONE

    async def _rotation_uptake(self, _request: Nothing) -> UptakeAnswer:
        return UptakeAnswer.of(await self._rotation.uptake())

    async def _distrust_root(self, request: DistrustRequest, judge: Judge) -> Nothing:
        await self._rotation.distrust(request.root_id, judge)
        return DONE

    async def _count_watchers(self, request: WatchersRequest) -> WatchersAnswer:
        """On any node, not only the leader: what it sees of its own clients."""
        return WatchersAnswer(*self._watchers.count(request.published_index))

    async def _check_seal(self, request: SealCheckRequest) -> SealCheckAnswer:
        """On any node, as the next one."""
        return await self._seal_checks.answer(request)

    async def _show_seal(self, _request: Nothing) -> SealStatusAnswer:
        return SealStatusAnswer.of(self._seal_status())

    async def _rotate_seal(self, request: RotateSealRequest, judge: Judge) -> Nothing:
        base = request.base.decode("ascii", errors="replace")
        await self._resealer.rotate(base, keeps_key=request.keeps_key, judge=judge)
        return DONE

    async def _cluster(self, _request: Nothing) -> ClusterAnswer:
        return ClusterAnswer.of(await self._membership.info())

    async def _transfer(self, request: TransferRequest, judge: Judge) -> Nothing:
        await self._membership.transfer(request.name, judge)
        return DONE

    async def _add_peer(self, request: AddPeerRequest, judge: Judge) -> Nothing:
        await self._membership.add(request.name, request.raft_address, request.rpc_address, judge)
        return DONE

    async def _remove_peer(self, request: RemovePeerRequest, judge: Judge) -> Nothing:
        await self._membership.remove(request.name, request.raft_address, judge)
        return DONE

    async def _announce_key(self, request: AnnounceKeyRequest) -> Nothing:
        await self._membership.announce_key(request.name, request.key)
        return DONE


def _json_object(text: str) -> Mapping[str, object]:
    """Raises: BadRequest. The node that was asked has looked at it, but this one does not rely on that."""
    try:
        value = json.loads(text)
        # What JSON can say, and neither the log nor a provider can hold: infinite numbers, half of a surrogate pair.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest("Config must be a JSON object")
    return value
