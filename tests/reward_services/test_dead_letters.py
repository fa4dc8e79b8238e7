"""The contract of every broker's dead letters, run against each of them."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from reward_services.dead_letters import DeadLetter

Opened = Callable[..., AbstractAsyncContextManager[Any]]


async def test_a_picture_that_is_given_up_leaves_a_letter(opened: Opened) -> None:
    async with opened(max_deliveries=2) as at:
        assert await at.broker.dead_letters.list(10) == []
        before = time.time()
        await at.give_up(at.job("a"))
        (letter,) = await at.broker.dead_letters.list(10)
        assert before - 1 <= letter.died_at <= time.time() + 1
        assert replace(letter, id="", died_at=0.0) == DeadLetter(
            id="",
            job_id="a",
            picture=0,
            prompt="a",
            request_id="request of a",
            deliveries=2,
            worker="mortal",
            reason="2 workers went silent while scoring this picture",
            died_at=0.0,
        )


async def test_the_newest_come_first(opened: Opened) -> None:
    async with opened(max_deliveries=1) as at:
        for name in "abc":
            await at.give_up(at.job(name))
        letters = await at.broker.dead_letters.list(2)
        assert [letter.job_id for letter in letters] == ["c", "b"]


async def test_a_picture_can_be_tried_again(opened: Opened) -> None:
    async with opened(max_deliveries=1, queue_items=1) as at:
        await at.give_up(at.job("a"))
        (letter,) = await at.broker.dead_letters.list(10)
        await at.queue.reserve(1)
        assert await at.broker.dead_letters.retry(letter.id), "past the limit"
        assert await at.broker.dead_letters.list(10) == []
        assert not await at.broker.dead_letters.retry(letter.id)
        (lease,) = await at.take()
        assert (lease.job_id, lease.deliveries) == (letter.retry_job_id, 1)
        payload = await at.queue.load(lease)
        assert payload.items[0].prompt == "a"
        assert payload.items[0].image.shape == (2, 2, 3)
        assert payload.request_id == "request of a"
        await at.queue.done(lease, at.result(score=5.0))
        state = await at.queue.state(letter.retry_job_id)
        assert state.result.results[0].score == 5.0


async def test_a_letter_can_be_dropped(opened: Opened) -> None:
    async with opened(max_deliveries=1) as at:
        await at.give_up(at.job("a"))
        (letter,) = await at.broker.dead_letters.list(10)
        assert await at.broker.dead_letters.drop(letter.id)
        assert not await at.broker.dead_letters.drop(letter.id)
        assert not await at.broker.dead_letters.retry(letter.id)
        assert await at.broker.dead_letters.list(10) == []


@pytest.mark.parametrize("letter_id", ["", "1", "5-1", "nonsense", "*"])
async def test_a_letter_that_does_not_exist(opened: Opened, letter_id: str) -> None:
    async with opened() as at:
        assert not await at.broker.dead_letters.retry(letter_id)
        assert not await at.broker.dead_letters.drop(letter_id)
