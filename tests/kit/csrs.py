"""CSRs of local services, made as an agent makes them, and serials for them."""

from providers.pki.serials import serial_bytes
from providers.pki.x509 import new_leaf_csr


def service_csr(trust_domain: str, service: str = "web", datacenter: str = "dc1") -> str:
    csr_pem, _key_pem = new_leaf_csr(f"spiffe://{trust_domain}/ns/default/dc/{datacenter}/svc/{service}", [], [])
    return csr_pem


def serial(number: int) -> bytes:
    return serial_bytes(1 << 127 | number)
