"""Keeping a process small: the C library's defaults are made for few large programs, not for many small ones."""

import ctypes
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Final, cast

_M_ARENA_MAX: Final = -8  # malloc.h
#: Of hashes that `hashlib` always has, the modules that have them without OpenSSL; two of them are one since 3.12.
_HASHES: Final = (("_md5",), ("_sha1",), ("_sha256", "_sha2"), ("_sha512", "_sha2"), ("_sha3",), ("_blake2",))


def limit_arenas(count: int) -> None:
    """By default every thread may get a heap of its own, up to eight for each core, and each keeps what it has freed.

    Without effect where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, count)


def hash_without_openssl() -> None:
    """For a process that has `cryptography`, which brings an OpenSSL of its own, and no TLS: `hashlib` would load the
    system's one too, 4 MB, for hashes that Python has itself. Before anything imports `hashlib`. Without effect where
    Python was built without them, as some distributions do so that a validated module has all hashes.
    """
    if all(any(map(find_spec, names)) for names in _HASHES):
        sys.modules.setdefault("_hashlib", cast(ModuleType, None))


def return_free_memory() -> None:
    """Hand what is free back to the system. A few milliseconds, during which nobody can allocate."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
