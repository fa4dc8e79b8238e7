"""Rewards → advantages: normalised per prompt over a running buffer, or over the epoch."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]

PER_PROMPT_EPSILON = 1e-6
GLOBAL_EPSILON = 1e-8


class PerPromptTracker:
    """Mean and deviation of the latest rewards of each prompt (Black et al. 2024, appendix D.3).

    Keys are the prompts themselves, so that two long prompts with the same first tokens stay
    apart.

    Args:
        buffer_size: latest rewards kept per prompt.
        min_count: with fewer rewards than this the statistics of the whole epoch are used.
    """

    def __init__(self, buffer_size: int, min_count: int) -> None:
        self._buffer_size = buffer_size
        self._min_count = min_count
        self._buffers: dict[str, deque[float]] = {}

    def update(self, prompts: Sequence[str], rewards: npt.ArrayLike) -> Float64s:
        """Take in an epoch's rewards, then normalise them.

        The new rewards enter the buffers first and so count in their own statistics. The
        deviation is the population's (ddof 0) plus 1e-6.

        Args:
            prompts: the prompt of each sample.
            rewards: (N,), of any real dtype; only samples that were scored.

        Returns:
            (N,) advantages, fp64.

        Raises:
            ValueError: lengths differ, or a reward is not finite.
        """
        values = _checked(rewards)
        if len(prompts) != len(values):
            raise ValueError(f"{len(prompts)} prompts but {len(values)} rewards")
        advantages = np.empty_like(values)
        keys = np.asarray(prompts, dtype=object)
        for prompt in dict.fromkeys(prompts):
            mine = keys == prompt
            buffer = self._buffers.setdefault(prompt, deque(maxlen=self._buffer_size))
            buffer.extend(values[mine].tolist())
            population = values if len(buffer) < self._min_count else np.asarray(buffer)
            advantages[mine] = _standardised(values[mine], population, PER_PROMPT_EPSILON)
        return advantages

    def statistics(self) -> dict[str, tuple[float, float, int]]:
        """Prompt → mean, population deviation and number of its buffered rewards."""
        return {
            prompt: (float(np.mean(buffer)), float(np.std(buffer)), len(buffer))
            for prompt, buffer in self._buffers.items()
        }

    def state_dict(self) -> dict[str, list[float]]:
        """Prompt → buffered rewards, oldest first; plain JSON."""
        return {prompt: list(buffer) for prompt, buffer in self._buffers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the buffers by those of `state_dict`."""
        self._buffers = {
            prompt: deque((float(reward) for reward in rewards), maxlen=self._buffer_size)
            for prompt, rewards in state.items()
        }


def global_advantages(rewards: npt.ArrayLike, epsilon: float = GLOBAL_EPSILON) -> Float64s:
    """(r − mean) / (std + ε) over the whole epoch, fp64; ddof 0. Constant rewards give 0.

    Raises:
        ValueError: a reward is not finite.
    """
    values = _checked(rewards)
    return _standardised(values, values, epsilon)


def _standardised(values: Float64s, population: Float64s, epsilon: float) -> Float64s:
    # A constant population's mean can be off by an ulp, which a small ε would blow up.
    if population.max(initial=-np.inf) == population.min(initial=np.inf):
        center, deviation = float(population[0]), 0.0
    else:
        center, deviation = float(population.mean()), float(population.std())
    return (values - center) / (deviation + epsilon)


def _checked(rewards: npt.ArrayLike) -> Float64s:
    # Integer rewards become floats here: advantages in the rewards' dtype would be truncated.
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"rewards must be one-dimensional, not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"reward {int(np.argmin(np.isfinite(values)))} is not finite")
    return values
