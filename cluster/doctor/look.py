"""Asks nodes over their HTTP API everything that the checks in live.py need."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cluster.client.api import Api
from cluster.client.errors import CommandError

_HEALTH_STATUSES: Final = (200, 429)


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
    #: By how many seconds its clock is ahead of ours, at least and at most.
    ahead: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return str(member(self.own, "Config").get("NodeName") or self.address)

    def stat(self, group: str, name: str) -> str:
        return str(member(member(self.own, "Stats"), group).get(name) or "")

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
    """Ends early at a node that cannot be reached."""
    address = str(api.origin)
    try:
        own = api.json("GET", "/v1/agent/self")
        ahead = api.clock_ahead("/v1/status/leader")
    except CommandError as error:
        return NodeView(address, unreachable=str(error))
    refusals: dict[str, str] = {}

    def ask(path: str, *, stale: bool = True, accept: tuple[int, ...] = (200,)) -> Mapping[str, Any]:
        try:
            return api.json("GET", path, query={"stale": ""} if stale else {}, accept=accept)
        except CommandError as error:
            refusals[path] = str(error)
            return {}

    view = NodeView(
        address,
        own=own,
        metrics=ask("/v1/agent/metrics"),
        roots=ask("/v1/connect/ca/roots"),
        rotation=ask("/v1/connect/ca/rotation"),
        digest=ask("/v1/operator/digest"),
        ahead=ahead,
        refusals=refusals,
    )
    if not view.stat("raft", "leader"):
        return view  # the leader's view of the servers would be waited for in vain
    health = ask("/v1/operator/autopilot/health", stale=False, accept=_HEALTH_STATUSES)
    return replace(view, health=health)


def members(value: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list; whatever else is there is passed over."""
    found = value.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def member(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
