"""The policy-gradient losses of DDPO.

DDPO-IS: Black et al. 2023, eq. 4, with the clipping of Schulman et al. 2017 (PPO, eq. 7).
DDPO-SF: Black et al. 2023, eq. 3 (REINFORCE).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairLoss:
    """Per-pair outcome; all fields (P,). Only `loss` carries a gradient."""

    loss: Tensor
    """What the batch loss is the mean of."""
    ratio: Tensor
    """ρ = exp(log_prob − old_log_prob)."""
    approx_kl: Tensor
    """½ (log_prob − old_log_prob)²."""
    clipped: Tensor
    """1 where |ρ − 1| > c, else 0."""
    kl_to_base: Tensor
    """Divergence from the base model, see `trainer.kl`; NaN unless it is part of the loss."""


def ppo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_range: float,
    advantage_clip: float,
) -> PairLoss:
    """max(−Â ρ, −Â clip(ρ, 1−c, 1+c)) of each (sample, timestep) pair: DDPO-IS.

    Args:
        log_prob: under the current policy, (P,).
        old_log_prob: under the policy that drew the samples, (P,).
        advantage: A of the pair's sample, (P,).
        clip_range: c; the ratio counts between 1 − c and 1 + c.
        advantage_clip: A_max; advantages are clamped to ± this.
    """
    clamped = advantage.clamp(-advantage_clip, advantage_clip)
    ratio = (log_prob - old_log_prob).exp()
    loss = torch.maximum(-clamped * ratio, -clamped * ratio.clamp(1 - clip_range, 1 + clip_range))
    return _measured(loss, log_prob, old_log_prob, clip_range)


def score_function_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_range: float,
    advantage_clip: float,
) -> PairLoss:
    """−Â log p of each (sample, timestep) pair: DDPO-SF, without ratio and without clipping.

    At the policy that drew the samples its gradient is that of `ppo_loss`. Farther from it the
    gradient is biased, hence one update per collection of samples.

    Args:
        log_prob, old_log_prob, advantage, advantage_clip: as for `ppo_loss`.
        clip_range: what `clipped` counts; the loss does not depend on it.
    """
    loss = -advantage.clamp(-advantage_clip, advantage_clip) * log_prob
    return _measured(loss, log_prob, old_log_prob, clip_range)


@torch.no_grad()
def _measured(loss: Tensor, log_prob: Tensor, old_log_prob: Tensor, clip_range: float) -> PairLoss:
    difference = log_prob - old_log_prob
    ratio = difference.exp()
    clipped = ((ratio - 1).abs() > clip_range).to(ratio.dtype)
    unknown = torch.full_like(ratio, torch.nan)
    return PairLoss(loss, ratio, 0.5 * difference.square(), clipped, unknown)


Surrogate = Callable[[Tensor, Tensor, Tensor, float, float], PairLoss]
"""`ppo_loss` or `score_function_loss`."""
