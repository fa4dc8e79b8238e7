"""Pictures in Redis: what is written is read, in chunks, and ends."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from redis import Redis

from reward_services import redis_blobs
from reward_services.redis_blobs import RedisBlobs
from reward_services.redis_connection import RedisConnection
from reward_services.scorer import ScoreItem
from shared.errors import BrokerUnavailable
from tests.conftest import RedisServer

PREFIX = "rw:{blobs}:"


@pytest.fixture
async def blobs(own_redis: RedisServer) -> AsyncIterator[RedisBlobs]:
    store = RedisBlobs(RedisConnection(own_redis.url), PREFIX, beside_queue=False)
    yield store
    await store.close()


def items(count: int) -> list[ScoreItem]:
    """Pictures of different sizes."""
    random = np.random.default_rng(0)
    shapes = [(2 + n, 3 + 2 * n, 3) for n in range(count)]
    return [
        ScoreItem(random.integers(0, 256, shape).astype(np.uint8), f"ä{n}", {"n": n, "of": [1.5]})
        for n, shape in enumerate(shapes)
    ]


def same(one: Any, other: Any) -> bool:
    return all(
        np.array_equal(a.image, b.image) and (a.prompt, a.metadata) == (b.prompt, b.metadata)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("chunk", [1, 100, 10**6])
async def test_what_is_written_is_read(
    blobs: RedisBlobs, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(redis_blobs, "WRITE_BYTES", chunk)
    monkeypatch.setattr(redis_blobs, "READ_BYTES", chunk)
    written = items(9)
    await blobs.put("a", written, 60)
    assert same(await blobs.get("a", 0, 9), written)
    assert same(await blobs.get("a", 3, 2), written[3:5])
    words = await blobs.words("a")
    assert words is not None
    assert words.prompts == [item.prompt for item in written]


async def test_pictures_that_do_not_lie_in_order(blobs: RedisBlobs) -> None:
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    written = [ScoreItem(image[::2, ::-1]), ScoreItem(image.transpose(1, 0, 2))]
    await blobs.put("a", written, 60)
    assert same(await blobs.get("a", 0, 2), written)


async def test_a_job_of_which_anything_is_gone_is_gone(
    blobs: RedisBlobs, own_redis: RedisServer
) -> None:
    assert await blobs.get("a", 0, 1) is None
    await blobs.put("a", items(3), 60)
    with Redis.from_url(own_redis.url) as raw:
        raw.delete(f"{PREFIX}blob:a:1")
        assert await blobs.get("a", 0, 3) is None
        assert await blobs.get("a", 2, 1) is not None
        raw.delete(f"{PREFIX}blob:a:words")
    assert await blobs.get("a", 2, 1) is None


async def test_pictures_end_and_are_dropped(blobs: RedisBlobs, own_redis: RedisServer) -> None:
    await blobs.put("a", items(3), 60)
    await blobs.put("b", items(1), 60)
    with Redis.from_url(own_redis.url) as raw:
        assert all(50 < raw.ttl(key) <= 60 for key in raw.scan_iter())
        await blobs.drop("a", 3)
        assert sorted(list(raw.scan_iter())) == [
            f"{PREFIX}blob:b:{part}".encode() for part in (0, "words")
        ]


async def test_the_picture_of_a_dead_letter_outlives_its_job(
    blobs: RedisBlobs, own_redis: RedisServer
) -> None:
    await blobs.put("a", items(3), 60)
    await blobs.bury("a", 1, "5-0", 600)
    await blobs.drop("a", 3)
    assert same(await blobs.get("dead-5-0", 1, 1), items(3)[1:2])
    with Redis.from_url(own_redis.url) as raw:
        assert all(500 < raw.ttl(key) <= 600 for key in raw.scan_iter())
        await blobs.drop_letter("5-0", 1)
        assert list(raw.scan_iter()) == []


async def test_a_store_that_is_away(blobs: RedisBlobs, own_redis: RedisServer) -> None:
    own_redis.kill()
    for call in (
        blobs.put("a", items(2), 60),
        blobs.get("a", 0, 2),
        blobs.words("a"),
        blobs.drop("a", 2),
        blobs.bury("a", 1, "5-0", 600),
        blobs.drop_letter("5-0", 1),
    ):
        with pytest.raises(BrokerUnavailable):
            await call
