"""How outcomes reach those who wait, and what is lost is sent again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from reward_services.job_queue import Job, QueueLimits
from reward_services.redis_bell import Awaited, RedisBell
from reward_services.redis_connection import RedisConnection
from reward_services.redis_scripts import RedisScripts
from shared.errors import BrokerUnavailable, DeadlineExceeded, InvalidRequest
from tests.conftest import RedisServer

JOB = Job("a", [], 60)


class Bench:
    """A bell with a note of what it sends again."""

    def __init__(self, connection: RedisConnection, name: str) -> None:
        self.sent: list[str] = []
        self.raw = connection.commands
        self.scripts = RedisScripts(connection, name, QueueLimits())
        self.bell = RedisBell(connection, self.scripts, self._send, self._do_nothing)

    async def _send(self, awaited: Awaited) -> None:
        self.sent.append(awaited.id)

    async def _do_nothing(self) -> None:
        pass

    async def submit(self, name: str) -> None:
        await self.scripts.run("submit", name, self.bell.name, 1, 0, 60_000, 0, "bulk", "", "", 0)

    async def fail(self, name: str) -> None:
        """End it as a worker would that cannot go on."""
        found, _, _, _ = await self.scripts.run("take", "worker", 9, 1)
        for stream, entry, job, *_ in found:
            if job.decode() == name:
                await self.scripts.run("fail", stream, entry, job, '{"code":"x","message":"no"}')


@pytest.fixture
async def bench(redis_server: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    connection = RedisConnection(redis_server.url)
    bench = Bench(connection, request.node.name)
    yield bench
    await bench.bell.close()
    await connection.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_job_that_ends_before_its_submission_is_confirmed(bench: Bench) -> None:
    awaited = bench.bell.expect("a", 60, JOB)
    await bench.submit("a")
    await bench.fail("a")

    async def rung() -> bool:
        return awaited.rung

    await until(rung)
    assert not awaited.outcome.done()
    await bench.bell.confirm(awaited)
    assert awaited.outcome.exception() is not None


async def test_a_lost_ring_is_noticed_by_looking(bench: Bench) -> None:
    awaited = bench.bell.expect("a", 60, JOB)
    await bench.submit("a")
    await bench.bell.confirm(awaited)
    await bench.bell.close()
    await bench.fail("a")
    await bench.raw.delete(f"{bench.scripts.prefix}bell:{bench.bell.name}")
    await bench.bell._look()
    assert awaited.outcome.done()


async def test_what_is_unknown_is_sent_again(bench: Bench) -> None:
    lost = bench.bell.expect("a", 60, JOB)
    unsent = bench.bell.expect("b", 60, JOB)
    await bench.bell.confirm(lost)

    async def sent() -> bool:
        return bench.sent == ["a"]

    await until(sent)
    assert not lost.outcome.done()
    assert not unsent.outcome.done()


async def test_what_cannot_be_sent_again_fails(bench: Bench) -> None:
    foreign = bench.bell.expect("foreign", 60, None)
    late = bench.bell.expect("late", 0.0, JOB)
    often = bench.bell.expect("often", 60, JOB)
    often.losses = 10
    for awaited in (foreign, late, often):
        await bench.bell.confirm(awaited, ended=True)
    assert isinstance(foreign.outcome.exception(), BrokerUnavailable)
    assert isinstance(late.outcome.exception(), DeadlineExceeded)
    assert "REWARD_BLOB_URL" in str(often.outcome.exception())
    assert often.job is None, "its pictures are let go"


async def test_an_outcome_nobody_waits_for_is_not_kept(bench: Bench) -> None:
    awaited = bench.bell.expect("a", 60, JOB)
    await bench.submit("a")
    assert bench.bell.leave(awaited)
    await bench.fail("a")

    async def gone() -> bool:
        return not await bench.raw.exists(f"{bench.scripts.prefix}job:a")

    await until(gone)


async def test_callers_that_are_told_already_do_not_ask_again(bench: Bench) -> None:
    first = bench.bell.expect("a", 10, JOB)
    told = asyncio.create_task(bench.bell.wait(first))
    await asyncio.sleep(0)
    first.finish(InvalidRequest("no"))
    second = bench.bell.expect("a", 10, JOB)
    assert second.callers == 1
    with pytest.raises(InvalidRequest):
        await told
    assert bench.bell.all() == [second]
    second.finish(InvalidRequest("no"))
    with pytest.raises(InvalidRequest):
        await bench.bell.wait(second)
    assert bench.bell.all() == []


async def test_callers_of_one_job_share_its_outcome(bench: Bench) -> None:
    first = bench.bell.expect("a", 10, JOB)
    assert bench.bell.expect("a", 20, JOB) is first
    assert first.callers == 2
    assert not bench.bell.leave(first)
    first.finish(InvalidRequest("no"))
    again = bench.bell.expect("a", 10, JOB)
    assert again is not first
    assert again.callers == 2, "whoever has not asked yet asks for the new outcome"
    assert bench.bell.all() == [again]
