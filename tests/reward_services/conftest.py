"""A small real scorer, and the whole service around it without a port."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis

from reward_services import ItemError, Scored, ScoreItem
from reward_services.announcements import Announcements
from reward_services.api import create_app
from reward_services.attended_worker import service_info
from reward_services.brokers import Broker, open_broker
from reward_services.job_queue import Job, JobQueue, JobResult, Lane, Lease
from reward_services.metrics import Metrics
from reward_services.readiness import Phase, Readiness
from reward_services.scorer import Outcome, Scorer
from reward_services.settings import ServiceSettings
from reward_services.worker import Worker
from shared.schema import SAFETENSORS, Durations, Identity, ItemResult, ServiceInfo
from shared.wire import encode_batch

RAISES, REFUSED, NOT_A_NUMBER, NOT_JSON = 250, 251, 252, 253


@dataclass
class MeanLevel:
    """Mean pixel value; some levels of grey stand for what can go wrong."""

    name: str = "mean_level"
    version: str = "1"
    units: str = "levels"
    max_batch_size: int = 4
    needs_prompt: bool = True
    batches: list[list[str]] = field(default_factory=list)

    def score(self, items: Sequence[ScoreItem]) -> list[Outcome]:
        self.batches.append([item.prompt for item in items])
        return [self._one(item) for item in items]

    def _one(self, item: ScoreItem) -> Outcome:
        level = int(item.image[0, 0, 0])
        if level == RAISES:
            raise ValueError("secret path /etc/model")
        if level == REFUSED:
            return ItemError("too bright")
        if level == NOT_A_NUMBER:
            return float("nan")
        if level == NOT_JSON:
            return Scored(1.0, {"object": object()})
        return Scored(float(item.image.mean()), {"prompt": item.prompt, **item.metadata})


@pytest.fixture
def mean_level() -> MeanLevel:
    return MeanLevel()


Grey = Callable[..., "np.ndarray"]


@pytest.fixture
def grey() -> Grey:
    """`grey(level, side)`: one picture of one level."""

    def make(level: int, side: int = 8) -> np.ndarray:
        return np.full((side, side, 3), level, np.uint8)

    return make


@dataclass
class Stack:
    """One running service: `http` talks to its API in process."""

    http: httpx.AsyncClient
    broker: Broker
    worker: Worker
    info: ServiceInfo
    announcements: Announcements
    transport: httpx.ASGITransport

    @property
    def queue(self) -> JobQueue:
        return self.broker.queue

    @property
    def metrics(self) -> Metrics:
        return self.announcements.metrics

    @property
    def readiness(self) -> Readiness:
        return self.announcements.readiness


StackFactory = Callable[..., AbstractAsyncContextManager[Stack]]


@pytest.fixture
def stack(mean_level: MeanLevel) -> StackFactory:
    """`async with stack(scorer, work=True, **settings) as running:`."""

    @asynccontextmanager
    async def run(
        scorer: Scorer = mean_level, *, work: bool = True, **changes: object
    ) -> AsyncIterator[Stack]:
        settings = ServiceSettings.model_validate({"max_wait_ms": 0, **changes})
        info = service_info(scorer, settings)
        broker = open_broker(settings, info.name)
        metrics = Metrics(info.name)
        worker = Worker(broker.queue, scorer, metrics, max_wait_s=0)
        announcements = Announcements(
            broker.registry, settings.limits, Readiness(Phase.READY), metrics, info=info
        )
        transport = httpx.ASGITransport(app=create_app(settings, broker, announcements))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            working = asyncio.create_task(worker.run()) if work else None
            try:
                yield Stack(http, broker, worker, info, announcements, transport)
            finally:
                worker.drain()
                if working is not None:
                    await working
                await broker.close()

    return run


class Requests:
    """Arguments of `httpx.post` for each media type, well-formed or not."""

    def form(
        self, *pictures: bytes, prompts: Sequence[str] = ("p",), **fields: str
    ) -> dict[str, Any]:
        """A multipart body, as `curl -F` makes one."""
        files: list[tuple[str, Any]] = [("images", ("cat.png", each)) for each in pictures]
        files += [("prompts", (None, prompt)) for prompt in prompts]
        return {"files": [*files, *((name, (None, text)) for name, text in fields.items())]}

    def json(self, images: object, **fields: object) -> dict[str, Any]:
        """A JSON body; `images` as they are."""
        return {"json": {"images": images, **fields}}

    def base64(self, *pictures: bytes, **fields: object) -> dict[str, Any]:
        """A JSON body with these image files."""
        return self.json([base64.b64encode(each).decode() for each in pictures], **fields)

    def safetensors(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        prompts: Sequence[str],
        metadata: Any = None,
    ) -> dict[str, Any]:
        """What the trainer sends."""
        return self.raw(b"".join(encode_batch(images, prompts, metadata).chunks()), SAFETENSORS)

    def tensors(
        self, tensors: dict[str, Any], strings: dict[str, str], data: bytes
    ) -> dict[str, Any]:
        """A safetensors body with any header."""
        text = json.dumps({"__metadata__": strings, **tensors}).encode()
        return self.raw(len(text).to_bytes(8, "little") + text + data, SAFETENSORS)

    def raw(self, body: Any, content_type: str) -> dict[str, Any]:
        """Any body."""
        return {"content": body, "headers": {"content-type": content_type}}


@pytest.fixture(scope="session")
def requests() -> Requests:
    return Requests()


BROKERS = ("memory", "redis", "redis and a folder", "valkey and a redis")


@dataclass(frozen=True)
class QueueDriver:
    """A broker with what its contract tests do over and over."""

    broker: Broker

    @property
    def queue(self) -> JobQueue:
        return self.broker.queue

    def job(
        self,
        name: str,
        size: int = 1,
        *,
        timeout_s: float = 60.0,
        keep: bool = False,
        lane: Lane = "bulk",
    ) -> Job:
        """A job whose n-th picture has the level n."""
        items = [ScoreItem(np.full((2, 2, 3), level, np.uint8), name) for level in range(size)]
        return Job(
            name,
            items,
            timeout_s,
            request_id=f"request of {name}",
            keep_result=keep,
            lane=lane,
            traceparent=f"trace of {name}",
        )

    def result(self, size: int = 1, score: float = 1.0) -> JobResult:
        """What a worker would make of such a job."""
        identity = Identity(name="n", version="1", units="u", direction="maximize")
        durations = Durations(queue_s=0, batch_wait_s=0, inference_s=0)
        return JobResult(identity, [ItemResult(score=score)] * size, durations)

    async def put(self, *jobs: Job) -> None:
        """Reserve and submit."""
        for job in jobs:
            await self.queue.reserve(len(job.items))
            await self.queue.submit(job)

    async def take(self, most: int = 64) -> list[Lease]:
        """Lease what is there."""
        return await self.queue.lease("worker", most, wait_s=0.5)

    async def give_up(self, job: Job) -> None:
        """Submit a job of one picture and let its workers die until it is given up."""
        dead = (await self.queue.stats()).dead
        await self.put(job)
        async with asyncio.timeout(30):
            while (await self.queue.stats()).dead == dead:
                for lease in await self.queue.lease("mortal", 1, wait_s=0.05):
                    await self.queue.load(lease)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Ask again until it holds."""
        async with asyncio.timeout(30):
            while not await condition():
                await asyncio.sleep(0.005)

    async def reserved(self) -> int:
        """Items that count against the limit."""
        return (await self.queue.stats()).reserved_items


@asynccontextmanager
async def _opened(**settings: Any) -> AsyncIterator[QueueDriver]:
    """A broker whose leases are short; `name` is the reward's."""
    name = settings.pop("name", f"test-{uuid.uuid4().hex}")
    broker = open_broker(ServiceSettings(**{"lease_s": 0.05, **settings}), name)
    try:
        yield QueueDriver(broker)
    finally:
        await broker.close()


@pytest.fixture(params=BROKERS)
def opened(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """`async with opened(queue_items=…) as at:` on every broker; leases are short."""
    urls = {"broker_url": "memory://"}
    if request.param.startswith("redis"):
        urls = {"broker_url": request.getfixturevalue("redis_server").url}
    if request.param == "redis and a folder":
        urls["blob_url"] = f"file://{tmp_path / 'blobs'}"
    if request.param == "valkey and a redis":
        urls = {
            "broker_url": request.getfixturevalue("valkey_server").url,
            "blob_url": request.getfixturevalue("redis_server").url,
        }

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[QueueDriver]:
        async with _opened(**urls, **settings) as at:
            yield at
        for url in urls.values():
            if url.startswith("redis:"):
                assert endless_keys(url) == [], "every key must end by itself"

    return run


def endless_keys(url: str) -> list[bytes]:
    """Keys without an end."""
    with Redis.from_url(url) as client:
        return [key for key in client.scan_iter(count=1000) if client.ttl(key) == -1]


@pytest.fixture
def connected() -> Callable[..., AbstractAsyncContextManager[QueueDriver]]:
    """`async with connected(name=…, broker_url=…) as at:`, one of the processes of a service."""
    return _opened
