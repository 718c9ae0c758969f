"""Serials and the other random choices that the leader makes for a certificate before it is signed."""

import secrets

from providers.api import RootIntent


def new_serial() -> int:
    """Positive, 127 random bits after a one: of one length, and within 20 octets (RFC 5280 4.1.2.2)."""
    return secrets.randbits(127) | 1 << 127


def new_intent(now: int) -> RootIntent:
    return RootIntent(serial=new_serial(), uid=_uid(), not_before=now)


def _uid() -> str:
    """Eight characters [a-z0-9], which make the CA's common name unique."""
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "".join(secrets.choice(alphabet) for _ in range(8))
