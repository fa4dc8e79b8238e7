"""From an HTTP answer to a checked model or a typed error."""

import json
from typing import Any

import httpx
import pytest

from shared.answers import joined, read_info, read_scores, refusal
from shared.errors import (
    BadGateway,
    ProtocolError,
    QueueFull,
    Unauthorized,
)
from shared.schema import Durations, Identity, ItemResult, ScoreResponse

URL = "http://rewards:8001"
SCORES: dict[str, Any] = {
    "reward": "jpeg",
    "version": "1",
    "units": "kB",
    "direction": "maximize",
    "results": [{"score": -1.0}, {"score": -2.0}],
    "durations": {"queue_s": 0.0, "batch_wait_s": 0.0, "inference_s": 1.0},
    "request_id": "r1",
}
INFO: dict[str, Any] = {
    "name": "jpeg",
    "version": "1",
    "units": "kB",
    "direction": "maximize",
    "range": [None, 0],
    "max_batch_size": 8,
    "limits": {"max_items": 4, "max_body_bytes": 100, "max_pixels": 9},
    "schema_version": 1,
}


def answer(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers=headers)


def response(*scores: float, request_id: str = "r1", **changes: Any) -> ScoreResponse:
    results = [ItemResult(score=score) for score in scores]
    fields = SCORES | {"results": results, "request_id": request_id} | changes
    return ScoreResponse(**fields)


def test_an_error_body_becomes_its_error_named_after_the_service() -> None:
    body = {"code": "queue_full", "message": "4096 items wait", "retryable": True}
    error = refusal(URL, answer(body | {"request_id": "r7"}, 429, **{"Retry-After": "3"}))
    assert type(error) is QueueFull
    assert error.message == "http://rewards:8001: 4096 items wait"
    assert (error.retry_after, error.request_id) == (3.0, "r7")


def test_the_page_of_a_proxy_is_read_by_its_status() -> None:
    page = answer(b"<html>bad gateway</html>", 502, **{"X-Request-Id": "p1"})
    error = refusal(URL, page)
    assert type(error) is BadGateway
    assert error.message == f"{URL}: HTTP 502 Bad Gateway without a readable reason"
    assert error.request_id == "p1"


def test_a_redirect_is_not_followed_but_shown() -> None:
    error = refusal(URL, answer(b"", 307, Location="https://rewards/"))
    assert type(error) is ProtocolError
    assert error.message.endswith("answered 307 and points to https://rewards/: use that URL")


def test_a_wrong_key() -> None:
    body = {"code": "unauthorized", "message": "no key", "retryable": False, "request_id": ""}
    assert type(refusal(URL, answer(body, 401))) is Unauthorized


def test_scores_are_read() -> None:
    scores = read_scores(URL, answer(SCORES), 2)
    assert [result.score for result in scores.results] == [-1.0, -2.0]
    assert scores.identity == Identity(name="jpeg", version="1", units="kB", direction="maximize")


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_results_is_refused(count: int) -> None:
    with pytest.raises(ProtocolError, match=f"answered 2 results for {count} pictures"):
        read_scores(URL, answer(SCORES), count)


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "the body: Invalid JSON"),
        (b"<html>", "the body: Invalid JSON"),
        ([1.0, 2.0], "the body: "),
        (without(SCORES, "version"), "version: Field required"),
        (SCORES | {"version": 1}, "version: "),
        (SCORES | {"direction": "up"}, "direction: "),
        (SCORES | {"results": [{"score": float("nan")}]}, "results.0.score: "),
        (SCORES | {"results": [{"score": 1.0}, {"score": float("inf")}]}, "results.1.score: "),
        (SCORES | {"results": [{"score": "1.0"}]}, "results.0.score: "),
        (SCORES | {"results": [{"score": True}]}, "results.0.score: "),
        (SCORES | {"results": [{"score": None}]}, "results.0: "),
        (SCORES | {"results": [{}]}, "results.0: "),
        (SCORES | {"results": None}, "results: "),
    ],
)
def test_nonsense_is_refused_with_its_place(body: Any, where: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_scores(URL, answer(body), 2)
    assert caught.value.message.startswith(f"{URL} does not answer like a reward service")
    assert where in caught.value.message
    assert "\n" not in caught.value.message


def test_info_is_read() -> None:
    assert read_info(URL, answer(INFO)).range == (None, 0.0)


def test_another_schema_is_refused_with_both_versions() -> None:
    with pytest.raises(ProtocolError, match=r"speaks version 2 .* this client version 1"):
        read_info(URL, answer(INFO | {"schema_version": 2}))


def test_the_info_of_something_else_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"\(ServiceInfo, version: Field required\)"):
        read_info(URL, answer({"name": "Elasticsearch"}))


def test_parts_are_joined_in_order() -> None:
    times = Durations(queue_s=3.0, batch_wait_s=0.5, inference_s=2.0)
    whole = joined([response(1.0, 2.0), response(3.0, request_id="r2", durations=times)])
    assert [result.score for result in whole.results] == [1.0, 2.0, 3.0]
    assert whole.request_id == "r1,r2"
    assert whole.durations == Durations(queue_s=3.0, batch_wait_s=0.5, inference_s=3.0)


def test_one_part_is_left_alone() -> None:
    part = response(1.0)
    assert joined([part]) is part
