"""What a CSR is made of costs its reader milliseconds at most: anybody can send one, and it is judged before it is
known whether they hold the key.
"""

import secrets
import time
from collections.abc import Callable
from typing import Final

import pytest

from providers.api import CSRPolicy
from providers.errors import CSRRejected
from providers.grants import EVERYTHING
from providers.pki.csr import MAX_CSR_BYTES, check_csr
from tests.kit import costly
from tests.kit.handmade import sequence, value

TRUST_DOMAIN: Final = "11111111-2222-3333-4444-555555555555.consul"
URI: Final = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
POLICY: Final = CSRPolicy(TRUST_DOMAIN, "dc1", "consul")
#: Ten times what the most costly one took when this was written (1.8 ms).
MOST_SECONDS: Final = 0.02


def of(key: bytes, *others: bytes, signature: bytes = b"\1" * 64) -> str:
    return costly.request(key, URI, *others, signature=signature)


def names(count: int, size: int = 1) -> list[bytes]:
    return [value(0x82, f"{number:0{size}}.example"[-size:].encode()) for number in range(count)]


COSTLY: Final[dict[str, Callable[[], str]]] = {
    "RSA 4096, the largest that is verified": lambda: of(
        costly.rsa_key(costly.odd(4096), 2**31 - 1), signature=b"\1" * 512
    ),
    "RSA 8192": lambda: of(costly.rsa_key(costly.odd(8192)), signature=b"\1" * 1024),
    "RSA 16384": lambda: of(costly.rsa_key(costly.odd(16384)), signature=b"\1" * 2048),
    "RSA 32768": lambda: of(costly.rsa_key(costly.odd(32768)), signature=b"\1" * 4096),
    "RSA with a huge exponent": lambda: of(costly.rsa_key(costly.odd(4096), costly.odd(4096)), signature=b"\1" * 512),
    "P-256 by its parameters": lambda: of(costly.explicit_p256()),
    "a curve of 521 bits that is none": lambda: of(costly.explicit_nonsense(521)),
    "a curve of 8000 bits that is none": lambda: of(costly.explicit_nonsense(8000)),
    "a hundred long names": lambda: of(costly.rsa_key(costly.odd(4096)), *names(99, 80), signature=b"\1" * 512),
    "thousands of short names": lambda: of(costly.rsa_key(costly.odd(2048)), *names(3000)),
    "sequences in sequences": lambda: of(sequence(costly.nested(2500))),
    "as long as may be": lambda: of(costly.rsa_key(costly.odd(8 * 9000)), signature=secrets.token_bytes(1800)),
    "100 KB": lambda: of(costly.rsa_key(costly.odd(8 * 70_000))),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_wild_csr_is_refused_within_milliseconds(kind: str) -> None:
    csr_pem, taken = COSTLY[kind](), []
    for _ in range(5):
        begin = time.process_time()
        with pytest.raises(CSRRejected):
            check_csr(csr_pem, POLICY, EVERYTHING)
        taken.append(time.process_time() - begin)
    assert min(taken) < MOST_SECONDS


def test_the_samples_are_as_large_as_they_may_be() -> None:
    sizes = {kind: len(make()) for kind, make in COSTLY.items()}
    assert MAX_CSR_BYTES * 0.8 < sizes["as long as may be"] <= MAX_CSR_BYTES
    assert sizes["100 KB"] > 90_000
    assert all(size <= MAX_CSR_BYTES for kind, size in sizes.items() if kind != "100 KB")
