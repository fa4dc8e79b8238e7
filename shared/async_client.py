"""The client of a reward service, for use within an event loop.

    async with RewardClient("http://localhost:8001") as client:
        response = await client.score(images, prompts)
    scores = [item.score for item in response.results]  # None where item.error says why

One deadline covers a call with all its retries. A request above the limits of the service is split
and its answer joined. Nothing is retried that another try cannot cure (see `shared.retry`). Given
the addresses of several replicas of the service, the client spreads its requests over them and
goes on while one of them is up (see `shared.replicas`).
"""

import asyncio
import itertools
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import numpy.typing as npt

from shared import answers
from shared.endpoint import Endpoint
from shared.errors import BodyTooLarge, InvalidRequest, InvalidServiceUrl, TooManyItems
from shared.replicas import Replicas
from shared.retry import Patience
from shared.schema import Identity, ScoreResponse, ServiceInfo
from shared.wire import EncodedBatch, encode_batch, split_batch

Images = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]
Metadata = Sequence[Mapping[str, Any]] | None


class RewardClient:
    """Scores pictures over HTTP. Made and used within one event loop; safe for concurrent calls.

    Args:
        urls: address of the service, such as `http://localhost:8001`, or those of its replicas.
        api_key: sent as bearer token.
        deadline_s: seconds that one call may take in all, unless the call says otherwise.
        transport: replaces the network, e.g. `httpx.ASGITransport(app)` to run in process.
            Proxies and certificates of the environment are not looked at; set them here.
        max_connections: pooled connections to each address.
        expected_identity: any other identity in an answer raises; by default that of the first
            answer.

    Raises:
        InvalidServiceUrl: one of `urls` is not an http(s) address, or comes twice.
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
        endpoints = [
            Endpoint(url, api_key=api_key, transport=transport, max_connections=max_connections)
            for url in ([urls] if isinstance(urls, str) else urls)
        ]
        self.urls = tuple(endpoint.url for endpoint in endpoints)
        if not self.urls or len(set(self.urls)) < len(self.urls):
            raise InvalidServiceUrl(
                f"reward service URLs {', '.join(self.urls) or '(none)'}: name every replica once"
            )
        self.deadline_s = deadline_s
        self._replicas = Replicas(endpoints, expected_identity)

    @property
    def expected_identity(self) -> Identity | None:
        """Any other identity in an answer raises `IdentityMismatch`; None before the first one."""
        return self._replicas.expected_identity

    @property
    def away(self) -> dict[str, str]:
        """The addresses that could not be used when last asked, each with the reason."""
        return self._replicas.away

    async def info(self, *, deadline_s: float | None = None) -> ServiceInfo:
        """What the service says about itself. Every call asks all replicas anew.

        Raises:
            ServiceUnavailable: not one of them answered.
            IdentityMismatch: they are not the same reward.
            RequestError, ContractError: see `shared.errors`.
        """
        return await self._replicas.info(self._patience(deadline_s))

    async def score(
        self,
        images: Images,
        prompts: Sequence[str],
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> ScoreResponse:
        """One result per picture, in the order given.

        Args:
            images: uint8 [N,H,W,3], or N arrays uint8 [H,W,3] of any sizes. Not to be changed
                before the call is over.
            prompts: one per picture.
            metadata: one JSON object per picture, or None.
            idempotency_key: names this request for the service, which answers a repetition from
                its store; a random one by default.
            deadline_s: overrides the client's deadline for this call.

        Raises:
            InvalidRequest: the arguments do not fit together.
            RequestError, ServiceUnavailable, ContractError: see `shared.errors`.
        """
        whole = encode_batch(images, prompts, metadata)  # refuses bad arguments before any request
        key = _checked_key(idempotency_key)
        patience = self._patience(deadline_s)
        if self._replicas.limits is None:
            await self._replicas.ready(patience)
        try:
            return await self._score(self._split(whole, images, prompts, metadata), key, patience)
        except (TooManyItems, BodyTooLarge):
            before = self._replicas.limits
            await self._replicas.info(patience)
            if self._replicas.limits == before:
                raise
            # A replica came back with smaller limits.
            return await self._score(self._split(whole, images, prompts, metadata), key, patience)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._replicas.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _patience(self, deadline_s: float | None) -> Patience:
        return Patience(self.deadline_s if deadline_s is None else deadline_s)

    def _split(
        self, whole: EncodedBatch, images: Images, prompts: Sequence[str], metadata: Metadata
    ) -> list[EncodedBatch]:
        limits = self._replicas.limits
        if limits is None or (
            whole.count <= limits.max_items and whole.nbytes <= limits.max_body_bytes
        ):
            return [whole]
        return split_batch(
            images,
            prompts,
            metadata,
            max_items=limits.max_items,
            max_body_bytes=limits.max_body_bytes,
        )

    async def _score(
        self, parts: list[EncodedBatch], key: str, patience: Patience
    ) -> ScoreResponse:
        """Send all parts side by side; the first failure ends the others."""
        keys = [key] if len(parts) == 1 else _keys_of(parts, key)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._replicas.score(part, part_key, patience))
                    for part, part_key in zip(parts, keys, strict=True)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return answers.joined([task.result() for task in tasks])


def _keys_of(parts: list[EncodedBatch], key: str) -> list[str]:
    """Keys that change with the cut, so that other limits after a restart are no conflict."""
    stops = list(itertools.accumulate(part.count for part in parts))
    return [f"{key}.{stop - part.count}-{stop}" for part, stop in zip(parts, stops, strict=True)]


def _checked_key(key: str | None) -> str:
    if key is None:
        return uuid.uuid4().hex
    if not 1 <= len(key) <= 200 or not key.isascii() or not key.isprintable():
        raise InvalidRequest(f"idempotency key {key!r}: send 1 to 200 printable ASCII characters")
    return key
