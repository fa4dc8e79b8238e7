"""Outcomes as they lie in Redis."""

import pytest

from reward_services.job_queue import JobResult, JobState, given_up
from reward_services.redis_results import (
    decode_state,
    encode_error,
    encode_items,
    encode_share,
    share_name,
)
from shared.errors import DeadlineExceeded, InternalError, RewardError, ServiceUnavailable
from shared.schema import Durations, Identity, ItemFault, ItemResult

FAULT = ItemFault(code="too_dark", message="no", retryable=False)
RESULTS = [
    ItemResult(score=0.1 + 0.2, details={"caption": "ä", "parts": [1, None, 2.5]}),
    ItemResult(score=0.0),
    ItemResult(error=FAULT),
]


def result(*results: ItemResult, version: str = "1", seconds: float = 1.0) -> JobResult:
    identity = Identity(name="n", version=version, units="u", direction="minimize")
    durations = Durations(queue_s=seconds, batch_wait_s=0.25, inference_s=seconds)
    return JobResult(identity, list(results), durations)


def record(*shares: tuple[int, JobResult], end: bytes = b"done") -> dict[bytes, bytes]:
    """The hash of a job after these shares."""
    size = max(first + len(share.results) for first, share in shares)
    job = {b"n": b"%d" % size, b"left": b"0", b"end": end}
    for first, share in shares:
        if value := encode_share(share):
            job[share_name(first, share.results).encode()] = value
        for index, one in enumerate(encode_items(share), start=first):
            job[b"p%d" % index] = one
    return job


def test_a_result_is_read_as_it_was_written() -> None:
    whole = result(*RESULTS)
    assert decode_state(record((0, whole))) == JobState("finished", result=whole)


def test_shares_are_joined() -> None:
    first, second = result(RESULTS[0], seconds=1), result(*RESULTS[1:], seconds=2)
    state = decode_state(record((0, first), (1, second)))
    assert state.result is not None
    assert list(state.result.results) == RESULTS
    assert state.result.durations == Durations(queue_s=2, batch_wait_s=0.25, inference_s=3)


def test_a_picture_that_was_given_up_has_no_share() -> None:
    lost = JobResult(None, [given_up(3)], result().durations)
    assert encode_share(lost) == b""
    state = decode_state(record((0, lost)))
    assert state.result is not None
    assert state.result.identity is None
    assert list(state.result.results) == [given_up(3)]


def test_shares_of_two_versions_are_an_error() -> None:
    state = decode_state(record((0, result(RESULTS[0])), (1, result(RESULTS[1], version="2"))))
    assert isinstance(state.error, ServiceUnavailable)


@pytest.mark.parametrize(
    ("job", "phase"),
    [
        ({b"n": b"2", b"left": b"2"}, "waiting"),
        ({b"n": b"2", b"left": b"2", b"b": b"0"}, "waiting"),
        ({b"n": b"2", b"left": b"2", b"b": b"1"}, "running"),
        ({b"n": b"2", b"left": b"1", b"b": b"0"}, "running"),
    ],
)
def test_a_job_that_has_not_ended(job: dict[bytes, bytes], phase: str) -> None:
    assert decode_state(job) == JobState(phase)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late", retry_after=2.5), ServiceUnavailable("no")]
)
def test_an_error_is_read_as_it_was_written(error: RewardError) -> None:
    again = decode_state({b"end": encode_error(error)}).error
    assert type(again) is type(error)
    assert again is not None
    assert (again.message, again.retry_after) == (error.message, error.retry_after)


def test_an_error_of_a_newer_service() -> None:
    again = decode_state({b"end": b'{"code": "novel", "message": "m"}'}).error
    assert isinstance(again, InternalError)
