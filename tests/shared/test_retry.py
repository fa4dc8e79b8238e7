"""What is tried again, how long a service is left alone, and where a call ends."""

import asyncio
from datetime import UTC, datetime

import pytest

import shared.errors
from shared.errors import BY_CODE, ServiceUnavailable, ServiceUnreachable
from shared.retry import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SHORTEST_PAUSE_S,
    BackOff,
    Patience,
    is_retried,
    parse_retry_after,
)

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


RETRIED = {"queue_full", "bad_gateway", "unavailable", "not_ready", "draining",
           "broker_unavailable", "deadline_exceeded", "unreachable"}  # fmt: skip


@pytest.mark.parametrize(
    "cls",
    [c for c in [*BY_CODE.values(), ServiceUnreachable] if issubclass(c, ServiceUnavailable)],
)
def test_what_another_try_can_cure(cls: type[ServiceUnavailable]) -> None:
    assert is_retried(cls("why")) == (cls.code in RETRIED)


def test_the_tree_has_no_other_class_that_is_tried_again() -> None:
    classes = [c for c in vars(shared.errors).values() if isinstance(c, type)]
    unavailable = {c.code for c in classes if issubclass(c, ServiceUnavailable)}
    assert unavailable - RETRIED == {"upload_timeout"}


# Rests


def test_a_service_is_ready_until_it_fails() -> None:
    assert BackOff().ready_at < 0


def test_rests_double_up_to_the_longest() -> None:
    back_off, now, rests = BackOff(), 100.0, []
    for _ in range(2000):
        back_off.failed(now, now, None)
        rests.append(back_off.ready_at - now)
        now = back_off.ready_at
    for failures, rest in enumerate(rests[:6]):
        longest = FIRST_PAUSE_S * 2**failures
        assert 0.49 * longest < rest < 1.01 * longest
    assert min(rests[6:]) > LONGEST_PAUSE_S / 2.01
    assert max(rests) < 1.01 * LONGEST_PAUSE_S
    assert len(set(rests)) > 1000  # jitter
    assert not back_off.asked_for


def test_the_service_decides_how_long_it_rests() -> None:
    back_off = BackOff()
    back_off.failed(0.0, 1.0, 30.0)
    assert 31.0 <= back_off.ready_at <= 34.0
    assert back_off.asked_for


def test_asking_for_no_rest_is_no_way_to_make_the_client_spin() -> None:
    back_off = BackOff()
    back_off.failed(0.0, 1.0, 0.0)
    assert back_off.ready_at >= 1.0 + SHORTEST_PAUSE_S


def test_what_fails_together_counts_once() -> None:
    back_off = BackOff()
    for _ in range(8):
        back_off.failed(0.0, 1.0, None)
    assert back_off.ready_at <= 1.0 + FIRST_PAUSE_S
    # But a wish is heard whenever it was sent, and the longest one counts.
    back_off.failed(0.5, 1.0, 5.0)
    back_off.failed(0.5, 1.0, 2.0)
    assert back_off.ready_at >= 6.0


def test_a_success_ends_the_series() -> None:
    back_off, now = BackOff(), 1.0
    for _ in range(5):
        back_off.failed(now, now, None)
        now += 60
    back_off.succeeded(now)
    assert back_off.ready_at < 0
    back_off.failed(now, now, None)
    assert back_off.ready_at <= now + FIRST_PAUSE_S


def test_an_answer_to_what_was_sent_before_the_failure_says_nothing() -> None:
    back_off = BackOff()
    back_off.failed(1.0, 2.0, 30.0)
    back_off.succeeded(1.5)
    assert back_off.ready_at >= 32.0


def test_a_rest_can_be_cut_short_but_the_series_goes_on() -> None:
    back_off = BackOff()
    back_off.failed(1.0, 1.0, None)
    back_off.cut_short()
    assert back_off.ready_at < 0
    back_off.failed(1.0, 1.0, None)
    assert back_off.ready_at >= 1.0 + FIRST_PAUSE_S * 0.99


# Deadlines


async def test_patience_runs_out() -> None:
    patience = Patience(0.1)
    assert 0 < patience.left_s <= 0.1
    assert patience.end > asyncio.get_running_loop().time()
    await asyncio.sleep(0.15)
    assert patience.left_s == 0.0
