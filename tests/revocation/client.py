"""Requests to nodes that may be killed meanwhile: what was answered, and when, by this process's clock."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import aiohttp

from tests.kit.real_cluster import Node

#: Of an answer that has not come: the connection was refused, or broke off.
NO_ANSWER: Final = 0
_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What one node said."""

    status: int
    text: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    sent_at: float  # seconds of `time.monotonic`, as everywhere here
    at: float

    @property
    def is_given(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        assert self.status == 200, f"answered {self.status}: {self.text}"
        return json.loads(self.text)


class Client:
    """For as long as it is entered."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        # aiohttp would send a PUT again when the connection ends.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        node: Node,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        query: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
    ) -> Answered:
        """Never raises for what a node does or does not do."""
        assert self._session is not None
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Consul-Token": token} if token else {}
        timeout = aiohttp.ClientTimeout(total=seconds)
        sent_at = time.monotonic()
        try:
            async with self._session.request(
                method, f"{node.url}{path}", data=data, params=query, headers=headers, timeout=timeout
            ) as response:
                text = await response.text()
                return Answered(response.status, text, response.headers, sent_at, time.monotonic())
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return Answered(NO_ANSWER, repr(error), {}, sent_at, time.monotonic())
