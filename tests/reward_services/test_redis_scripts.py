"""The Lua scripts as a whole; what each does is in the contract of the queue."""

from collections.abc import AsyncIterator

import pytest

from reward_services.job_queue import QueueLimits, given_up
from reward_services.redis_connection import RedisConnection
from reward_services.redis_scripts import RedisScripts, key_prefix, milliseconds
from tests.conftest import RedisServer


@pytest.fixture
async def connection(redis_server: RedisServer) -> AsyncIterator[RedisConnection]:
    opened = RedisConnection(redis_server.url)
    yield opened
    await opened.close()


@pytest.fixture
def scripts(connection: RedisConnection) -> RedisScripts:
    return RedisScripts(connection, "scripts", QueueLimits())


async def test_redis_may_forget_the_scripts(
    connection: RedisConnection, scripts: RedisScripts
) -> None:
    before = await scripts.run("stats")
    await connection.commands.script_flush()
    assert await scripts.run("stats") == before


async def test_queues_with_other_limits_run_other_scripts(connection: RedisConnection) -> None:
    small = RedisScripts(connection, "limits", QueueLimits(max_items=1))
    large = RedisScripts(connection, "limits", QueueLimits(max_items=9))
    assert (await small.run("reserve", "api", 2))[0] == 0
    assert (await large.run("reserve", "api", 2))[0] == 1
    assert await small.run("unreserve", "api", 2) == 2


def test_keys_of_a_reward_share_a_slot() -> None:
    assert key_prefix("jpeg") == "rw:{jpeg}:"


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (0.0001, 1), (0.05, 50), (60, 60000)])
def test_milliseconds_are_never_none(seconds: float, expected: int) -> None:
    assert milliseconds(seconds) == expected


def test_lost_pictures_are_explained_alike_on_both_brokers(scripts: RedisScripts) -> None:
    fault = given_up(3).error
    assert fault is not None
    (line,) = [each for each in scripts._constants.splitlines() if "LOST_REASON" in each]
    assert "3" + line.split("'")[1] == fault.message
