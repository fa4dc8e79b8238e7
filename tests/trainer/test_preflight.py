"""Checks before the first update catch what would be a run that does not learn."""

from pathlib import Path

import pytest
import torch

from trainer.config import Config
from trainer.gallery import Evaluation, Measured
from trainer.policy import Policy
from trainer.preflight import check_ratio, check_rewards
from trainer.stops import RunStopped


def config(micro_sd: Path, clip_range: float = 1e-3) -> Config:
    return Config.model_validate(
        {
            "model": {"path": str(micro_sd)},
            "sampling": {"steps": 3, "batch_size": 2, "samples_per_epoch": 4},
            "training": {"batch_size": 4, "micro_batch_size": 5, "clip_range": clip_range},
        }
    )


def test_an_unchanged_policy_has_ratio_one(lora_policy: Policy, micro_sd: Path) -> None:
    tables = lora_policy.tables(3, eta=1.0)
    assert check_ratio(lora_policy, tables, config(micro_sd)) < 1e-5


def test_a_policy_that_is_not_the_same_twice_is_refused(
    lora_policy: Policy, micro_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = lora_policy.predict_noise
    calls = 0

    def drifting(*arguments: torch.Tensor) -> torch.Tensor:
        # As dropout left on would do: sampling and training see another network.
        nonlocal calls
        calls += 1
        return predict(*arguments) + 1e-3 * calls  # type: ignore[arg-type]

    monkeypatch.setattr(lora_policy, "predict_noise", drifting)
    tables = lora_policy.tables(3, eta=1.0)
    with pytest.raises(RunStopped, match=r"ratio is off 1 by .* training\.clip_range = 0\.0001"):
        check_ratio(lora_policy, tables, config(micro_sd, clip_range=1e-4))


def test_a_model_that_draws_nan_is_refused(lora_policy: Policy, micro_sd: Path) -> None:
    with torch.no_grad():
        lora_policy.trainable_parameters()[0].fill_(torch.nan)
    tables = lora_policy.tables(3, eta=1.0)
    with pytest.raises(RunStopped, match=r"not finite \(NaN\) before any training"):
        check_ratio(lora_policy, tables, config(micro_sd))


def evaluation(**scores: list[float | None]) -> Evaluation:
    return Evaluation(
        epoch=0,
        prompts=["p"] * len(next(iter(scores.values()))),
        rewards={name: Measured(scores=each, mean=0, ci95=(0, 0)) for name, each in scores.items()},
    )


def test_rewards_that_tell_pictures_apart_are_fine() -> None:
    check_rewards(evaluation(counting=[0.0, None, 1.0, 0.0]))


def test_a_constant_reward_is_refused() -> None:
    with pytest.raises(RunStopped, match=r"counting gave 0\.5 to all 2 scored evaluation pictures"):
        check_rewards(evaluation(counting=[0.5, None, 0.5]))
    with pytest.raises(RunStopped, match=r"still gave 7 to all 3 scored"):
        check_rewards(evaluation(counting=[0.0, 1.0, 2.0], still=[7.0, 7.0, 7.0]))
