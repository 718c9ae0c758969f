"""What a worker does not load: there is one for each core that signs, on every node."""

import subprocess
import sys

_LOADED = """
import sys
import cluster.signing.worker as worker
assert "hashlib" not in sys.modules, "too early to choose"
worker.hash_without_openssl()
worker.Host().warm_up()
import hashlib, hmac
assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf")
assert hmac.new(b"key", b"abc", "sha256").hexdigest().startswith("9c196e32")
print(any("libcrypto" in line for line in open("/proc/self/maps")))
"""


def test_one_openssl_is_enough_to_sign_with() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")
