"""Where a CA can be: its keys in the cluster itself, or under paths of a Vault; and how each is configured."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from tests.kit.vault_server import VaultServer

BUILT_IN, VAULT_A, VAULT_B = PLACES = ("built-in", "vault a", "vault b")


@dataclass(frozen=True, slots=True)
class Goal:
    """A CA to go to: the kind of its root's key, and where it is; no place where there is only one."""

    kind: str  # "ec 256"
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place} {self.kind}" if self.place else self.kind

    @property
    def is_in_vault(self) -> bool:
        return self.place in (VAULT_A, VAULT_B)


#: From each of them to each: between providers, from one path to another, and to another root at the same place.
VAULT_GOALS: Final = tuple(Goal(kind, place) for place, kind in product(PLACES, ("ec 256", "rsa 2048")))


class Places:
    """`config`: what every provider is given."""

    def __init__(self, config: Mapping[str, object], vault: VaultServer | None = None) -> None:
        self._config = config
        self._vault = vault

    def configuration(self, goal: Goal, number: int) -> dict[str, object]:
        """The body of a PUT for the rotation of this number; the same each time it is asked for."""
        key_type, bits = goal.kind.split()
        config = {**self._config, "PrivateKeyType": key_type, "PrivateKeyBits": int(bits)}
        if not goal.is_in_vault:
            return {"Provider": "consul", "Config": config}
        assert self._vault is not None
        prefix = f"{self._vault.prefix}-{goal.place.split()[1]}"
        # A mount keeps its root for good: another root is another path. The intermediates of one place share theirs.
        mounts = {"RootPKIPath": f"{prefix}-root-{number}", "IntermediatePKIPath": f"{prefix}-int"}
        return {"Provider": "vault", "Config": {**config, **self._vault.config(**mounts)}}
