"""Proofs that have logged in, remembered until they end, so that each does so once on a leader.

They are in the memory of this node alone. What is used on a leader and seen by somebody on the way can be used once
more when another node leads before it ends, or when this one was started anew. In the log they would cost an entry for
each login and be in every snapshot, to guard against whoever could have taken the token itself from the answer.
"""

import hashlib
import heapq
from collections import Counter
from typing import Final

from cluster.access.methods.refusal import LoginRefused

#: At once. A proof of 300 s is remembered for that long: 200 logins each second.
MAX_PROOFS: Final = 65_536
#: So that nobody with one certificate keeps all others out.
MAX_OF_A_KEY: Final = 64


class UsedProofs:
    def __init__(self, most: int = MAX_PROOFS, most_of_a_key: int = MAX_OF_A_KEY) -> None:
        self._most = most
        self._most_of_a_key = most_of_a_key
        self._used: set[bytes] = set()
        self._of_key: Counter[bytes] = Counter()
        self._by_end: list[tuple[int, bytes, bytes]] = []
        self._forgotten_end = 0

    def __len__(self) -> int:
        return len(self._used)

    def use(self, key: bytes, jti: str, ends: int, now: float) -> None:
        """Of a proof that is good; `key` is the digest of the one that signed it, `ends` its last moment, Unix seconds.

        Raises: LoginRefused when it was used before, or that could not be remembered.
        """
        self._forget(now)
        # A clock that was ahead and set back has made others be forgotten too early: this may be one of them.
        if ends <= self._forgotten_end:
            raise LoginRefused(f"the proof ends at {ends}: proofs that end until {self._forgotten_end} are forgotten")
        # Another key's jti may be the same, by chance or in order to keep this one out.
        proof = hashlib.sha256(key + jti.encode()).digest()
        if proof in self._used:
            raise LoginRefused("the proof has been used before")
        if len(self._used) >= self._most:
            raise LoginRefused(f"{self._most} proofs are remembered: no more until some of them have ended")
        if self._of_key[key] >= self._most_of_a_key:
            raise LoginRefused(f"{self._most_of_a_key} proofs of this key are remembered: no more until one has ended")
        self._used.add(proof)
        self._of_key[key] += 1
        heapq.heappush(self._by_end, (ends, key, proof))

    def _forget(self, now: float) -> None:
        """Those that would be refused from now on because they have ended."""
        while self._by_end and self._by_end[0][0] <= now:
            ends, key, proof = heapq.heappop(self._by_end)
            self._forgotten_end = max(self._forgotten_end, ends)
            self._used.discard(proof)
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]
