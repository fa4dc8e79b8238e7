"""Reward-weighted regression (RWR): from rewards to the weights of a denoising loss.

Black et al. 2023, section 4.2 and appendix D.3: the model is trained by its ordinary denoising loss
on its own pictures, each weighted by its reward. RWR weighs by a softmax, sparse RWR keeps the
best pictures and weighs them alike.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_EPSILON = 1e-6


def softmax_weights(
    rewards: Float64s,
    groups: Sequence[str],
    inverse_temperature: float,
) -> Float64s:
    """w = n · softmax(β r) within each group of n pictures, so that its mean is 1.

    β multiplies the reward: it is an inverse temperature, although the published configuration
    calls it `temperature`. β = 0 weighs all alike, a large β keeps only the best of each group.

    Args:
        rewards: (N,), finite, larger is better.
        groups: (N,), which pictures are compared with each other: their prompts, or all one text.
        inverse_temperature: β ≥ 0.

    Returns:
        (N,) weights.
    """
    weights = np.empty(len(rewards))
    for mine in _members(groups):
        values = rewards[mine]
        # Shifted by the largest, which changes nothing but the range of the exponential.
        powers = np.exp(inverse_temperature * (values - values.max()))
        weights[mine] = len(values) * powers / powers.sum()
    return weights


def standardized(rewards: Float64s, groups: Sequence[str]) -> Float64s:
    """(r − mean) / (std + 1e-6) within each group, ddof 0, so that one β suits any unit.

    Args:
        rewards: (N,), finite.
        groups: (N,), as for `softmax_weights`.

    Returns:
        (N,) of mean 0 and deviation 1 in each group, or 0 where all of a group are the same.
    """
    values = np.empty(len(rewards))
    for mine in _members(groups):
        values[mine] = (rewards[mine] - rewards[mine].mean()) / (rewards[mine].std() + _EPSILON)
    return values


def percentile_mask(rewards: Float64s, groups: Sequence[str], percentile: float) -> Bools:
    """The best pictures of each group: those at or above its percentile, ties included.

    The percentile is interpolated linearly. At 90, a group of 10 keeps 1, of 32 keeps 4, of 128
    keeps 13.

    Args:
        rewards: (N,), finite, larger is better.
        groups: (N,), as for `softmax_weights`.
        percentile: 0 keeps all, 100 the best alone.

    Returns:
        (N,) whether a picture is kept.
    """
    kept = np.zeros(len(rewards), np.bool_)
    for mine in _members(groups):
        kept[mine] = rewards[mine] >= np.percentile(rewards[mine], percentile)
    return kept


def streaming_percentile_mask(rewards: Float64s, batch_size: int, percentile: float) -> Bools:
    """The best pictures as they come: each batch against all that were drawn up to it.

    What was kept stays kept when better ones come later.

    Args:
        rewards: (N,) in the order in which they were drawn.
        batch_size: pictures that are drawn at once.
        percentile: as for `percentile_mask`.
    """
    kept = np.zeros(len(rewards), np.bool_)
    for first in range(0, len(rewards), batch_size):
        batch = slice(first, first + batch_size)
        kept[batch] = rewards[batch] >= np.percentile(rewards[: first + batch_size], percentile)
    return kept


def effective_sample_size(weights: Float64s) -> float:
    """(Σw)² / Σw²: how many pictures weighted alike would vary as much; 0 without weights."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def weighted_denoising_loss(target: Tensor, predicted: Tensor, weights: Tensor) -> Tensor:
    """w · mean over C, h, w of (target − prediction)² of each picture, (B,) fp32.

    The batch loss is its mean.

    Args:
        target: n that was added, or the velocity, whichever the network predicts, (B, C, h, w).
        predicted: what it predicts, (B, C, h, w).
        weights: w, (B,).
    """
    return weights * (target - predicted).square().mean(dim=(1, 2, 3))


def _members(groups: Sequence[str]) -> list[npt.NDArray[np.intp]]:
    """Indices of each group's members, in order."""
    keys = np.asarray(groups, dtype=object)
    return [np.flatnonzero(keys == group) for group in dict.fromkeys(groups)]
