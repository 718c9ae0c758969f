"""The leader's side of access control: what is written to it, and what it does by itself."""

import asyncio
import dataclasses
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cluster.access import writers
from cluster.access.inputs import (
    AuthMethodInput,
    BindingRuleInput,
    PolicyInput,
    RoleInput,
    TokenInput,
    read_input,
)
from cluster.access.login import MetaRefused, description_of, grant
from cluster.access.method_writers import MethodWriter, find_method, is_method_name
from cluster.access.methods.config import MethodConfig, fields_of
from cluster.access.methods.prove import Prover
from cluster.access.methods.refusal import LoginRefused, MethodInvalid
from cluster.access.room import Room
from cluster.access.secret_ids import NOT_SET_UP, SecretIds, new_id
from cluster.access.selector import Proved
from cluster.api.access import ACL_WRITE, Judge
from cluster.base.clock import Clock
from cluster.base.errors import (
    BadRequest,
    ChangeUnderWay,
    InternalError,
    NotFound,
    NotReady,
    PermissionDenied,
    Refused,
)
from cluster.base.log import Log
from cluster.base.places import KeyedPlaces
from cluster.base.rates import KeyedLimit
from cluster.ca.changes import LEADER
from cluster.raft.replica import Replica
from cluster.rpc.messages import (
    DONE,
    AclBootstrapRequest,
    AclCloneRequest,
    AclDeleteRequest,
    AclKeyAnswer,
    AclLoginRequest,
    AclPutRequest,
    Nothing,
)
from cluster.seal.token_files import TokenFileRefused, read_secret_id
from fsm import acl_rules
from fsm.acl import (
    AclCommand,
    AuthMethod,
    BootstrapAcl,
    DeleteAuthMethod,
    DeleteBindingRule,
    DeletePolicy,
    DeleteRole,
    DeleteTokens,
    MethodType,
    SetToken,
    Token,
)
from fsm.ca import CARoot
from fsm.commands import Applied, Rejected
from fsm.fields import as_reason
from fsm.state import State
from providers.texts import one_line

_COMMIT_SECONDS: Final = 10.0
#: How often a write is made anew because another one came first.
_ATTEMPTS: Final = 8
_RESET_FILE: Final = "acl-bootstrap-reset"
_MAX_RESET_BYTES: Final = 32
_BOOTSTRAP_DESCRIPTION: Final = "Bootstrap Token (Global Management)"
#: In a second, of one identity: each is an entry of the log, and a token that takes the place of another.
LOGINS_PER_SECOND: Final = 5.0
#: Characters of what a login has proved, in the log.
_MAX_PROVED: Final = 300
#: At once, whichever server they were asked of. More than one server lets through (node/acl.py), so that logins at
#: several servers do not wait for each other; a method that is held up has a quarter.
_LOGINS_AT_ONCE: Final = 64
_LOGINS_OF_A_METHOD: Final = 16
_LOGIN_WAIT_SECONDS: Final = 2.0
_INITIAL_DESCRIPTION: Final = "Initial Management Token"
_INITIAL_SETTING: Final = "acl.initial_management_file"
_GONE: Final = {
    "policies": "Cannot find policy to delete",
    "roles": "Cannot find role to delete",
    "tokens": "Cannot find token to delete",
    "methods": "Cannot find auth method to delete",
    "binding_rules": "Cannot find binding rule to delete",
}

#: From the state of the moment to a command, and to what is answered once it is committed.
Make = Callable[[State], tuple[AclCommand, AclKeyAnswer]]


class AclWork:
    """Each method takes the request of an operation and gives its answer. Whoever writes is judged with each attempt:
    a method's key set may have been fetched before, or another write have come first.
    """

    def __init__(
        self,
        replica: Replica,
        secret_ids: SecretIds,
        methods: MethodWriter,
        prover: Prover,
        data_dir: Path,
        datacenter: str,
        clock: Clock,
        log: Log,
        initial_management_file: Path | None = None,
        limited: Callable[[], object] = lambda: None,
    ) -> None:
        """`limited` is called for each login that is one too many of its identity."""
        self._replica = replica
        self._initial_management_file = initial_management_file
        self._prover = prover
        self._datacenter = datacenter
        self._secret_ids = secret_ids
        self._methods = methods
        self._data_dir = data_dir
        self._clock = clock
        self._log = log
        self._room = Room()
        self._login_places = KeyedPlaces(
            "logins of one method",
            of_a_key=_LOGINS_OF_A_METHOD,
            in_all=_LOGINS_AT_ONCE,
            wait_seconds=_LOGIN_WAIT_SECONDS,
        )
        self._logins = KeyedLimit(LOGINS_PER_SECOND, "logins of one identity", clock.monotonic, limited)

    async def put(self, request: AclPutRequest, judge: Judge) -> AclKeyAnswer:
        self._require_ready()
        body = _object(request.body)
        match request.table:
            case "policies":
                policy = read_input(PolicyInput, "Policy", body)
                return await self._write(
                    judge, lambda state: _keyed(writers.set_policy(state.acl, request.key, policy))
                )
            case "roles":
                role = read_input(RoleInput, "Role", body)
                return await self._write(judge, lambda state: _keyed(writers.set_role(state.acl, request.key, role)))
            case "tokens":
                return await self._put_token(request.key, read_input(TokenInput, "Token", body), judge)
            case "methods":
                method = read_input(AuthMethodInput, "AuthMethod", body)
                prepared = await self._methods.prepared(self._replica.state.acl, request.key, method)
                return await self._write(judge, lambda state: _keyed(self._methods.set_method(state.acl, prepared)))
            case "binding_rules":
                rule = read_input(BindingRuleInput, "BindingRule", body)
                return await self._write(
                    judge, lambda state: _keyed(self._methods.set_binding_rule(state.acl, request.key, rule))
                )
        raise BadRequest(f"{request.table!a:.80} is no table of access control")

    async def _put_token(self, accessor_id: str, given: TokenInput, judge: Judge) -> AclKeyAnswer:
        hashed = self._secret_ids.hashed
        if accessor_id:
            return await self._write(
                judge, lambda state: _keyed(writers.changed_token(state.acl, accessor_id, given, hashed, self._now))
            )
        return await self._write(judge, lambda state: _shown(writers.new_token(state.acl, given, hashed, self._now)))

    async def clone(self, request: AclCloneRequest, judge: Judge) -> AclKeyAnswer:
        self._require_ready()
        hashed = self._secret_ids.hashed
        return await self._write(
            judge,
            lambda state: _shown(
                writers.cloned_token(state.acl, request.accessor_id, request.description, hashed, self._now)
            ),
        )

    async def delete(self, request: AclDeleteRequest, judge: Judge) -> Nothing:
        self._require_ready()
        caller = judge()
        caller.require(ACL_WRITE)  # the operation is judged here alone
        if request.table == "tokens" and not _is_uuid(request.key):
            raise BadRequest("Accessor ID is missing or an invalid UUID")
        if not _can_be(request.table, request.key):
            raise NotFound(_GONE[request.table])
        command = _deletion(request.table, request.key)
        if request.table == "policies":
            writers.check_policy_deletion(request.key)
        if request.table == "tokens":
            writers.check_token_deletion(request.key, caller.accessor_id)
        try:
            await self._write(judge, lambda _state: (command, AclKeyAnswer(request.key)))
        except _Gone:
            raise NotFound(_GONE[request.table]) from None
        return DONE

    async def login(self, request: AclLoginRequest, asked_from: str = "") -> AclKeyAnswer:
        """Raises: BadRequest for a Meta that cannot be kept; PermissionDenied, which says the same for every cause;
        RateLimitReached for one that would have been good; Overloaded. A refusal is held back where it was asked for
        (node/acl.py): here it would hold a connection between servers. `asked_from`: the client's address, as it is
        recorded.
        """
        self._require_ready()
        try:
            description = description_of(request.meta)
        except MetaRefused as error:
            raise BadRequest(str(error)) from error
        method = find_method(self._replica.state.acl, request.method)
        if method is None:
            raise PermissionDenied(f'ACL not found: auth method "{request.method:.128}" not found')
        try:
            async with self._login_places.place(method.name):
                config, roots = self._methods.written(method).config, self._replica.state.roots
                proved = await self._prover.proved(method.name, config, request.bearer_token)
                judged = _Judged(method, config, roots, proved)
                written = await self._written(None, self._counted_login(judged, description))
        except (LoginRefused, MethodInvalid) as error:
            reason = error.reason if isinstance(error, LoginRefused) else str(error)
            self._log("acl.login_refused", method=method.name, reason=one_line(as_reason(reason)), by=asked_from)
            raise PermissionDenied("Permission denied") from None
        self._log(
            "acl.login",
            accessor=written.answer.key,
            method=method.name,
            proved=proved.shown(_MAX_PROVED),
            by=asked_from,
            index=written.index,
        )
        return written.answer

    def _counted_login(self, judged: "_Judged", description: str) -> Make:
        """Counted once, however often it is made anew, and when it is known to be granted: who is told to come again
        learns that the credential is good.
        """
        is_counted = False

        def make(state: State) -> tuple[AclCommand, AclKeyAnswer]:
            nonlocal is_counted
            made = self._new_login(state, judged, description)
            if not is_counted:
                self._logins.take(made.command.token.identity_hash)
                is_counted = True
            return _shown(made)

        return make

    def _new_login(self, state: State, judged: "_Judged", description: str) -> writers.NewToken:
        acl, method = state.acl, judged.method
        if find_method(acl, method.name) != method:
            raise LoginRefused("the method was changed while the login was judged")
        if method.kind is MethodType.TLS and state.roots != judged.roots:
            raise LoginRefused("the roots were changed while the login was judged")
        policies = {policy.name: policy.policy_id for policy in acl.policies}
        roles = {role.name: role.role_id for role in acl.roles}
        granted = grant(
            method,
            judged.proved,
            acl.binding_rules,
            fields=fields_of(judged.config),
            policy_id=policies.get,
            role_id=roles.get,
            datacenter=self._datacenter,
            description=description,
            now=self._now,
        )
        secret_id = new_id()
        fields = {field.name: getattr(granted, field.name) for field in dataclasses.fields(granted)}
        token = Token(accessor_id=new_id(), secret_hash=self._secret_ids.hashed(secret_id), **fields)
        return writers.NewToken(SetToken(token), secret_id)

    async def logout(self, _request: Nothing, judge: Judge) -> Nothing:
        """Of the token that it is asked with."""
        caller = judge()
        token = writers.find_token(self._replica.state.acl, caller.accessor_id, self._now)
        if token is None or not token.auth_method:
            raise PermissionDenied("Permission denied: token wasn't created via login")
        command, answer = DeleteTokens((token.accessor_id,)), AclKeyAnswer(token.accessor_id)
        await self._write(None, lambda _state: (command, answer), by=caller.by)
        return DONE

    async def bootstrap(self, request: AclBootstrapRequest, asked_from: str = "") -> AclKeyAnswer:
        """Once; again when an operator has put the index of the last one into a file on the leader. `asked_from`: the
        client's address, as it is recorded.
        """
        self._require_ready()
        if self._initial_management_file is not None and not self._replica.state.acl.bootstrap_index:
            # Or whoever comes first has the cluster, in the moments before it is made.
            raise PermissionDenied(
                "Permission denied: ACL bootstrap not allowed: the first token is that of acl.initial_management_file"
            )
        return await self._bootstrap(request.secret_id, _BOOTSTRAP_DESCRIPTION, self._taken_reset(), asked_from)

    async def make_initial(self) -> None:
        """The token of `acl.initial_management_file`. Raises: TokenFileRefused, and as `bootstrap`."""
        if self._initial_management_file is not None:
            secret_id = await asyncio.to_thread(_initial_secret, self._initial_management_file)
            await self._bootstrap(secret_id, _INITIAL_DESCRIPTION, None, LEADER)

    async def _bootstrap(self, secret_id: str, description: str, reset: int | None, by: str) -> AclKeyAnswer:
        def make(state: State) -> tuple[AclCommand, AclKeyAnswer]:
            done = state.acl.bootstrap_index
            if done and reset != done:
                raise _no_second_bootstrap(done, reset, self._replica.leadership.leader_id)
            made = writers.management_token(secret_id, description, self._secret_ids.hashed, self._now)
            token = made.command.token
            if any(other.secret_hash == token.secret_hash for other in state.acl.tokens):
                raise BadRequest("Provided token cannot be used because a token with that secret already exists.")
            return BootstrapAcl(token, done), AclKeyAnswer(token.accessor_id, made.secret_id)

        answer = await self._write(None, make, by=by)
        self._log("acl.bootstrapped", accessor=answer.key, by=by, index=self._replica.state.acl.bootstrap_index)
        return answer

    def _taken_reset(self) -> int | None:
        """The index in the reset file, which is removed before anything is done with it; None without one."""
        path = self._data_dir / _RESET_FILE
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_RESET_BYTES + 1).strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InternalError(f"{_RESET_FILE} in the data directory cannot be read: {error.strerror}") from error
        if not text.isdigit() or len(text) > _MAX_RESET_BYTES:
            raise BadRequest(f"{_RESET_FILE} in the leader's data directory must hold the reset index, a number")
        if int(text) == self._replica.state.acl.bootstrap_index:
            path.unlink()
        return int(text)

    async def _write(self, judge: Judge | None, make: Make, by: str = "") -> AclKeyAnswer:
        """`by`: who asks, where nobody is judged. Raises: as `_written`."""
        written = await self._written(judge, make, by)
        change, key = type(written.command).__name__, written.answer.key
        self._log("acl.changed", change=change, key=key, by=written.by, index=written.index)
        return written.answer

    async def _written(self, judge: Judge | None, make: Make, by: str = "") -> "_Written":
        """`judge`: of whom it needs a right.

        Raises: as both; _Gone, Refused, ChangeUnderWay, NotLeader, CommitUnknown.
        """
        for _ in range(_ATTEMPTS):
            if judge is not None:
                by = judge().by
            command, answer = make(self._replica.state)
            self._room.check(self._replica.state.acl, command)
            result = await self._replica.propose(command, timeout=_COMMIT_SECONDS)
            if isinstance(result, Applied):
                return _Written(command, answer, result.index, by)
            _raise_unless_overtaken(result)
        raise ChangeUnderWay("access control is being changed all the time: try again later")

    @property
    def _now(self) -> int:
        return int(self._clock.now())

    def _require_ready(self) -> None:
        """Raises: NotReady."""
        if self._replica.state.acl.key is None:
            raise NotReady(NOT_SET_UP)


def _initial_secret(path: Path) -> str:
    """Raises: TokenFileRefused."""
    try:
        return read_secret_id(_INITIAL_SETTING, path)
    except FileNotFoundError:
        raise TokenFileRefused(
            f"{_INITIAL_SETTING} {path} is not there: without it nobody can manage the cluster; put a UUID into it, or"
            " take the setting out on every node and bootstrap (`quorumca acl bootstrap`)"
        ) from None


@dataclasses.dataclass(frozen=True, slots=True)
class _Judged:
    """What a login has proved, and what it was judged by, which must be so still when its token is made."""

    method: AuthMethod
    config: MethodConfig
    roots: tuple[CARoot, ...]
    proved: Proved


@dataclasses.dataclass(frozen=True, slots=True)
class _Written:
    command: AclCommand
    answer: AclKeyAnswer
    index: int
    by: str  # who has asked, as it was judged last


class _Gone(Exception):
    """What was to be deleted is not there."""


def _raise_unless_overtaken(rejected: Rejected) -> None:
    if rejected.code == acl_rules.NOT_FOUND:
        raise _Gone
    if rejected.code == acl_rules.FULL:
        raise Refused(f"no room for more of them: {rejected.detail}")
    if rejected.code not in acl_rules.OVERTAKEN:
        raise InternalError(f"{rejected.code}: {rejected.detail}")


def _keyed(command: acl_rules.Setting) -> tuple[AclCommand, AclKeyAnswer]:
    return command, AclKeyAnswer(acl_rules.key_of(command))


def _shown(made: writers.NewToken) -> tuple[AclCommand, AclKeyAnswer]:
    return made.command, AclKeyAnswer(made.command.token.accessor_id, made.secret_id)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _can_be(table: str, key: str) -> bool:
    """Whether anything in this table may have it."""
    return is_method_name(key) if table == "methods" else table not in _GONE or _is_uuid(key)


def _deletion(table: str, key: str) -> AclCommand:
    """Raises: BadRequest."""
    match table:
        case "policies":
            return DeletePolicy(key)
        case "roles":
            return DeleteRole(key)
        case "tokens":
            return DeleteTokens((key,))
        case "methods":
            return DeleteAuthMethod(key)
        case "binding_rules":
            return DeleteBindingRule(key)
    raise BadRequest(f"{table!a:.80} is no table of access control")


def _no_second_bootstrap(done: int, reset: int | None, leader: str | None) -> Exception:
    """In Consul's words, and then who leads: a file in another's data directory is not looked for."""
    advice = f"write {done} into the file {_RESET_FILE} in the leader's data directory"
    if leader:
        advice += f" (the leader is {leader})"
    if reset is None:
        return PermissionDenied(
            f"Permission denied: ACL bootstrap no longer allowed (reset index: {done}): to allow another, {advice}"
        )
    return BadRequest(f"Invalid bootstrap reset index (specified {reset}, reset index: {done}): {advice}")


def _object(text: str) -> Mapping[str, object]:
    """Raises: BadRequest. The node that was asked has looked at it, but this one does not rely on that."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest("Request decode failed: must be a JSON object")
    return value
