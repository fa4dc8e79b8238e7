"""The policy-gradient update of DDPO: one epoch's samples → a few optimiser steps.

Black et al. 2024 (DDPO), section 4.3 and appendix D. The samples are permuted, and each
sample's timesteps are permuted independently, so one optimiser step mixes timesteps. Its
gradient is the mean over its valid samples × trained timesteps, however these
(sample, timestep) pairs are cut into micro-batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.base_policy import BasePolicy
from trainer.conditioning import Conditioning
from trainer.ddim import DDIMTables, step_log_prob, step_mean
from trainer.kl import step_kl, with_kl
from trainer.loss import PairLoss, Surrogate, ppo_loss
from trainer.optimizer import take_step
from trainer.policy import Policy
from trainer.processes import ALONE, Processes
from trainer.sampling import Rollout
from trainer.sections import TrainingSection
from trainer.step_statistics import StepStats, Totals, UpdateStats


@dataclass(frozen=True)
class BasePenalty:
    """β KL to the base model as a part of the loss."""

    base: BasePolicy
    coefficient: float
    """β, positive."""


@dataclass(frozen=True)
class PairScorer:
    """Log-probabilities of a rollout's steps under the current policy."""

    policy: Policy
    tables: DDIMTables
    rollout: Rollout
    conditional: Conditioning
    """Of each sample's prompt, B rows."""
    unconditional: Conditioning
    """What guidance leads away from, one row."""
    guidance_scale: float

    @classmethod
    def build(
        cls, policy: Policy, tables: DDIMTables, rollout: Rollout, guidance_scale: float
    ) -> "PairScorer":
        """Encode the prompts once for all pairs."""
        conditional, unconditional = policy.encode(rollout.prompts), policy.unconditional()
        return cls(policy, tables, rollout, conditional, unconditional, guidance_scale)

    def mean(
        self, samples: Tensor, steps: Tensor, policy: Policy | BasePolicy | None = None
    ) -> Tensor:
        """μ of x_{t−1} of P pairs, (P, C, h, w) fp32, differentiable.

        Args:
            samples: (P,) int64 indices into the rollout, on the policy's device.
            steps: (P,) int64 step indices, 0 the noisiest, on the policy's device.
            policy: whose; None asks for that of the policy that is trained.
        """
        latents = self.rollout.states(samples, steps)
        predicted = (policy or self.policy).predict_noise(
            latents,
            self.tables.timesteps[steps],
            self.conditional.select(samples),
            self.unconditional,
            self.guidance_scale,
        )
        return step_mean(self.tables, steps, latents, predicted)

    def log_prob_of(self, mean: Tensor, samples: Tensor, steps: Tensor) -> Tensor:
        """log p(x_{t−1} | x_t, prompt) of P pairs whose μ is known, (P,) fp32, differentiable."""
        return step_log_prob(self.tables, steps, mean, self.rollout.states(samples, steps + 1))

    def log_prob(self, samples: Tensor, steps: Tensor) -> Tensor:
        """The same from μ of the current policy; arguments as for `mean`."""
        return self.log_prob_of(self.mean(samples, steps), samples, steps)


@torch.no_grad()
def recomputed_ratios(scorer: PairScorer, micro_batch_size: int) -> Tensor:
    """Probability ratio of every pair of a rollout, (B, T): all 1 while the policy is unchanged."""
    count, steps = scorer.rollout.log_probs.shape
    index = torch.arange(count * steps, device=scorer.policy.device)
    parts = [
        scorer.log_prob(part // steps, part % steps)
        for part in torch.split(index, micro_batch_size)
    ]
    return (torch.cat(parts).view(count, steps) - scorer.rollout.log_probs).exp()


def update_epoch(
    scorer: PairScorer,
    optimizer: torch.optim.Optimizer,
    advantages: npt.NDArray[np.float64],
    valid: npt.NDArray[np.bool_],
    training: TrainingSection,
    generator: torch.Generator,
    on_step: Callable[[StepStats], None] = lambda _: None,
    surrogate: Surrogate = ppo_loss,
    penalty: BasePenalty | None = None,
    processes: Processes = ALONE,
) -> UpdateStats:
    """Train on one epoch's samples, `training.inner_epochs` times over.

    The old log-probabilities stay those of sampling throughout.

    Args:
        scorer: policy and rollout of N samples.
        optimizer: over the policy's trained weights.
        advantages: (N,); the values of invalid samples are not read.
        valid: (N,); the others are left out and do not count in the mean.
        training: sizes and clipping; `training.batch_size` divides N.
        generator: CPU generator of the permutations; its state belongs in a checkpoint.
        on_step: called after every optimiser step.
        surrogate: loss of a pair: that of DDPO-IS, or of DDPO-SF.
        penalty: what is added to the loss of every pair; it takes one more forward pass for each.
        processes: who share the micro-batches of every step. All have the same rollout, advantages
            and generator, and the same weights before and after.

    Raises:
        ValueError: lengths differ, the batch size does not divide them, or an advantage of a
            valid sample is not finite.
    """
    _check(scorer, advantages, valid, training)
    steps = []
    for _ in range(training.inner_epochs):
        for pairs in epoch_pairs(scorer.rollout.log_probs.shape, training, generator):
            steps.append(
                _optimiser_step(
                    scorer,
                    optimizer,
                    pairs,
                    advantages,
                    valid,
                    training,
                    surrogate,
                    penalty,
                    processes,
                )
            )
            on_step(steps[-1])
    return UpdateStats(steps)


def epoch_pairs(
    shape: tuple[int, ...], training: TrainingSection, generator: torch.Generator
) -> Iterator[Tensor]:
    """The pairs of each optimiser step of one pass: (P, 2) int64 of (sample, step), on the CPU.

    Samples are permuted; the steps of each sample that lie in the window are permuted on their own
    and cut to the fraction. Pairs are ordered by place in that permutation, then by sample.

    Args:
        shape: (N, T) of the rollout.
    """
    count, steps = shape
    samples = torch.randperm(count, generator=generator)
    window, trained = training.window(steps), training.trained_timesteps(steps)
    orders = torch.stack([torch.randperm(len(window), generator=generator) for _ in range(count)])
    for batch in torch.split(samples, training.batch_size):
        chosen = window.start + orders[batch, :trained].T
        yield torch.stack([batch.expand(trained, -1), chosen], dim=-1).reshape(-1, 2)


def _check(
    scorer: PairScorer,
    advantages: npt.NDArray[np.float64],
    valid: npt.NDArray[np.bool_],
    training: TrainingSection,
) -> None:
    count = len(scorer.rollout)
    if not len(advantages) == len(valid) == count:
        raise ValueError(f"{count} samples, {len(advantages)} advantages, {len(valid)} valid flags")
    if count % training.batch_size:
        raise ValueError(f"{count} samples are not a multiple of batch size {training.batch_size}")
    if not np.isfinite(advantages[valid]).all():
        raise ValueError("an advantage of a valid sample is not finite")


def _optimiser_step(
    scorer: PairScorer,
    optimizer: torch.optim.Optimizer,
    pairs: Tensor,
    advantages: npt.NDArray[np.float64],
    valid: npt.NDArray[np.bool_],
    training: TrainingSection,
    surrogate: Surrogate,
    penalty: BasePenalty | None,
    processes: Processes,
) -> StepStats:
    """Accumulate the gradient over micro-batches, clip it, step."""
    samples = pairs[:, 0].numpy()
    count = int(valid[samples].sum())
    # A = 0 has gradient 0: such pairs skip the network and still count in the mean.
    moving = (advantages[samples] != 0) if penalty is None else True
    trained = pairs[torch.from_numpy(valid[samples] & moving)]
    parameters = scorer.policy.trainable_parameters()
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    totals = Totals(scorer.policy.device)
    # All that depends on data is on the device before the loop, which therefore never waits.
    weights = torch.from_numpy(np.where(valid, advantages, 0)).float().to(scorer.policy.device)
    placed = trained.to(scorer.policy.device)
    starts = range(0, len(placed), training.micro_batch_size)
    for first in starts[processes.rank :: processes.count]:
        batch = placed[first : first + training.micro_batch_size].unbind(1)
        outcome = _pair_loss(scorer, batch, weights, training, surrogate, penalty)
        scaled = outcome.loss.sum() * (scorer.policy.loss_scale / count)
        scaled.backward()  # type: ignore[no-untyped-call]
        totals.add(outcome)
    processes.sum_gradients(parameters)
    totals.share(processes)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= scorer.policy.loss_scale
    norm = torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
    stats = totals.stats(norm, count, len(trained))
    if not stats.skipped:
        take_step(optimizer, training)
    optimizer.zero_grad(set_to_none=True)
    return stats


def _pair_loss(
    scorer: PairScorer,
    pairs: tuple[Tensor, ...],
    advantages: Tensor,
    training: TrainingSection,
    surrogate: Surrogate,
    penalty: BasePenalty | None,
) -> PairLoss:
    """Loss of P pairs, given as samples and steps."""
    samples, steps = pairs
    # The base first: what it needs is freed before the activations of the trained pass are kept.
    base_mean = None if penalty is None else scorer.mean(samples, steps, penalty.base)
    mean = scorer.mean(samples, steps)
    outcome = surrogate(
        scorer.log_prob_of(mean, samples, steps),
        scorer.rollout.log_probs[samples, steps],
        advantages[samples],
        training.clip_range,
        training.advantage_clip,
    )
    if penalty is None or base_mean is None:
        return outcome
    kl = step_kl(scorer.tables, steps, mean, base_mean)
    return with_kl(outcome, kl, penalty.coefficient)
