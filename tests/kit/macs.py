"""MACs of snapshots for keeping, as a cluster with this key would make them."""

import hmac
from collections.abc import Callable


def mac_with(key: bytes) -> Callable[[bytes], bytes]:
    return lambda sums: hmac.digest(key, sums, "sha256")
