"""Several rewards as one number per picture: each normalised on its own, then a weighted mean.

Rewards come in units of their own (kB, a score from 1 to 10, a probability), so their raw values
cannot be added. Each is first brought to mean 0 and deviation 1 by itself, as GDPO does (Liu et
al. 2026, arXiv 2601.05242): m = Σ w_k z_k / Σ w_k.

Only the ratios of the weights count. |m| is at most the largest |z_k|, so a learning rate, a clip
range or an inverse temperature that suits one reward means the same for several. Where rewards
disagree |m| is smaller, and the picture pulls less.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Each weight as a share of all, in the order of the names; a single one has exactly 1.

    Args:
        weights: reward name → weight above 0; at least one.
    """
    # Divided by the largest first: a sum of large floats could overflow, one of shares cannot.
    largest = max(weights.values())
    relative = {name: weights[name] / largest for name in sorted(weights)}
    total = sum(relative.values())
    return {name: weight / total for name, weight in relative.items()}


def mixed(
    rewards: Mapping[str, Float64s],
    weights: Mapping[str, float],
    normalised: Callable[[str, Float64s], Float64s],
) -> Float64s:
    """The weighted mean of the normalised rewards of M pictures.

    One reward comes out as `normalised` gives it, to the bit, whatever its weight. The order in
    which the rewards are given changes nothing, to the bit either.

    Args:
        rewards: reward name → (M,), finite, larger is better; at least one.
        weights: reward name → weight above 0, of the same names.
        normalised: called once per reward with its name and its values; takes off the unit.

    Returns:
        (M,), fp64.

    Raises:
        ValueError: rewards and weights are not of the same names.
    """
    if rewards.keys() != weights.keys():
        raise ValueError(f"rewards {sorted(rewards)} but weights of {sorted(weights)}")
    parts = [share * normalised(name, rewards[name]) for name, share in shares(weights).items()]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
