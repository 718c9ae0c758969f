"""Whom something is taken from: what a subject may do, and each way in which that ends.

All subjects of a campaign may have certificates of a service of their own, and read and write the configuration.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from fsm.acl import ANONYMOUS
from tests.kit.real_cluster import Node
from tests.kit.tokens import public_pem, signer, token_of
from tests.revocation.client import NO_ANSWER, Answered
from tests.revocation.stage import Stage

_AUDIENCE: Final = "quorumca"
#: The shortest that there is.
_TTL_SECONDS: Final = 60
#: What must be left of a token that is going to expire, for all that comes before.
_LEFT_SECONDS: Final = 12.0
_AGAIN_SECONDS: Final = 0.05
_SHORTLY_SECONDS: Final = 0.15
#: When a revocation that met an election is asked for again. One that was done and not acknowledged is so then.
_UNDECIDED: Final = frozenset({NO_ANSWER, 500, 503, 504})
_REVOKE_SECONDS: Final = 30.0

#: Through a node; when it was acknowledged. Whatever was answered in the end is said if it was not.
Revoke = Callable[[Node], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody with a token; "" for whoever has none."""

    secret_id: str = field(repr=False)
    service: str
    revoke: Revoke
    #: Its token is not there any more afterwards; else it is, and gives nothing.
    is_gone: bool
    #: Unix seconds of the moment at which it expires by itself; 0.0: it does not.
    expires_at: float = 0.0

    async def shortly_before(self) -> None:
        """Whatever should be under way while the rights end begins after this."""
        if self.expires_at:
            await asyncio.sleep(max(0.0, self.expires_at - _SHORTLY_SECONDS - time.time()))


Maker = Callable[["Subjects"], Awaitable[Subject]]


class Subjects:
    """Makes them, a new one for each round."""

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self._stage = stage
        self._rng = rng
        self._numbers = itertools.count(1)
        self._ageing: list[tuple[float, str, str]] = []  # Unix seconds of the end, SecretID, service

    async def new(self, kind: str) -> Subject:
        return await KINDS[kind](self)

    # -- tokens

    async def token_deleted(self) -> Subject:
        service, made = await self._token()
        path = f"/v1/acl/token/{made['AccessorID']}"
        return Subject(made["SecretID"], service, self._request("DELETE", path, gone=(403, 404)), is_gone=True)

    async def token_changed(self) -> Subject:
        """All of its links are taken away."""
        service, made = await self._token()
        path = f"/v1/acl/token/{made['AccessorID']}"
        body = {"AccessorID": made["AccessorID"], "Policies": []}
        return Subject(made["SecretID"], service, self._request("PUT", path, body), is_gone=False)

    async def age(self) -> None:
        """One more of those that expire by themselves: no token does so within a minute."""
        service, made = await self._token(ExpirationTTL=f"{_TTL_SECONDS + 1}s")
        ends = datetime.fromisoformat(made["ExpirationTime"].replace("Z", "+00:00")).astimezone(UTC).timestamp()
        self._ageing.append((ends, made["SecretID"], service))

    async def token_expired(self) -> Subject:
        soonest = time.time() + _LEFT_SECONDS
        self._ageing = [one for one in self._ageing if one[0] >= soonest]
        if not self._ageing:
            await self.age()
        ends, secret_id, service = self._ageing.pop(0)
        await asyncio.sleep(max(0.0, ends - _LEFT_SECONDS - time.time()))

        async def wait_for_the_end(_node: Node) -> float:
            await asyncio.sleep(max(0.0, ends - time.time()))
            return time.monotonic() - (time.time() - ends)

        return Subject(secret_id, service, wait_for_the_end, is_gone=True, expires_at=ends)

    # -- what tokens are linked to

    async def policy_changed(self) -> Subject:
        service, made = await self._token()
        policy = made["Policies"][0]
        rules = self._rng.choice(
            (
                f'service "{service}" {{ policy = "deny" }}\noperator = "deny"\n',
                f'service "{service}" {{ policy = "read" }}\noperator = "read"\n',
                "",
            )
        )
        path, body = f"/v1/acl/policy/{policy['ID']}", {"ID": policy["ID"], "Name": policy["Name"], "Rules": rules}
        return Subject(made["SecretID"], service, self._request("PUT", path, body), is_gone=False)

    async def policy_deleted(self) -> Subject:
        service, made = await self._token()
        path = f"/v1/acl/policy/{made['Policies'][0]['ID']}"
        return Subject(made["SecretID"], service, self._request("DELETE", path, gone=(404,)), is_gone=False)

    async def role_changed(self) -> Subject:
        service = self._service()
        policy = await self._policy(service)
        role = await self._stage.must("PUT", "/v1/acl/role", {"Name": service, "Policies": [{"ID": policy["ID"]}]})
        made = await self._stage.must("PUT", "/v1/acl/token", {"Roles": [{"ID": role["ID"]}]})
        path, body = f"/v1/acl/role/{role['ID']}", {"ID": role["ID"], "Name": service, "Policies": []}
        return Subject(made["SecretID"], service, self._request("PUT", path, body), is_gone=False)

    async def anonymous_changed(self) -> Subject:
        """Whoever has no token loses what was allowed to everybody."""
        service = self._service()
        policy = await self._policy(service)
        path = f"/v1/acl/token/{ANONYMOUS}"
        await self._stage.must("PUT", path, {"AccessorID": ANONYMOUS, "Policies": [{"ID": policy["ID"]}]})
        body = {"AccessorID": ANONYMOUS, "Policies": []}
        return Subject("", service, self._request("PUT", path, body), is_gone=False)

    # -- logins

    async def logged_out(self) -> Subject:
        service, _, made = await self._login()
        secret_id = made["SecretID"]
        revoke = self._request("POST", "/v1/acl/logout", token=secret_id, gone=(403,))
        return Subject(secret_id, service, revoke, is_gone=True)

    async def method_deleted(self) -> Subject:
        service, method, made = await self._login()
        revoke = self._request("DELETE", f"/v1/acl/auth-method/{method}", gone=(404,))
        return Subject(made["SecretID"], service, revoke, is_gone=True)

    async def _login(self) -> tuple[str, str, dict[str, Any]]:
        """The service, the auth method, and the token."""
        service, must = self._service(), self._stage.must
        policy, key = await self._policy(service), signer("ES256")
        config = {
            "JWTValidationPubKeys": [public_pem(key)],
            "JWTSupportedAlgs": ["ES256"],
            "BoundAudiences": [_AUDIENCE],
        }
        method = {"Name": service, "Type": "jwt", "MaxTokenTTL": "10m", "Config": config}
        await must("PUT", "/v1/acl/auth-method", method)
        rule = {"AuthMethod": service, "BindType": "policy", "BindName": policy["Name"]}
        await must("PUT", "/v1/acl/binding-rule", rule)
        now = int(time.time())
        bearer = token_of({"aud": _AUDIENCE, "iat": now, "exp": now + 300}, key=key, algorithm="ES256")
        return service, service, await must("POST", "/v1/acl/login", {"AuthMethod": service, "BearerToken": bearer})

    # -- parts

    def _service(self) -> str:
        return f"subject-{next(self._numbers)}"

    async def _policy(self, service: str) -> dict[str, Any]:
        rules = f'service "{service}" {{ policy = "write" }}\noperator = "write"\n'
        return dict(await self._stage.must("PUT", "/v1/acl/policy", {"Name": service, "Rules": rules}))

    async def _token(self, **fields: object) -> tuple[str, dict[str, Any]]:
        service = self._service()
        policy = await self._policy(service)
        body = {"Policies": [{"ID": policy["ID"]}], **fields}
        return service, dict(await self._stage.must("PUT", "/v1/acl/token", body))

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        gone: tuple[int, ...] = (),
    ) -> Revoke:
        """`gone`: what it answers to a repetition, when the first one was done and its answer lost."""

        async def revoke(node: Node) -> float:
            deadline, is_repeated = time.monotonic() + _REVOKE_SECONDS, False
            used = self._stage.root if token is None else token
            while True:
                answer = await self._stage.client.ask(node, method, path, body, token=used)
                if answer.is_given or (is_repeated and answer.status in gone):
                    return answer.at
                _require_undecided(answer, method, path, deadline)
                is_repeated = True
                await asyncio.sleep(_AGAIN_SECONDS)

        return revoke


def _require_undecided(answer: Answered, method: str, path: str, deadline: float) -> None:
    """Raises: AssertionError for an answer that asking again does not change."""
    assert answer.status in _UNDECIDED, f"{method} {path}: {answer.status} {answer.text}"
    assert time.monotonic() < deadline, f"{method} {path} is not done in time: {answer.status} {answer.text}"


KINDS: Final[Mapping[str, Maker]] = {
    "token deleted": Subjects.token_deleted,
    "token changed": Subjects.token_changed,
    "token expired": Subjects.token_expired,
    "policy changed": Subjects.policy_changed,
    "policy deleted": Subjects.policy_deleted,
    "role changed": Subjects.role_changed,
    "anonymous changed": Subjects.anonymous_changed,
    "logged out": Subjects.logged_out,
    "auth method deleted": Subjects.method_deleted,
}
