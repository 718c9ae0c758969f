"""What a worker does not load: there is one for each core that signs, on every node."""

import subprocess
import sys

_LOADED = """
import sys
import cluster.signing.worker as worker
assert "hashlib" not in sys.modules, "too early to choose"
worker.hash_without_openssl()
worker.Host(worker.Cover(bytes(64))).warm_up()
import hashlib, hmac
assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf")
assert hmac.new(b"key", b"abc", "sha256").hexdigest().startswith("9c196e32")
print(any("libcrypto" in line for line in open("/proc/self/maps")))
"""


_WITHOUT = """
import sys
for name in ("_md5", "_sha1", "_sha256", "_sha2", "_sha512", "_sha3"):
    sys.modules[name] = None
import cluster.signing.worker as worker
import cluster.base.allocator as allocator
allocator.find_spec = lambda name: sys.modules.get(name) and object()
worker.hash_without_openssl()
worker.Host(worker.Cover(bytes(64))).warm_up()
import hashlib
print(hashlib.sha512(b"abc").hexdigest()[:8], "_hashlib" in sys.modules)
"""


def test_python_whose_hashes_are_all_openssls_signs_too() -> None:
    """As that of some distributions is built."""
    done = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("ddaf35a1 True\n", "")


def test_one_openssl_is_enough_to_sign_with() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")
