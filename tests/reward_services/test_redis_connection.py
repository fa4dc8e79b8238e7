"""Every way to reach a Redis, and to fail to."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from reward_services.redis_connection import RedisConnection, broker_errors
from shared.errors import BrokerUnavailable
from tests.conftest import RedisServer, free_port, need_redis

Connected = Callable[..., AbstractAsyncContextManager[Any]]
Serving = Callable[..., Any]

CERTIFICATE = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=redis "
    "-addext subjectAltName=IP:127.0.0.1"
)


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """`with serving("--requirepass", "secret") as server:`, a Redis with other options."""
    need_redis()

    @contextmanager
    def run(*options: str) -> Iterator[Any]:
        server = RedisServer(tmp_path, *options)
        server.start()
        yield server
        server.kill()

    return run


async def round_trip(at: Any) -> None:
    """One job, with a blocking read on either side."""
    leasing = asyncio.create_task(at.queue.lease("worker", 1, wait_s=30))
    await asyncio.sleep(0.02)
    await at.put(at.job("a"))
    waiting = asyncio.create_task(at.queue.result("a"))
    (lease,) = await leasing
    payload = await at.queue.load(lease)
    assert payload.items[0].prompt == "a"
    await at.queue.done(lease, at.result(score=4.0))
    assert (await waiting).results[0].score == 4.0


async def test_a_password(serving: Serving, connected: Connected) -> None:
    with serving("--requirepass", "se/cret") as server:
        url = server.url.replace("redis://", "redis://:se%2Fcret@")
        async with connected(broker_url=url, lease_s=30) as at:
            await round_trip(at)
        for wrong in (server.url, server.url.replace("redis://", "redis://:guess@")):
            async with connected(broker_url=wrong) as at:
                with pytest.raises(BrokerUnavailable) as caught:
                    await at.queue.reserve(1)
                assert "guess" not in caught.value.message


async def test_an_encrypted_connection(
    serving: Serving, connected: Connected, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *CERTIFICATE.split(), *files], check=True, capture_output=True)
    tls = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    port = str(free_port())
    with serving("--port", "0", *tls, "--tls-auth-clients", "no", "--tls-port", port):
        url = f"rediss://127.0.0.1:{port}/0"
        async with connected(broker_url=f"{url}?ssl_ca_certs={certificate}", lease_s=30) as at:
            await round_trip(at)
        async with connected(broker_url=url) as at:
            with pytest.raises(BrokerUnavailable):
                await at.queue.reserve(1)


async def test_a_unix_socket(serving: Serving, connected: Connected, tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    with serving("--port", "0", "--unixsocket", str(socket)):
        async with connected(broker_url=f"unix://{socket}", lease_s=30) as at:
            await round_trip(at)


async def test_a_full_redis(serving: Serving, connected: Connected) -> None:
    with serving("--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as server:
        async with connected(broker_url=server.url) as at:
            with pytest.raises(BrokerUnavailable):
                await at.put(at.job("a", 64))


async def test_commands_are_never_repeated_by_the_library(redis_server: Any) -> None:
    """An answer that is lost must not put the same job into the queue twice."""
    connection = RedisConnection(redis_server.url)
    for client in (connection.commands, connection.blocking):
        options = client.connection_pool.connection_kwargs
        assert options["retry"]._retries == 0
        assert options["socket_timeout"] > 5
    await connection.close()


@pytest.mark.parametrize(
    "error", [RedisConnectionError("127.0.0.1"), ResponseError("OOM"), OSError("reset")]
)
def test_every_fault_is_one_error(error: Exception) -> None:
    with pytest.raises(BrokerUnavailable, match="the job queue is away") as caught, broker_errors():
        raise error
    assert caught.value.retry_after == 2
