"""The scorer contract, where it is checked."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from reward_services import ItemError, Scored, ScoreItem
from reward_services.scorer import ScorerContractError, describe, run_scorer
from shared.schema import Limits

ITEMS = [ScoreItem(np.zeros((2, 3, 3), np.uint8), str(number)) for number in range(3)]


class Fixed:
    """Returns what it was made with."""

    name = "fixed"
    max_batch_size = 8

    def __init__(self, outcomes: Any) -> None:
        self.outcomes = outcomes

    def score(self, items: Sequence[ScoreItem]) -> Any:
        assert len(items) > 0
        return self.outcomes


def test_every_kind_of_number_is_a_score() -> None:
    outcomes = [1, np.float32(0.5), Scored(2.0, {"a": 1})]
    assert run_scorer(Fixed(outcomes), ITEMS) == [Scored(1.0), Scored(0.5), Scored(2.0, {"a": 1})]


def test_an_array_is_a_sequence_of_scores() -> None:
    assert run_scorer(Fixed(np.arange(3.0)), ITEMS) == [Scored(0.0), Scored(1.0), Scored(2.0)]


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_length_is_refused_with_both_lengths(count: int) -> None:
    with pytest.raises(ScorerContractError, match=rf"fixed returned {count} results for 3 items"):
        run_scorer(Fixed([0.0] * count), ITEMS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_score_that_is_not_finite_is_an_item_error(value: float) -> None:
    first, second, third = run_scorer(Fixed([1.0, value, Scored(value)]), ITEMS)
    assert first == Scored(1.0)
    for outcome in (second, third):
        assert isinstance(outcome, ItemError)
        assert outcome.code == "non_finite_score"


@pytest.mark.parametrize("value", [None, "1.0", b"1", True, [1.0], Scored("1")])  # type: ignore[arg-type]
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ScorerContractError, match="where a number was due"):
        run_scorer(Fixed([1.0, value, 1.0]), ITEMS)


@pytest.mark.parametrize("outcomes", [1.0, None, {0: 1.0}, iter([1.0, 2.0, 3.0])])
def test_what_is_no_sequence_is_refused(outcomes: object) -> None:
    with pytest.raises(ScorerContractError, match="not a sequence of scores"):
        run_scorer(Fixed(outcomes), ITEMS)


def test_item_errors_pass() -> None:
    error = ItemError("no face in the picture", code="no_face")
    assert run_scorer(Fixed([error, 1.0, error]), ITEMS) == [error, Scored(1.0), error]


@pytest.mark.parametrize("error", [ItemError(""), ItemError("too dark", code="")])
def test_an_item_error_says_why(error: ItemError) -> None:
    with pytest.raises(ScorerContractError, match="without a message or a code"):
        run_scorer(Fixed([error, 1.0, error]), ITEMS)


def test_a_minimal_scorer_is_described_with_defaults() -> None:
    about = describe(Fixed([]))
    assert (about.name, about.max_batch_size, about.units) == ("fixed", 8, "score")
    assert (about.direction, about.range, about.needs_prompt) == ("maximize", (None, None), True)
    assert about.version.startswith("source-")


def test_the_info_holds_the_identity_and_the_limits() -> None:
    limits = Limits(max_items=1, max_body_bytes=2, max_pixels=3)
    about = describe(Fixed([]))
    info = about.info(limits)
    assert info.identity == about.identity
    assert info.limits == limits
    assert info.max_batch_size == 8


@pytest.mark.parametrize(
    ("attribute", "value", "complaint"),
    [
        ("name", "", "needs a `name`"),
        ("name", 3, "needs a `name`"),
        ("max_batch_size", 0, "max_batch_size must be a number from 1"),
        ("max_batch_size", "8", "max_batch_size must be a number from 1"),
        ("max_batch_size", True, "max_batch_size must be a number from 1"),
        ("score", None, r"needs a method `score\(items\)`"),
        ("direction", "up", 'must be "maximize" or "minimize"'),
        ("units", "", "units must be a text"),
        ("units", None, "units must be a text"),
        ("range", 1.0, r"range must be \(lowest, highest\)"),
        ("range", (0.0,), r"range must be \(lowest, highest\)"),
        ("range", (1.0, 0.0), r"range must be \(lowest, highest\)"),
        ("range", (0.0, math.inf), "a finite number or None"),
        ("range", (True, None), "a finite number or None"),
    ],
)
def test_a_description_that_cannot_be_used(attribute: str, value: object, complaint: str) -> None:
    scorer = Fixed([])
    setattr(scorer, attribute, value)
    with pytest.raises(ScorerContractError, match=complaint):
        describe(scorer)


def test_the_pil_image_of_an_item() -> None:
    image = ScoreItem(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).pil
    assert image.mode == "RGB"
    assert image.size == (3, 2)
    assert image.getpixel((1, 0)) == (3, 4, 5)
