"""The replicated state: the values of all areas in one frozen whole, and look-ups, nothing else.

`index` counts changes of this state and is what clients see as X-Consul-Index, CreateIndex and ModifyIndex; it is
never Raft's log index. Times are Unix seconds. Issued certificates are not here but in the ledger, so that this stays
small however many there are.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from fsm.acl import Acl
from fsm.ca import CAConfig, CARoot, Providers, ProviderState, Roots, Rotation, RotationOutcome, SealKey
from fsm.fields import ADDED, Index, Time
from fsm.nodes import Nodes


class Area(Enum):
    """A part of the state whose changes are counted by themselves; the value is the field of State that counts them.

    Every command belongs to one area (`fsm.rule`). It makes no write stale that was prepared from the state of another
    area, and wakes nobody who waits for a change there.
    """

    CA = "ca_index"  # seal key, configuration, roots, providers and rotation
    LEAVES = "leaf_index"  # issued certificates
    ACL = "acl_index"  # who may do what
    NODES = "nodes_index"  # how servers come to their certificates


@dataclass(frozen=True, slots=True)
class State:
    """Everything the cluster has agreed on."""

    index: Index = 0
    #: Index of the last change to seal, config, roots, rotation or providers: what CA writes are guarded by.
    ca_index: Index = 0
    roots_index: Index = 0
    leaf_index: Index = 0
    seal: SealKey | None = None
    config: CAConfig | None = None
    roots: Roots = ()  # in id order, as Consul lists them
    providers: Providers = ()
    tidied_before: Time = 0  # certificates that expired before this time have been dropped from the ledger
    rotation: Rotation | None = None
    last_rotation: RotationOutcome | None = None
    acl_index: Index = field(default=0, metadata=ADDED)
    acl: Acl = field(default=Acl(), metadata=ADDED)
    nodes_index: Index = field(default=0, metadata=ADDED)
    nodes: Nodes = field(default=Nodes(), metadata=ADDED)

    @property
    def active_root(self) -> CARoot | None:
        return next((root for root in self.roots if root.is_active), None)

    @property
    def trust_domain(self) -> str:
        """Empty before there is a configuration. In lower case, as in certificates, whatever an older log holds."""
        return f"{self.config.cluster_id.lower()}.consul" if self.config else ""

    @property
    def config_index(self) -> int:
        return self.config.modify_index if self.config else 0

    @property
    def roots_watch_index(self) -> int:
        """What a watch on the roots is woken by: a change of configuration counts too, as in Consul."""
        return max(self.roots_index, self.config_index)

    def area_index(self, area: Area) -> int:
        """The state's index as of the last change in this area."""
        index: int = getattr(self, area.value)
        return index

    def moved_to(self, index: int, area: Area | None) -> "State":
        """At a new index, which is that of the area too, if there is one."""
        area_index: dict[str, Any] = {area.value: index} if area is not None else {}
        return replace(self, index=index, **area_index)

    def provider_state(self, provider_id: str) -> ProviderState | None:
        return next((record for record in self.providers if record.provider_id == provider_id), None)
