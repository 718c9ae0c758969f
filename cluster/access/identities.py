"""Service and node identities: rules that stand for one of a mesh's members, made as data, never as text."""

from collections.abc import Iterator
from typing import Final

from cluster.access.rules import Rule
from cluster.api.access import Level, Resource
from fsm.acl import NodeIdentity, ServiceIdentity

#: A sidecar registers under the name of its service with this behind it (Consul's convention).
SIDECAR: Final = "-sidecar-proxy"


def service_rules(identity: ServiceIdentity) -> Iterator[Rule]:
    """What a service's sidecar needs: to be the service, and to find others."""
    yield Rule(Resource.SERVICE, Level.WRITE, identity.service)
    yield Rule(Resource.SERVICE, Level.WRITE, identity.service + SIDECAR)
    yield Rule(Resource.SERVICE, Level.READ, is_prefix=True)
    yield Rule(Resource.NODE, Level.READ, is_prefix=True)


def node_rules(identity: NodeIdentity) -> Iterator[Rule]:
    """What a node's agent needs."""
    yield Rule(Resource.NODE, Level.WRITE, identity.node)
    yield Rule(Resource.SERVICE, Level.READ, is_prefix=True)
