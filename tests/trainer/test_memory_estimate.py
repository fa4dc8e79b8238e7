"""The estimate is the bytes of the tensors that a run really keeps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.config import Config
from trainer.memory_estimate import MemoryEstimate, trajectory_bytes
from trainer.model_sizes import ModelSizes, model_sizes
from trainer.optimizer import make_optimizer
from trainer.policy import Policy
from trainer.unet_policy import UNetPolicy
from trainer.update import PairScorer, update_epoch


def size(*tensors: torch.Tensor) -> int:
    return sum(each.nbytes for each in tensors)


def estimate(config: Config, samples: int) -> MemoryEstimate:
    sizes = model_sizes(config.model)
    assert sizes is not None
    return MemoryEstimate.of(config, sizes, samples)


@pytest.mark.parametrize("train", ["lora", "full"])
def test_what_a_run_keeps(
    micro_sd: Path, scorer_of: Callable[[Policy, int], PairScorer], train: str
) -> None:
    config = Config.model_validate(
        {
            "model": {"path": str(micro_sd), "train": train},
            "sampling": {"steps": 4, "samples_per_epoch": 4, "batch_size": 2},
            "training": {"batch_size": 4},
        }
    )
    policy = UNetPolicy.load(config.model)
    scorer, optimizer = scorer_of(policy, 4), make_optimizer(policy, config.training)
    advantages, valid = torch.ones(4).double().numpy(), torch.ones(4).bool().numpy()
    update_epoch(scorer, optimizer, advantages, valid, config.training, torch.Generator())
    said = estimate(config, 4)
    assert said.trajectories == size(scorer.rollout.latents, scorer.rollout.log_probs)
    moments = [each for state in optimizer.state.values() for each in state.values()]
    assert said.optimizer == size(*(each for each in moments if each.dim()))
    assert said.gradients == size(*policy.trainable_parameters())
    assert said.adapters == (said.gradients if train == "lora" else 0)
    unet = size(*policy._unet.parameters())
    assert said.weights["unet"] + said.adapters == unet


def test_half_precision_halves_the_frozen_weights_alone() -> None:
    sizes = ModelSizes({"unet": 1000, "vae": 10}, 7, (4, 8, 8))
    said = MemoryEstimate.of(
        Config.model_validate({"model": {"path": "x", "dtype": "fp16"}}), sizes, 1
    )
    assert said.weights == {"unet": 2000, "vae": 40}
    assert (said.adapters, said.optimizer, said.gradients) == (28, 56, 28)
    assert (said.average, said.base) == (0, 0)


def test_what_settings_add() -> None:
    sizes = ModelSizes({"unet": 1000}, 0, (4, 8, 8))
    values = {"model": {"path": "x", "dtype": "fp16", "train": "full"}}
    added = {"ema": {"decay": 0.9}, "kl": {"coefficient": 0.1}}
    plain = MemoryEstimate.of(Config.model_validate(values), sizes, 1)
    said = MemoryEstimate.of(Config.model_validate(values | added), sizes, 1)
    assert plain.weights == {"unet": 4000}
    assert (said.average, said.base) == (4000, 4000)
    assert said.at_least - plain.at_least == 8000


def test_the_largest_moment() -> None:
    """Joined batches are there twice; gradients are not there at that moment."""
    one = trajectory_bytes(50, (4, 64, 64))
    assert one == 4 * (51 * 16384 + 50)
    config = Config.model_validate({"model": {"path": "x"}})
    few = MemoryEstimate.of(config, ModelSizes({"unet": 10}, 10**9, (4, 64, 64)), 1)
    many = MemoryEstimate.of(config, ModelSizes({"unet": 10}, 1, (4, 64, 64)), 100)
    assert few.at_least == 40 + 3 * 4 * 10**9 + one + 4 * 10**9
    assert many.at_least == 40 + 3 * 4 + 200 * one


def test_what_is_kept_in_bytes_or_elsewhere_counts_less(micro_sd: Path) -> None:
    def said(**changes: object) -> MemoryEstimate:
        return estimate(Config.model_validate({"model": {"path": str(micro_sd)}} | changes), 4)

    plain = said()
    eight = said(training={"optimizer": "adamw_8bit"})
    assert 4 * eight.optimizer == plain.optimizer
    assert said(sampling={"trajectories": "host"}).trajectories == 0
    assert plain.weights.keys() == {"unet", "vae"}
    kept = said(model={"path": str(micro_sd), "keep_text_encoders": True})
    assert kept.weights["text_encoder"] == kept.at_least - plain.at_least > 0
