"""When a certificate's lifetime gives cause for concern."""

from datetime import UTC, datetime
from typing import Final

from cryptography import x509

#: Renew when so much of the lifetime is left: nodes warn in their logs from the same point on.
_SOON: Final = 0.2


def is_expired(cert: x509.Certificate, now: datetime) -> bool:
    return cert.not_valid_after_utc <= now


def expires_soon(cert: x509.Certificate, now: datetime) -> bool:
    lifetime = cert.not_valid_after_utc - cert.not_valid_before_utc
    return cert.not_valid_after_utc - now < _SOON * lifetime


def is_not_valid_yet(cert: x509.Certificate, now: datetime) -> bool:
    return cert.not_valid_before_utc > now


def end_text(cert: x509.Certificate) -> str:
    return time_text(cert.not_valid_after_utc)


def time_text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
