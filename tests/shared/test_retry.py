"""What is tried again, how long the pauses are, and where it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

import shared.errors
from shared.errors import (
    BY_CODE,
    DeadlineExceeded,
    NotReady,
    QueueFull,
    RewardError,
    ServiceUnavailable,
    ServiceUnreachable,
)
from shared.retry import SHORTEST_PAUSE_S, Patience, parse_retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 17 ", 17.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Mar 2026 12:01:30 -0000", 90.0),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Mar 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_a_date_is_compared_with_the_present_by_default() -> None:
    seconds = parse_retry_after("Sat, 01 Jan 2400 00:00:00 GMT")
    assert seconds is not None
    assert seconds > 10**9


def failing(*errors: Exception) -> tuple[Callable[[], Awaitable[str]], list[float]]:
    """A call that raises these errors in turn and then succeeds, and the times of its tries."""
    left = list(errors)
    times: list[float] = []

    async def call() -> str:
        times.append(asyncio.get_running_loop().time())
        if left:
            raise left.pop(0)
        return "done"

    return call, times


async def test_success_at_once_is_one_try() -> None:
    call, times = failing()
    assert await Patience(60, "it").wait_for(call) == "done"
    assert len(times) == 1


RETRIED = {"queue_full", "unavailable", "not_ready", "draining", "broker_unavailable",
           "deadline_exceeded", "unreachable"}  # fmt: skip


@pytest.mark.parametrize("cls", [*BY_CODE.values(), ServiceUnreachable])
async def test_only_what_another_try_can_cure_is_tried_again(cls: type[RewardError]) -> None:
    call, times = failing(cls("why", retry_after=0.0))
    if cls.code in RETRIED:
        assert await Patience(60, "it").wait_for(call) == "done"
        assert len(times) == 2
    else:
        with pytest.raises(cls, match=r"^why$"):
            await Patience(60, "it").wait_for(call)
        assert len(times) == 1


async def test_a_bug_is_not_tried_again() -> None:
    call, times = failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await Patience(60, "it").wait_for(call)
    assert len(times) == 1


async def test_the_service_decides_the_pause() -> None:
    call, times = failing(QueueFull("full", retry_after=0.6), NotReady("soon", retry_after=0.0))
    await Patience(60, "it").wait_for(call)
    assert times[1] - times[0] >= 0.6
    assert times[2] - times[1] >= SHORTEST_PAUSE_S


async def test_a_pause_beyond_the_deadline_is_not_waited_for() -> None:
    call, times = failing(QueueFull("the queue is full", retry_after=7200, request_id="r1"))
    with pytest.raises(DeadlineExceeded) as caught:
        await Patience(3600, "it").wait_for(call)
    assert caught.value.message == (
        "the queue is full (gave up on try 1, deadline 3600 s, it asks to wait 7200 s)"
    )
    assert caught.value.retry_after == 7200
    assert caught.value.request_id == "r1"
    assert isinstance(caught.value.__cause__, QueueFull)
    assert len(times) == 1


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (ServiceUnreachable("no connection"), ServiceUnreachable),
        (NotReady("loading"), DeadlineExceeded),
    ],
)
async def test_the_deadline_ends_the_tries(
    failure: ServiceUnavailable, outcome: type[ServiceUnavailable]
) -> None:
    call, times = failing(*[failure] * 1000)
    with pytest.raises(ServiceUnavailable, match=rf"{failure.message} \(gave up on try") as caught:
        await Patience(0.5, "it").wait_for(call)
    assert type(caught.value) is outcome
    assert caught.value.__cause__ is failure
    assert len(times) < 10


async def test_the_deadline_ends_a_call_that_hangs() -> None:
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(DeadlineExceeded, match=r"no answer from it within 0\.2 s"):
        await Patience(0.2, "it").wait_for(hang)
    assert cancelled.is_set()


async def test_calls_share_one_deadline() -> None:
    patience = Patience(0.3, "it")
    await asyncio.sleep(0.4)
    assert patience.left_s == 0.0
    with pytest.raises(DeadlineExceeded):
        await patience.wait_for(lambda: asyncio.sleep(60))


def test_the_tree_has_no_other_class_that_is_tried_again() -> None:
    classes = [c for c in vars(shared.errors).values() if isinstance(c, type)]
    unavailable = {c.code for c in classes if issubclass(c, ServiceUnavailable)}
    assert unavailable - RETRIED == {"upload_timeout", "bad_gateway"}
