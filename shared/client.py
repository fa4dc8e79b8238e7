"""Clients of a reward service: `RewardClient` for an event loop, `SyncRewardClient` without one.

with SyncRewardClient("http://localhost:8001") as client:
    pending = client.submit(images, prompts)  # the service works while you go on
    scores = [item.score for item in pending.result().results]
"""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from shared.async_client import Images, Metadata, RewardClient
from shared.schema import Identity, ScoreResponse, ServiceInfo

__all__ = ["Images", "Metadata", "RewardClient", "SyncRewardClient"]

T = TypeVar("T")


class SyncRewardClient:
    """`RewardClient` for code without an event loop, which gets one in a thread of its own.

    Arguments and errors are those of `RewardClient`. May be shared between threads.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        api_key: str | None = None,
        deadline_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
        max_connections: int = 8,
        expected_identity: Identity | None = None,
    ) -> None:
        self._client = RewardClient(
            urls,
            api_key=api_key,
            deadline_s=deadline_s,
            transport=transport,
            max_connections=max_connections,
            expected_identity=expected_identity,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"reward client {self.urls[0]}", daemon=True
        )
        self._thread.start()

    @property
    def urls(self) -> tuple[str, ...]:
        """Addresses of the service."""
        return self._client.urls

    @property
    def expected_identity(self) -> Identity | None:
        """As `RewardClient.expected_identity`."""
        return self._client.expected_identity

    @property
    def away(self) -> dict[str, str]:
        """As `RewardClient.away`."""
        return self._client.away

    def info(self, *, deadline_s: float | None = None) -> ServiceInfo:
        """As `RewardClient.info`."""
        return _waited(self._run(self._client.info(deadline_s=deadline_s)))

    def score(
        self,
        images: Images,
        prompts: Sequence[str],
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> ScoreResponse:
        """As `RewardClient.score`."""
        return _waited(
            self.submit(
                images, prompts, metadata, idempotency_key=idempotency_key, deadline_s=deadline_s
            )
        )

    def submit(
        self,
        images: Images,
        prompts: Sequence[str],
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> Future[ScoreResponse]:
        """Start `score` and return at once. `close` cancels what is not done by then."""
        return self._run(
            self._client.score(
                images, prompts, metadata, idempotency_key=idempotency_key, deadline_s=deadline_s
            )
        )

    def close(self) -> None:
        """Cancel what is under way, close the connections, end the thread. Idempotent."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop.is_closed():
            call.close()
            raise RuntimeError(f"the client of {self.urls[0]} is closed: make a new one")
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()
        await self._loop.shutdown_asyncgens()


def _waited(future: Future[T]) -> T:
    try:
        return future.result()
    except BaseException:
        future.cancel()  # Ctrl-C must not leave the request running
        raise
