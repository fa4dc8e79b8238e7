"""Values of every size as they were written, and what becomes of a connection that breaks."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from reward_services.redis_reader import LONG_BYTES, RedisReader
from tests.conftest import RedisServer


@pytest.mark.parametrize("size", [0, 1, LONG_BYTES - 1, LONG_BYTES, 3_000_001])
async def test_what_was_written_is_read(redis_server: RedisServer, size: int) -> None:
    value = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8).tobytes()
    reader = RedisReader(redis_server.url, 10)
    async with Redis.from_url(redis_server.url) as writer:
        await writer.set("reader:a", value, ex=60)
        await writer.set("reader:b", b"\r\n$-1\r\n", ex=60)
        got = await reader.get(["reader:b", "reader:nothing", "reader:a", "reader:b"])
    assert [None if one is None else bytes(one) for one in got] == [
        b"\r\n$-1\r\n",
        None,
        value,
        b"\r\n$-1\r\n",
    ]
    await reader.close()


async def test_a_restart_is_an_error_once(own_redis: RedisServer) -> None:
    reader = RedisReader(own_redis.url, 10)
    async with Redis.from_url(own_redis.url) as writer:
        await writer.set("kept", b"x" * LONG_BYTES, ex=60)
    assert await reader.get(["nothing"]) == [None]
    own_redis.kill()
    with pytest.raises((RedisError, OSError)):
        await reader.get(["kept"])
    own_redis.start()
    (value,) = await reader.get(["kept"])
    assert value is not None
    assert bytes(value) == b"x" * LONG_BYTES
    await reader.close()


@contextmanager
def server_that_says(answer: bytes) -> Iterator[str]:
    """Answers every command with "+OK" but MGET, and then hangs up: a fault Redis has not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while b"MGET" not in (received := connection.recv(4096)):
                    connection.sendall(b"+OK\r\n" * received.count(b"*"))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"*1\r\n$9000\r\nhalf of it", "closed the connection within a value"),
        (b"*1\r\n$9\r\nhalf", "closed the connection within a value"),
        (b"*1\r\n$4\r\nfour", "closed the connection within a value"),
        (b"*2\r\n$4\r\nfour\r\n", "closed the connection"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no reply of Redis"),
    ],
)
async def test_a_broken_answer_is_no_value(answer: bytes, message: str) -> None:
    with server_that_says(answer) as url:
        reader = RedisReader(url, 10)
        with pytest.raises(RedisError, match=message):
            await reader.get(["a"])
        await reader.close()
