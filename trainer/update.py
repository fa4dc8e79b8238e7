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

from trainer.ddim import DDIMTables, step_log_prob, step_mean
from trainer.loss import Surrogate, ppo_loss
from trainer.optimizer import take_step
from trainer.policy import Policy
from trainer.sampling import Rollout
from trainer.sections import TrainingSection
from trainer.step_statistics import StepStats, Totals, UpdateStats


@dataclass(frozen=True)
class PairScorer:
    """Log-probabilities of a rollout's steps under the current policy."""

    policy: Policy
    tables: DDIMTables
    rollout: Rollout
    conditional: Tensor
    """Embedding of each sample's prompt, (B, L, D)."""
    unconditional: Tensor
    """Embedding of the empty prompt, (L, D)."""
    guidance_scale: float

    @classmethod
    def build(
        cls, policy: Policy, tables: DDIMTables, rollout: Rollout, guidance_scale: float
    ) -> "PairScorer":
        """Encode the prompts once for all pairs."""
        conditional, unconditional = policy.encode(rollout.prompts), policy.unconditional()
        return cls(policy, tables, rollout, conditional, unconditional, guidance_scale)

    def log_prob(self, samples: Tensor, steps: Tensor) -> Tensor:
        """log p(x_{t−1} | x_t, prompt) of P pairs, (P,) fp32, differentiable.

        Args:
            samples: (P,) int64 indices into the rollout, on the policy's device.
            steps: (P,) int64 step indices, 0 the noisiest, on the policy's device.
        """
        latents = self.rollout.latents[samples, steps]
        predicted = self.policy.predict_noise(
            latents,
            self.tables.timesteps[steps],
            self.conditional[samples],
            self.unconditional,
            self.guidance_scale,
        )
        mean = step_mean(self.tables, steps, latents, predicted)
        return step_log_prob(self.tables, steps, mean, self.rollout.latents[samples, steps + 1])


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

    Raises:
        ValueError: lengths differ, the batch size does not divide them, or an advantage of a
            valid sample is not finite.
    """
    _check(scorer, advantages, valid, training)
    steps = []
    for _ in range(training.inner_epochs):
        for pairs in epoch_pairs(scorer.rollout.log_probs.shape, training, generator):
            steps.append(
                _optimiser_step(scorer, optimizer, pairs, advantages, valid, training, surrogate)
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
) -> StepStats:
    """Accumulate the gradient over micro-batches, clip it, step."""
    samples = pairs[:, 0].numpy()
    count = int(valid[samples].sum())
    # A = 0 has gradient 0: such pairs skip the network and still count in the mean.
    trained = pairs[torch.from_numpy(valid[samples] & (advantages[samples] != 0))]
    parameters = scorer.policy.trainable_parameters()
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    totals = Totals(scorer.policy.device)
    # All that depends on data is on the device before the loop, which therefore never waits.
    weights = torch.from_numpy(np.where(valid, advantages, 0)).float().to(scorer.policy.device)
    placed = trained.to(scorer.policy.device)
    for first in range(0, len(placed), training.micro_batch_size):
        batch = placed[first : first + training.micro_batch_size].unbind(1)
        outcome = surrogate(
            scorer.log_prob(*batch),
            scorer.rollout.log_probs[batch],
            weights[batch[0]],
            training.clip_range,
            training.advantage_clip,
        )
        scaled = outcome.loss.sum() * (scorer.policy.loss_scale / count)
        scaled.backward()  # type: ignore[no-untyped-call]
        totals.add(outcome)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= scorer.policy.loss_scale
    norm = torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
    stats = totals.stats(norm, count, len(trained))
    if not stats.skipped:
        take_step(optimizer, training)
    optimizer.zero_grad(set_to_none=True)
    return stats
