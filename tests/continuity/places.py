"""Where a CA can be: its keys in the cluster itself, or under paths of a Vault; and how each is configured."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from cryptography import x509

from tests.kit import pki
from tests.kit.vault_server import VaultServer

BUILT_IN, VAULT_A, VAULT_B = PLACES = ("built-in", "vault a", "vault b")


@dataclass(frozen=True, slots=True)
class Goal:
    """A CA to go to: the kind of its root's key, and where it is; no place where there is only one."""

    kind: str  # "ec 256"
    place: str = ""
    own: str = ""  # an operator's root, and what is odd about it
    is_forced: bool = False  # without cross-signing

    def __str__(self) -> str:
        return " ".join(filter(None, (self.place, self.own, self.kind, "by force" if self.is_forced else "")))

    @property
    def is_in_vault(self) -> bool:
        return self.place in (VAULT_A, VAULT_B)


#: From each of them to each: between providers, from one path to another, and to another root at the same place.
VAULT_GOALS: Final = tuple(Goal(kind, place) for place, kind in product(PLACES, ("ec 256", "rsa 2048")))


#: Good for some domains only; with room for a few CAs below it; about to end.
CONSTRAINED, ROOMY, SHORT = ("constrained", "path length 3", "short-lived")
_SHORT_SECONDS: Final = 20
_LONG_SECONDS: Final = 90 * 86_400
_BEGUN_SECONDS: Final = 120


def own_root(goal: Goal, trust_domain: str) -> dict[str, object]:
    """An operator's root and its key."""
    private = pki.key(*_kind(goal), number=secrets.randbelow(1 << 30))
    public, now = private.public_key(), int(time.time())
    extensions = pki.ca_extensions(
        public, pki.key_id(public), path_length=3 if goal.own == ROOMY else None, uris=[f"spiffe://{trust_domain}"]
    )
    if goal.own == CONSTRAINED:
        permitted = [x509.DNSName("consul"), x509.DNSName("localhost")]
        extensions.append((x509.NameConstraints(permitted, None), True))
    name = f"Own root {secrets.token_hex(4)}"
    end = now + (_SHORT_SECONDS if goal.own == SHORT else _LONG_SECONDS)
    root = pki.certificate(
        public, private, extensions, subject=name, issuer=name, not_before=now - _BEGUN_SECONDS, not_after=end
    )
    return {"PrivateKey": pki.key_pem(private), "RootCert": pki.pem(root)}


def _kind(goal: Goal) -> tuple[str, int]:
    key_type, bits = goal.kind.split()
    return key_type, int(bits)


class Places:
    """`config`: what every provider is given."""

    def __init__(self, config: Mapping[str, object], vault: VaultServer | None = None) -> None:
        self._config = config
        self._vault = vault
        self._own: dict[int, dict[str, object]] = {}

    def configuration(self, goal: Goal, number: int, trust_domain: str = "") -> dict[str, object]:
        """The body of a PUT for the rotation of this number; the same each time it is asked for."""
        key_type, bits = goal.kind.split()
        config = {**self._config, "PrivateKeyType": key_type, "PrivateKeyBits": int(bits)}
        if goal.own:
            if number not in self._own:
                self._own[number] = own_root(goal, trust_domain)
            return {"Provider": "consul", "Config": {**config, **self._own[number]}}
        if not goal.is_in_vault:
            return {"Provider": "consul", "Config": config}
        assert self._vault is not None
        prefix = f"{self._vault.prefix}-{goal.place.split()[1]}"
        # A mount keeps its root for good: another root is another path. The intermediates of one place share theirs.
        mounts = {"RootPKIPath": f"{prefix}-root-{number}", "IntermediatePKIPath": f"{prefix}-int"}
        return {"Provider": "vault", "Config": {**config, **self._vault.config(**mounts)}}
