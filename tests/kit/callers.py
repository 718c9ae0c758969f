"""Callers for tests that are about something else: nobody of them is refused anything."""

from typing import Final

from cluster.access.authorizer import Authorizer
from cluster.access.directory import EVERYTHING
from cluster.api.access import Caller
from fsm.acl import ANONYMOUS
from tests.kit.acl_samples import uuid

#: Who asks while access control is not in use.
ANYBODY: Final = Caller(
    "", ANONYMOUS, Authorizer((), allows_by_default=True), is_anonymous=True, is_of_open_cluster=True
)
MANAGER: Final = Caller(
    "11111111-0000-4000-8000-000000000001",
    uuid(1),
    Authorizer(EVERYTHING, allows_by_default=False),
)


def anybody() -> Caller:
    return ANYBODY


class FakeAccess:
    """Implements `cluster.api.access.Access`: everybody may do everything."""

    allows_by_default = True

    def caller_here(self, secret_id: str) -> Caller:
        return ANYBODY

    async def caller(self, secret_id: str) -> Caller:
        return ANYBODY

    def judged_again(self, caller: Caller) -> Caller:
        return caller

    has_recovery_token = False

    def put_agent_token(self, kind: str, secret_id: str, caller: Caller) -> None:
        raise AssertionError("nothing here has a token of its own")
