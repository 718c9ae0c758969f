"""The kinds of ACL objects: where the API has them, how they are named and found, and how they are shown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote

from cluster.cli.acl import pretty
from cluster.cli.acl.pretty import Answer, Lines, quoted
from cluster.client.api import Api
from cluster.client.errors import CommandError, failing_as
from fsm.acl import ANONYMOUS, GLOBAL_MANAGEMENT

_ROOT: Final = "/v1/acl"
#: An id of this length is a whole one; a shorter one is looked up.
_ID_LENGTH: Final = 36


class ShowOne(Protocol):
    def __call__(self, answer: Answer, /, *, meta: bool) -> Lines: ...


class ShowMany(Protocol):
    def __call__(self, answers: Iterable[Answer], /, *, meta: bool) -> Lines: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` is what Consul's texts call it. `flags` say which one is meant; `key` is the field that paths name."""

    name: str
    singular: str
    plural: str
    show: ShowOne
    show_list: ShowMany
    flags: tuple[str, ...]
    key: str = "ID"
    #: Words that stand for ids.
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.name.capitalize()

    @property
    def create_path(self) -> str:
        return f"{_ROOT}/{self.singular}"

    @property
    def list_path(self) -> str:
        return f"{_ROOT}/{self.plural}"

    def path(self, key: str) -> str:
        return f"{_ROOT}/{self.singular}/{quote(key, safe='')}"

    def path_of_name(self, name: str) -> str:
        return self.path(name) if self.key == "Name" else f"{_ROOT}/{self.singular}/name/{quote(name, safe='')}"

    def full_id(self, api: Api, given: str) -> str:
        """The id that is meant by the beginning of one, by the whole of one, or by a word for one.
        Raises: CommandError.
        """
        if given in self.aliases:
            return self.aliases[given]
        if len(given) == _ID_LENGTH:
            return given
        ids = {found for item in api.array(self.list_path) if isinstance(found := item.get(self.key), str)}
        matching = [found for found in ids if found == given] or [found for found in ids if found.startswith(given)]
        if not matching:
            raise CommandError(f"No such {self.name} ID with prefix: {given}")
        if len(matching) > 1:
            raise CommandError(f"Partial {self.name} ID is not unique")
        return matching[0]

    def id_of_name(self, api: Api, name: str) -> str:
        """Raises: CommandError."""
        for item in api.array(self.list_path):
            if item.get("Name") == name and isinstance(found := item.get(self.key), str):
                return found
        raise CommandError(f"No such {self.name} with name {name}")

    def read(self, api: Api, key: str) -> dict[str, Any]:
        """The object as it is. Raises: CommandError, also when there is none."""
        return self._found(api, self.path(key), "name" if self.key == "Name" else "ID", key)

    def read_by_name(self, api: Api, name: str) -> dict[str, Any]:
        """As `read`."""
        return self._found(api, self.path_of_name(name), "name", name)

    def _found(self, api: Api, path: str, what: str, value: str) -> dict[str, Any]:
        with failing_as(f"Error reading {self.name} {quoted(value)}"):
            answer = api.find(path)
        if answer is None:
            raise CommandError(f"{self.title} not found with {what} {quoted(value)}")
        return answer


TOKEN: Final = Kind(
    "token",
    "token",
    "tokens",
    pretty.token,
    pretty.token_list,
    flags=("accessor-id",),
    key="AccessorID",
    aliases={"anonymous": ANONYMOUS},
)
POLICY: Final = Kind(
    "policy",
    "policy",
    "policies",
    pretty.policy,
    pretty.policy_list,
    flags=("id", "name"),
    aliases={"global-management": GLOBAL_MANAGEMENT},
)
ROLE: Final = Kind("role", "role", "roles", pretty.role, pretty.role_list, flags=("id", "name"))
AUTH_METHOD: Final = Kind(
    "auth method",
    "auth-method",
    "auth-methods",
    pretty.auth_method,
    pretty.auth_method_list,
    flags=("name",),
    key="Name",
)
BINDING_RULE: Final = Kind(
    "binding rule",
    "binding-rule",
    "binding-rules",
    pretty.binding_rule,
    pretty.binding_rule_list,
    flags=("id",),
)
