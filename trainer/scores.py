"""The rewards of an epoch, and which of its pictures are trained on.

A picture without a score is left out and counted. It never gets a made-up score.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trainer.scoring_pace import Pace
from trainer.stops import Unusable

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Images = npt.NDArray[np.uint8]

NOT_FINITE = "non_finite_image"
"""Fault of a picture that is not sent: NaN would arrive as black, which compresses best."""


@dataclass(frozen=True)
class Scores:
    """Rewards of N pictures in the order in which they were submitted.

    Attributes:
        by_reward: name of each reward to its scores, float64 (N,); NaN where there is none.
        valid: bool (N,); True where every reward has a score.
        faults: machine codes of the pictures without a score, with their counts.
        example: one fault in words, "" when there was none.
        wait_s: seconds spent waiting in `collect`.
        scoring_s: seconds that the services say they computed, summed over requests.
        paces: reward → how long it kept the run waiting; only of rewards that were asked.
    """

    by_reward: dict[str, Floats]
    valid: Bools
    faults: Counter[str]
    example: str
    wait_s: float
    scoring_s: float
    paces: dict[str, Pace] = field(default_factory=dict)


def usable(
    scores: Scores,
    prompts: Sequence[str],
    *,
    min_valid_per_prompt: int,
    max_invalid_fraction: float,
) -> Bools:
    """Which pictures of an epoch to train on.

    Args:
        scores: of N pictures.
        prompts: N prompts.
        min_valid_per_prompt: a prompt with fewer scored pictures is left out altogether.
        max_invalid_fraction: error budget, as a share of the N pictures.

    Returns:
        bool (N,).

    Raises:
        Unusable: more pictures have no score than the budget allows.
    """
    missing = int(np.count_nonzero(~scores.valid))
    if missing > max_invalid_fraction * len(prompts):
        codes = ", ".join(f"{count} {code}" for code, count in scores.faults.most_common())
        example = f"; for example {scores.example}" if scores.example else ""
        advice = "correct the cause"
        if scores.faults[NOT_FINITE] > missing / 2:
            advice = "the model has diverged: lower training.learning_rate or set model.dtype fp32"
        raise Unusable(
            f"{missing} of {len(prompts)} pictures have no score ({codes}{example}), more than "
            f"scoring.max_invalid_fraction = {max_invalid_fraction:g} allows; {advice}"
        )
    counts = Counter(prompt for prompt, flag in zip(prompts, scores.valid, strict=True) if flag)
    enough = np.array([counts[prompt] >= min_valid_per_prompt for prompt in prompts], np.bool_)
    keep = scores.valid & enough
    if not keep.any():
        raise Unusable(
            f"no prompt has scoring.min_valid_per_prompt = {min_valid_per_prompt} scored pictures "
            f"among the {len(prompts)} of this epoch; lower it, or raise sampling.samples_per_epoch"
        )
    return keep
