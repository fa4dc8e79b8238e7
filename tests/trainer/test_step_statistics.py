"""What an optimiser step reports."""

import math
from typing import Any

import pytest
import torch

from trainer.loss import ppo_loss
from trainer.step_statistics import StepStats, Totals, UpdateStats

CPU = torch.device("cpu")


def step(**changes: Any) -> StepStats:
    values = {
        "loss": 1.0,
        "approx_kl": 1.0,
        "kl_to_base": math.nan,
        "clip_fraction": 0.5,
        "ratio_mean": 1.0,
        "ratio_min": 0.9,
        "ratio_max": 1.1,
        "grad_norm": 2.0,
        "pairs": 4,
        "skipped": False,
    }
    return StepStats(**{**values, **changes})


def test_totals_over_micro_batches() -> None:
    totals = Totals(CPU)
    for difference in ([0.0, 0.1], [-0.2]):
        one = torch.ones(len(difference))
        totals.add(ppo_loss(torch.tensor(difference), 0 * one, one, 0.15, 5.0))
    # Four valid pairs, of which one has no advantage and was not looked at.
    stats = totals.stats(torch.tensor(3.0), pairs=4, evaluated=3)
    ratios = [1.0, math.exp(0.1), math.exp(-0.2)]
    assert stats.loss == pytest.approx(-sum(ratios) / 4)
    assert stats.ratio_mean == pytest.approx(sum(ratios) / 3)
    assert (stats.ratio_min, stats.ratio_max) == pytest.approx((ratios[2], ratios[1]))
    assert stats.approx_kl == pytest.approx((0.01 + 0.04) / 6)
    assert stats.clip_fraction == pytest.approx(1 / 3)
    assert (stats.grad_norm, stats.pairs, stats.skipped) == (3.0, 4, False)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_skips(norm: float) -> None:
    assert Totals(CPU).stats(torch.tensor(norm), pairs=1, evaluated=0).skipped


def test_nothing_looked_at_is_no_ratio() -> None:
    stats = Totals(CPU).stats(torch.tensor(0.0), pairs=2, evaluated=0)
    assert not stats.skipped
    assert (stats.loss, stats.grad_norm) == (0, 0)
    assert math.isnan(stats.ratio_mean)
    assert math.isnan(stats.ratio_min)


def test_metrics_of_an_epoch() -> None:
    stats = UpdateStats(
        [
            step(ratio_min=0.8, grad_norm=1.0),
            step(ratio_max=1.3, grad_norm=3.0),
            step(grad_norm=math.nan, ratio_min=0.1, skipped=True),
        ]
    )
    metrics = stats.metrics()
    assert (metrics["ratio_min"], metrics["ratio_max"]) == (0.8, 1.3)
    assert (metrics["grad_norm"], metrics["skipped_steps"]) == (2.0, 1)
    assert "pairs" not in metrics
    assert math.isnan(UpdateStats([step(skipped=True)]).metrics()["loss"])


@pytest.mark.parametrize(
    ("skipped", "before", "after"),
    [([True, True], 3, 5), ([True, False], 3, 0), ([False, True], 3, 1), ([], 3, 3)],
)
def test_steps_skipped_in_a_row(skipped: list[bool], before: int, after: int) -> None:
    stats = UpdateStats([step(skipped=flag) for flag in skipped])
    assert stats.consecutive_skipped(before) == after
    assert stats.skipped == sum(skipped)
