"""The base model stays what a run began with, however far the policy has gone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.base_policy import BasePolicy
from trainer.kl import step_kl
from trainer.loading import load_policy
from trainer.optimizer import make_optimizer
from trainer.policy import Policy
from trainer.sampling import Rollout, noise_seed, sample, trajectory_noise
from trainer.sections import ModelSection, TrainingSection
from trainer.step_statistics import UpdateStats
from trainer.update import BasePenalty, PairScorer, update_epoch

ScorerOf = Callable[[Policy, int], PairScorer]
SAMPLES, STEPS = torch.arange(2).repeat_interleave(4), torch.arange(4).repeat(2)


def load(micro_sd: Path, train: str, dtype: str = "fp32") -> Policy:
    return load_policy(
        ModelSection.model_validate({"path": str(micro_sd), "train": train, "dtype": dtype})
    )


def move(policy: Policy, by: float = 0.05) -> None:
    """Train it, so to speak."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))


def divergence(scorer: PairScorer, base: BasePolicy) -> torch.Tensor:
    mean, before = scorer.mean(SAMPLES, STEPS), scorer.mean(SAMPLES, STEPS, base)
    return step_kl(scorer.tables, STEPS, mean, before)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("train", ["lora", "full"])
def test_it_is_the_policy_until_that_is_trained(
    micro_sd: Path, scorer_of: ScorerOf, train: str, dtype: str
) -> None:
    policy = load(micro_sd, train, dtype)
    base, scorer = BasePolicy(policy), scorer_of(policy, 2)
    assert not divergence(scorer, base).any()
    before = scorer.mean(SAMPLES, STEPS).detach()
    move(policy)
    assert (divergence(scorer, base) > 0).all()
    assert torch.equal(scorer.mean(SAMPLES, STEPS, base), before)


@pytest.mark.parametrize("train", ["lora", "full"])
def test_looking_at_it_changes_nothing_of_the_policy(
    micro_sd: Path, scorer_of: ScorerOf, train: str
) -> None:
    policy = load(micro_sd, train)
    base = BasePolicy(policy)
    move(policy)
    scorer = scorer_of(policy, 2)
    names, before = list(policy.state()), scorer.mean(SAMPLES, STEPS).detach()
    scorer.mean(SAMPLES, STEPS, base)
    assert list(policy.state()) == names
    assert torch.equal(scorer.mean(SAMPLES, STEPS), before)
    assert scorer.mean(SAMPLES, STEPS).requires_grad
    assert not scorer.mean(SAMPLES, STEPS, base).requires_grad


def updated(
    scorer: PairScorer, advantages: list[float], penalty: BasePenalty | None, **settings: Any
) -> tuple[UpdateStats, torch.Tensor]:
    """One optimiser step that leaves the policy as it is, and its gradient."""
    training = TrainingSection(
        **{
            "learning_rate": 1e-30,
            "weight_decay": 0,
            "max_grad_norm": 1e9,
            "batch_size": 2,
            **settings,
        }
    )
    optimizer = make_optimizer(scorer.policy, training)
    gradients: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(
        lambda optimizer, *_: gradients.extend(
            parameter.grad.flatten().clone() for parameter in optimizer.param_groups[0]["params"]
        )
    )
    stats = update_epoch(
        scorer,
        optimizer,
        np.array(advantages),
        np.ones(2, bool),
        training,
        torch.Generator().manual_seed(0),
        penalty=penalty,
    )
    return stats, torch.cat(gradients)


@pytest.mark.parametrize("micro_batch_size", [3, 8])
@pytest.mark.parametrize("train", ["lora", "full"])
def test_the_update_descends_the_divergence_of_every_pair(
    micro_sd: Path, scorer_of: ScorerOf, train: str, micro_batch_size: int
) -> None:
    policy = load(micro_sd, train)
    base = BasePolicy(policy)
    move(policy, 0.01)
    scorer = scorer_of(policy, 2)
    kl = divergence(scorer, base).mean()
    expected = torch.autograd.grad(kl, policy.trainable_parameters())
    # Without any advantage the divergence alone has a gradient, and no pair is left out.
    stats, gradient = updated(
        scorer, [0.0, 0.0], BasePenalty(base, 3.0), micro_batch_size=micro_batch_size
    )
    flat = 3 * torch.cat([part.flatten() for part in expected])
    assert (gradient - flat).abs().max() <= 1e-4 * flat.abs().max()
    assert stats.metrics()["kl_to_base"] == pytest.approx(kl.item(), rel=1e-4)
    assert stats.metrics()["loss"] == pytest.approx(3 * kl.item(), rel=1e-4)
    # Beside advantages the two gradients add up.
    _, without = updated(scorer, [1.0, -1.0], None)
    stats, both = updated(scorer, [1.0, -1.0], BasePenalty(base, 3.0))
    assert (both - without - flat).abs().max() <= 1e-4 * both.abs().max()


def test_pictures_are_measured_as_they_are_drawn(lora_policy: Policy) -> None:
    tables = lora_policy.tables(4, eta=1.0)
    noise = trajectory_noise([noise_seed(7, "x", 0, i) for i in range(2)], 4, (4, 8, 8))
    base = BasePolicy(lora_policy)
    prompts = ["cat", "dog"]
    plain: Rollout = sample(lora_policy, tables, prompts, noise, 5.0)
    assert plain.divergence is None
    rollout = Rollout.cat([sample(lora_policy, tables, prompts, noise, 5.0, base)])
    assert torch.equal(rollout.latents, plain.latents)
    assert torch.equal(rollout.log_probs, plain.log_probs)
    assert rollout.divergence is not None
    scorer = PairScorer.build(lora_policy, tables, rollout, 5.0)
    exact = divergence(scorer, base).view(2, 4).detach()
    torch.testing.assert_close(rollout.divergence.exact, exact, rtol=1e-3, atol=1e-6)
    # log p − log p_base of the very steps that were drawn.
    log_probs = [
        scorer.log_prob_of(scorer.mean(SAMPLES, STEPS, policy), SAMPLES, STEPS).view(2, 4)
        for policy in (lora_policy, base)
    ]
    expected = (log_probs[0] - log_probs[1]).detach()
    torch.testing.assert_close(rollout.divergence.drawn, expected, rtol=1e-3, atol=1e-5)
