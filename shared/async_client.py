"""The client of a reward service, for use within an event loop.

    async with RewardClient("http://localhost:8001") as client:
        response = await client.score(images, prompts)
    scores = [item.score for item in response.results]  # None where item.error says why

One deadline covers a call with all its retries. A request above the limits of the service is split
and its answer joined. Nothing is retried that another try cannot cure (see `shared.retry`).
"""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt

from shared import answers
from shared.errors import (
    BodyTooLarge,
    InvalidRequest,
    InvalidServiceUrl,
    ProtocolError,
    ServiceUnreachable,
    TooManyItems,
)
from shared.retry import Patience
from shared.schema import (
    DEADLINE,
    IDEMPOTENCY_KEY,
    SAFETENSORS,
    Identity,
    Limits,
    ScoreResponse,
    ServiceInfo,
)
from shared.wire import EncodedBatch, encode_batch, split_batch

Images = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]
Metadata = Sequence[Mapping[str, Any]] | None

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 4.0
"""Below the five seconds after which uvicorn closes an idle connection: a request sent at that
very moment would be lost and tried again."""


class RewardClient:
    """Scores pictures over HTTP. Made and used within one event loop; safe for concurrent calls.

    Args:
        url: address of the service, such as `http://localhost:8001`.
        api_key: sent as bearer token.
        deadline_s: seconds that one call may take in all, unless the call says otherwise.
        transport: replaces the network, e.g. `httpx.ASGITransport(app)` to run in process.
            Proxies and certificates of the environment are not looked at; set them here.
        max_connections: pooled connections to the service.
        expected_identity: when set (here or later), any other identity in an answer raises.

    Raises:
        InvalidServiceUrl: `url` is not an http(s) address.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        deadline_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
        max_connections: int = 8,
        expected_identity: Identity | None = None,
    ) -> None:
        self.url = _checked_url(url)
        self.deadline_s = deadline_s
        self.expected_identity = expected_identity
        self._limits: Limits | None = None
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=_headers(api_key),
            transport=transport,
            # The deadline bounds everything but the connect, where another try may help earlier.
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=max_connections, keepalive_expiry=KEEPALIVE_S),
            trust_env=False,
        )

    async def info(self, *, deadline_s: float | None = None) -> ServiceInfo:
        """What the service says about itself, asked anew at every call.

        Raises:
            ServiceUnavailable, RequestError, ContractError: see `shared.errors`.
        """
        return await self._info(self._patience(deadline_s))

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
        if self._limits is None:
            await self._info(patience)
        try:
            return await self._score(self._split(whole, images, prompts, metadata), key, patience)
        except (TooManyItems, BodyTooLarge):
            before = self._limits
            await self._info(patience)
            if self._limits == before:
                raise
            # The service came back with smaller limits.
            return await self._score(self._split(whole, images, prompts, metadata), key, patience)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

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
        return Patience(self.deadline_s if deadline_s is None else deadline_s, self.url)

    async def _info(self, patience: Patience) -> ServiceInfo:
        response = await patience.wait_for(lambda: self._request("GET", "/info", {}, None))
        info = answers.read_info(self.url, response)
        self._check_identity(info.identity)
        self._limits = info.limits
        return info

    def _split(
        self, whole: EncodedBatch, images: Images, prompts: Sequence[str], metadata: Metadata
    ) -> list[EncodedBatch]:
        limits = self._limits
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
                    group.create_task(self._score_part(part, part_key, patience))
                    for part, part_key in zip(parts, keys, strict=True)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return answers.joined(self.url, [task.result() for task in tasks])

    async def _score_part(self, part: EncodedBatch, key: str, patience: Patience) -> ScoreResponse:
        async def once() -> httpx.Response:
            headers = {
                "Content-Type": SAFETENSORS,
                # Given, so that the body is not sent chunked: the service can refuse it unread.
                "Content-Length": str(part.nbytes),
                IDEMPOTENCY_KEY: key,
                DEADLINE: f"{patience.left_s:.3f}",
            }
            return await self._request("POST", "/score", headers, _stream(part))

        response = await patience.wait_for(once)
        scores = answers.read_scores(self.url, response, part.count)
        self._check_identity(scores.identity)
        return scores

    def _check_identity(self, answered: Identity) -> None:
        if self.expected_identity is not None:
            answers.check_identity(self.url, self.expected_identity, answered)

    async def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        content: AsyncIterator[bytes] | None,
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, headers=headers, content=content)
        except httpx.LocalProtocolError:
            raise  # a bug on this side, which no other try cures
        except httpx.DecodingError as error:
            raise ProtocolError(
                f"{self.url} sent a body that cannot be unpacked: {error}"
            ) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachable(
                f"{self.url} cannot be reached ({reason}): is it running?"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise answers.refusal(self.url, response)
        return response


async def _stream(part: EncodedBatch) -> AsyncIterator[bytes]:
    """The body in pieces of 1 MB: whole, httpx and the socket would copy the rest at every send."""
    for chunk in part.chunks():
        yield bytes(chunk)


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


def _headers(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    if not api_key.isascii() or not api_key.isprintable() or not api_key.strip():
        raise InvalidRequest("the API key must be printable ASCII characters: check for line ends")
    return {"Authorization": f"Bearer {api_key}"}


def _checked_url(url: str) -> str:
    """`url` without a slash at its end."""
    example = "write it like http://localhost:8001"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for anything but a port number
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidServiceUrl(f"reward service URL {url!r}: {error}; {example}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(map(str.isspace, url)):
        raise InvalidServiceUrl(f"reward service URL {url!r} is no http(s) address: {example}")
    if parts.query or parts.fragment or parts.username is not None:
        raise InvalidServiceUrl(
            f"reward service URL at {parts.hostname!r} has a user, query or fragment: {example} "
            "and give a key as api_key"
        )
    return url.rstrip("/")
