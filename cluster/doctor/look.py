"""Asks nodes over their HTTP API everything that the checks in live.py need."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cluster.client.api import Api
from cluster.client.errors import Answered, CommandError

_HEALTH_STATUSES: Final = (200, 429)
_FORBIDDEN: Final = (401, 403)
_NOT_READY: Final = (200, 503)
_READY: Final = "ready\n"
_SELF: Final = "/v1/agent/self"
_LEADER: Final = "/v1/status/leader"


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one node says. What it did not answer is empty, and `refusals` has why, by path."""

    address: str
    unreachable: str = ""
    own: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    roots: Mapping[str, Any] = field(default_factory=dict)
    rotation: Mapping[str, Any] = field(default_factory=dict)
    digest: Mapping[str, Any] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    #: Those of the paths in `refusals` that whoever asks has no right to.
    forbidden: Sequence[str] = ()
    #: Where the leader is and why it is not ready, as a node says to everybody; asked only where `own` is forbidden.
    leader_address: str | None = None
    not_ready: str = ""
    #: By how many seconds its clock is ahead of ours, at least and at most.
    ahead: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return str(member(self.own, "Config").get("NodeName") or self.address)

    def stat(self, group: str, name: str) -> str:
        return str(member(member(self.own, "Stats"), group).get(name) or "")

    @property
    def renews(self) -> bool:
        """Whether it gets its own certificate by itself (`tls.renew`)."""
        return member(self.own, "DebugConfig").get("TLSRenews") is True

    @property
    def leader(self) -> str | None:
        """Whom it takes for the leader; "": it knows none; None: it does not say."""
        return self.stat("raft", "leader") if self.own else self.leader_address

    @property
    def is_leader(self) -> bool:
        return self.stat("quorumca", "leader") == "true"

    def gauges(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of each."""
        return [(member(one, "Labels"), float(one.get("Value", 0))) for one in self._metrics("Gauges", name)]

    def counts(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        return [(member(one, "Labels"), float(one.get("Sum", 0))) for one in self._metrics("Counters", name)]

    def gauge(self, name: str) -> float:
        return next((value for _, value in self.gauges(name)), 0.0)

    def _metrics(self, group: str, name: str) -> list[dict[str, Any]]:
        return [one for one in members(self.metrics, group) if one.get("Name") == name]


def look_at(api: Api) -> NodeView:
    """Ends early at a node that cannot be reached. One that says who may look at what can be, and some is for all."""
    address = str(api.origin)
    refusals: dict[str, str] = {}
    forbidden: list[str] = []
    own: Mapping[str, Any] = {}
    try:
        try:
            own = api.json("GET", _SELF)
        except Answered as error:
            if error.status not in _FORBIDDEN:
                raise
            refusals[_SELF] = str(error)
            forbidden.append(_SELF)
        ahead = api.clock_ahead(_LEADER)
    except CommandError as error:
        return NodeView(address, unreachable=str(error))

    def ask(path: str, *, stale: bool = True, accept: tuple[int, ...] = (200,)) -> Mapping[str, Any]:
        try:
            return api.json("GET", path, query={"stale": ""} if stale else {}, accept=accept)
        except CommandError as error:
            refusals[path] = str(error)
            if isinstance(error, Answered) and error.status in _FORBIDDEN:
                forbidden.append(path)
            return {}

    view = NodeView(
        address,
        own=own,
        metrics=ask("/v1/agent/metrics"),
        roots=ask("/v1/connect/ca/roots"),
        rotation=ask("/v1/connect/ca/rotation"),
        digest=ask("/v1/operator/digest"),
        ahead=ahead,
    )
    if forbidden[:1] == [_SELF]:
        view = replace(view, leader_address=_leader_address(api), not_ready=_not_ready(api))
    if view.leader:  # else the leader's view of the servers would be waited for in vain
        view = replace(view, health=ask("/v1/operator/autopilot/health", stale=False, accept=_HEALTH_STATUSES))
    return replace(view, refusals=refusals, forbidden=forbidden)


def _leader_address(api: Api) -> str | None:
    try:
        answer = json.loads(api.text("GET", _LEADER))
    except (CommandError, ValueError):
        return None
    return answer if isinstance(answer, str) else None


def _not_ready(api: Api) -> str:
    try:
        text = api.text("GET", "/v1/status/ready", accept=_NOT_READY)
    except CommandError:  # one of an earlier release has no such path
        return ""
    return "" if text == _READY else text.strip()


def members(value: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list; whatever else is there is passed over."""
    found = value.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def member(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
