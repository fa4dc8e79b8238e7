"""The batching rule, as properties of a pure function."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_services.batching import BatchLimits, split, take_batch


@dataclass(frozen=True)
class Waiting:
    number: int
    size: int = 1
    arrived: float = 0.0
    deadline: float = 1000.0
    alone: bool = False


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Waiting], float, BatchLimits]:
    limits = BatchLimits(draw(st.integers(1, 16)), draw(st.sampled_from([0.0, 0.005, 1.0])))
    now = 10.0
    times = sorted(draw(st.lists(st.floats(8.5, now), max_size=12)))
    jobs = [
        Waiting(
            number,
            size=draw(st.integers(1, limits.max_items)),
            arrived=arrived,
            deadline=draw(st.sampled_from([now - 1, now, now + 0.001, now + 60])),
            alone=draw(st.booleans()),
        )
        for number, arrived in enumerate(times)
    ]
    return jobs, now, limits


@given(situations())
def test_nothing_is_lost_repeated_or_overtaken(
    situation: tuple[list[Waiting], float, BatchLimits],
) -> None:
    jobs, now, limits = situation
    decision = take_batch(jobs, now, limits)
    assert list(decision.expired) == [job for job in jobs if job.deadline <= now]
    assert [*decision.batch, *decision.rest] == [job for job in jobs if job.deadline > now]


@given(situations())
def test_a_batch_fits_and_a_redelivered_job_is_alone(
    situation: tuple[list[Waiting], float, BatchLimits],
) -> None:
    batch = take_batch(*situation).batch
    assert sum(job.size for job in batch) <= situation[2].max_items
    assert len(batch) == 1 or not any(job.alone for job in batch)


@given(situations())
def test_it_dispatches_or_says_when_to_ask_again(
    situation: tuple[list[Waiting], float, BatchLimits],
) -> None:
    jobs, now, limits = situation
    decision = take_batch(jobs, now, limits)
    if decision.batch or not decision.rest:
        assert decision.wait_until is None
        return
    assert decision.wait_until is not None
    assert now < decision.wait_until <= decision.rest[0].arrived + limits.max_wait_s
    # Nothing is left out that could go: everything at hand is waiting for company.
    assert sum(job.size for job in decision.rest) < limits.max_items
    # Asked again then, it does not wait any longer.
    later = take_batch(decision.rest, decision.wait_until, limits)
    assert later.batch or later.expired


@given(situations())
def test_nobody_waits_without_a_wait(
    situation: tuple[list[Waiting], float, BatchLimits],
) -> None:
    jobs, now, limits = situation
    decision = take_batch(jobs, now, BatchLimits(limits.max_items, 0.0))
    assert decision.batch or all(job.deadline <= now for job in jobs)


def test_the_first_job_waits_for_company_and_no_longer() -> None:
    limits = BatchLimits(8, 0.005)
    jobs = [Waiting(0, size=3, arrived=1.0), Waiting(1, size=3, arrived=1.004)]
    assert take_batch(jobs, 1.0049, limits).wait_until == pytest.approx(1.005)
    assert take_batch(jobs, 1.005, limits).batch == tuple(jobs)


def test_a_job_that_does_not_fit_heads_the_next_batch() -> None:
    jobs = [Waiting(0, size=5), Waiting(1, size=4), Waiting(2, size=1)]
    decision = take_batch(jobs, 0.0, BatchLimits(8, 60.0))
    assert decision.batch == (jobs[0],)
    assert decision.rest == (jobs[1], jobs[2])


def test_a_full_batch_does_not_wait() -> None:
    jobs = [Waiting(0, size=5), Waiting(1, size=3)]
    assert take_batch(jobs, 0.0, BatchLimits(8, 60.0)).batch == tuple(jobs)


def test_nothing_pending() -> None:
    nobody: list[Waiting] = []
    decision = take_batch(nobody, 0.0, BatchLimits(8, 60.0))
    assert (decision.batch, decision.rest, decision.wait_until) == ((), (), None)


@given(st.integers(0, 300), st.integers(1, 64))
def test_splitting_covers_everything_in_order_and_evenly(count: int, most: int) -> None:
    parts = split(count, most)
    assert [index for part in parts for index in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert all(0 < size <= most for size in sizes)
    assert len(parts) == -(-count // most)
    assert not sizes or max(sizes) - min(sizes) <= 1
