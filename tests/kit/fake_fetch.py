"""Servers that auth methods ask, in memory."""

import asyncio
from collections.abc import Mapping

from cluster.access.methods.fetching import FetchFailed, Request


class FakeFetch:
    """Answers by URL; what is asked for is kept. While `gate` is given and not set, nobody answers."""

    def __init__(self, answers: Mapping[str, bytes] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[Request] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, request: Request) -> bytes:
        self.asked.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if request.url not in self.answers:
            raise FetchFailed(f"{request.url}: answered with status 404")
        return self.answers[request.url]

    @property
    def urls(self) -> list[str]:
        return [request.url for request in self.asked]
