"""The clipped policy-gradient loss of DDPO-IS.

Black et al. 2024 (DDPO, eq. 4) with the clipping of Schulman et al. 2017 (PPO, eq. 7).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PPOLoss:
    """Per-pair outcome; all fields (P,). Only `loss` carries a gradient."""

    loss: Tensor
    """max(−Â ρ, −Â clip(ρ, 1−c, 1+c)); the batch loss is its mean."""
    ratio: Tensor
    """ρ = exp(log_prob − old_log_prob)."""
    approx_kl: Tensor
    """½ (log_prob − old_log_prob)²."""
    clipped: Tensor
    """1 where |ρ − 1| > c, else 0."""


def ppo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_range: float,
    advantage_clip: float,
) -> PPOLoss:
    """Loss of each (sample, timestep) pair, unreduced.

    Args:
        log_prob: under the current policy, (P,).
        old_log_prob: under the policy that drew the samples, (P,).
        advantage: A of the pair's sample, (P,).
        clip_range: c; the ratio counts between 1 − c and 1 + c.
        advantage_clip: A_max; advantages are clamped to ± this.
    """
    clamped = advantage.clamp(-advantage_clip, advantage_clip)
    difference = log_prob - old_log_prob
    ratio = difference.exp()
    loss = torch.maximum(-clamped * ratio, -clamped * ratio.clamp(1 - clip_range, 1 + clip_range))
    with torch.no_grad():
        approx_kl = 0.5 * difference.square()
        clipped = ((ratio - 1).abs() > clip_range).to(ratio.dtype)
    return PPOLoss(loss, ratio.detach(), approx_kl.detach(), clipped)
