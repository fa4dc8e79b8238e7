"""Which pictures are trained on, and when too few are left."""

from collections import Counter

import numpy as np
import pytest

from trainer.scores import Scores, usable
from trainer.stops import RunStopped


def scores(valid: list[bool], faults: dict[str, int] | None = None, example: str = "") -> Scores:
    values = np.where(valid, 1.5, np.nan)
    return Scores({"r": values}, np.array(valid), Counter(faults or {}), example, 0.0, 0.0)


def keep(valid: list[bool], prompts: str, min_valid: int = 1, budget: float = 0.5) -> list[bool]:
    result = usable(
        scores(valid), list(prompts), min_valid_per_prompt=min_valid, max_invalid_fraction=budget
    )
    assert result.dtype == np.bool_
    return [bool(flag) for flag in result]


def test_a_picture_without_a_score_is_left_out() -> None:
    assert keep([True, False, True, True], "abab") == [True, False, True, True]


def test_a_prompt_with_too_few_scores_is_left_out_altogether() -> None:
    # a has three scores, b has one left of two.
    assert keep([True, True, True, True, False], "aaabb", min_valid=2) == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_the_error_budget_counts_pictures_without_a_score() -> None:
    assert keep([True] * 9 + [False], "abcdefghij", budget=0.1).count(False) == 1
    with pytest.raises(RunStopped, match=r"2 of 10 pictures have no score .*max_invalid_fraction"):
        keep([True] * 8 + [False] * 2, "abcdefghij", budget=0.1)


def test_the_message_names_the_faults() -> None:
    given = scores([False, False], {"image_unreadable": 2}, "image_unreadable: no PNG")
    with pytest.raises(RunStopped, match=r"2 image_unreadable; for example image_unreadable: no"):
        usable(given, ["a", "b"], min_valid_per_prompt=1, max_invalid_fraction=0.5)


def test_nothing_left_to_compare() -> None:
    with pytest.raises(RunStopped, match=r"no prompt has scoring\.min_valid_per_prompt = 2"):
        keep([True, True], "ab", min_valid=2)
