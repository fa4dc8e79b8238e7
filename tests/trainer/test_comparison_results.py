"""Paired differences, and the table of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.schema import Identity
from trainer.comparison_results import PromptSetResults, Results, compared, difference, table
from trainer.gallery import Measured, interval

scores = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


def measured(*values: float | None) -> Measured:
    mean, low, high = interval([value for value in values if value is not None])
    return Measured(scores=list(values), mean=mean, ci95=(low, high))


def test_only_pictures_with_both_scores_are_compared() -> None:
    found = difference(measured(1.0, 2.0, None, 4.0, 5.0), measured(2.0, None, 3.0, 4.5, 7.0))
    assert found is not None
    # 1, 0.5 and 2: mean 7/6, variance 7/12, standard error sqrt(7/36) = 0.440959.
    assert found.n == 3
    assert found.mean == pytest.approx(7 / 6)
    assert found.ci95 == pytest.approx((7 / 6 - 0.864263, 7 / 6 + 0.864263), abs=1e-6)


def test_one_pair_says_nothing_of_a_difference() -> None:
    assert difference(measured(1.0, 2.0, None), measured(3.0, None, 5.0)) is None


@given(st.lists(st.tuples(scores, scores), min_size=2))
def test_without_gaps_it_is_the_difference_of_the_means(pairs: list[tuple[float, float]]) -> None:
    before, after = (measured(*column) for column in zip(*pairs, strict=True))
    found, back = difference(before, after), difference(after, before)
    assert found is not None
    assert back is not None
    assert found.n == len(pairs)
    assert found.mean == pytest.approx(after.mean - before.mean, abs=1e-6)
    assert found.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))


@given(st.lists(scores, min_size=2), st.floats(-10, 10))
def test_what_all_pictures_share_is_no_uncertainty(values: list[float], shift: float) -> None:
    """That is why the same noise is drawn: the scores spread, their differences do not."""
    found = difference(measured(*values), measured(*(value + shift for value in values)))
    assert found is not None
    assert found.ci95 == pytest.approx((shift, shift), abs=1e-6)


def test_every_model_is_compared_with_the_base() -> None:
    by_model = {"base": measured(1.0, 2.0), "epoch-00003": measured(2.0, 3.0, None)}
    with pytest.raises(ValueError, match="argument"):
        compared(by_model)  # other pictures: no pairs
    by_model["epoch-00003"] = measured(2.0, 4.0)
    found = compared(by_model)
    assert found["base"].difference is None
    assert found["base"].n == 2
    assert found["base"].mean == 1.5
    change = found["epoch-00003"].difference
    assert change is not None
    assert change.mean == 1.5


def test_the_table() -> None:
    by_model = {"base": measured(-2.0, -3.0, None), "epoch-00012": measured(-1.0, -1.5, -1.0)}
    found = {"jpeg": compared(by_model)}
    few = {"jpeg": compared({**by_model, "epoch-00012": measured(None, -1.5, -1.0)})}
    results = Results(
        run="mine",
        samples=3,
        seed=0,
        steps=10,
        eta=1.0,
        guidance_scale=3.0,
        identities={
            "jpeg": Identity(name="jpeg", version="1", units="kB", direction="maximize"),
        },
        prompt_sets={
            "animals": PromptSetResults(source="animals", prompts=["a"] * 3, rewards=found),
            "rare": PromptSetResults(source="rare.txt", prompts=["b"] * 3, rewards=few),
        },
    )
    assert table(results).splitlines() == [
        "prompts  reward               model        n    mean    95 % interval"
        "  change   95 % interval",
        "animals  jpeg (kB, maximize)  base         2    −2.5   −3.48 to −1.52",
        "animals  jpeg (kB, maximize)  epoch-00012  3  −1.167  −1.493 to −0.84"
        "   +1.25  +0.76 to +1.74",
        "rare     jpeg (kB, maximize)  base         2    −2.5   −3.48 to −1.52",
        "rare     jpeg (kB, maximize)  epoch-00012  2   −1.25   −1.74 to −0.76",
    ]
