"""A batch through a scorer that misbehaves."""

import json
import logging
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import structlog

from reward_services import ScoreItem, Scorer
from reward_services.scoring import score_batch
from shared.logs import configure_logging

RAISES, REFUSED, NOT_A_NUMBER, NOT_JSON = 250, 251, 252, 253


@pytest.fixture
def items(grey: Callable[[int], np.ndarray]) -> Callable[..., list[ScoreItem]]:
    """`items(1, 2)`: pictures of these levels."""
    return lambda *levels: [ScoreItem(grey(level), f"p{level}") for level in levels]


def test_only_the_guilty_item_fails(
    items: Callable[..., list[ScoreItem]], mean_level: Scorer, caplog: pytest.LogCaptureFixture
) -> None:
    levels = [1, 2, RAISES, 4, 5, REFUSED, 7, NOT_A_NUMBER, NOT_JSON, 10]
    with caplog.at_level(logging.WARNING):
        results = score_batch(mean_level, items(*levels))
    assert [result.score for result in results] == [1, 2, None, 4, 5, None, 7, None, None, 10]
    errors = [result.error.code for result in results if result.error]
    assert errors == ["scorer_failed", "not_scorable", "non_finite_score", "scorer_failed"]
    assert results[0].details == {"prompt": "p1"}


def test_what_was_raised_is_logged_and_not_told(
    items: Callable[..., list[ScoreItem]], mean_level: Scorer, caplog: pytest.LogCaptureFixture
) -> None:
    (result,) = score_batch(mean_level, items(RAISES))
    assert result.error is not None
    assert "ValueError" in result.error.message
    assert "secret" not in result.error.message
    assert "secret path" in caplog.text


def test_a_scorer_that_drops_an_item_fails_only_where_it_does(
    items: Callable[..., list[ScoreItem]],
) -> None:
    class Dropping:
        name = "dropping"
        max_batch_size = 8

        def score(self, items: Sequence[ScoreItem]) -> list[float]:
            return [float(i.image[0, 0, 0]) for i in items if i.image[0, 0, 0] != 3]

    results = score_batch(Dropping(), items(1, 2, 3, 4))
    assert [result.score for result in results] == [1, 2, None, 4]
    assert results[2].error is not None
    assert "ScorerContractError" in results[2].error.message


def test_nothing_to_score(mean_level: Scorer) -> None:
    assert score_batch(mean_level, []) == []


def test_the_log_names_the_item_that_failed_and_no_other(
    items: Callable[..., list[ScoreItem]], mean_level: Scorer, capsys: pytest.CaptureFixture[str]
) -> None:
    origins = [{"job_id": f"job {number}", "picture": number} for number in range(5)]
    configure_logging("ERROR", as_json=True)
    try:
        score_batch(mean_level, items(1, 2, 3, RAISES, 5), origins)
    finally:
        logging.getLogger().handlers.pop()
        structlog.reset_defaults()
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["job_id"], line["picture"]) == ("job 3", 3)
