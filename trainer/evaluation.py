"""Drawing and scoring the fixed evaluation pictures: the same prompts and noise every time."""

import math
from collections.abc import Callable

import numpy as np
import torch

from trainer.config import Config
from trainer.gallery import Evaluation, interval
from trainer.policy import Policy
from trainer.prompts import evaluation_prompts, load_prompts
from trainer.rewards import Pending, RewardServices
from trainer.sampling import sample
from trainer.scores import Images
from trainer.stops import RunStopped


def evaluate(
    policy: Policy,
    services: RewardServices,
    config: Config,
    epoch: int,
    *,
    advance: Callable[[int], None],
    check: Callable[[], None],
) -> tuple[Evaluation, Images]:
    """Draw and score the evaluation pictures; touches none of the run's own generators.

    Args:
        policy: the model as it is now.
        services: where the rewards come from.
        config: the run's configuration.
        epoch: epochs trained so far.
        advance: told how many pictures have been drawn since the last call.
        check: called between batches and while waiting; may raise to leave.

    Returns:
        The evaluation and its pictures, uint8 (N, H, W, 3).

    Raises:
        RunStopped: fewer than two pictures could be scored.
    """
    prompts = evaluation_prompts(load_prompts(config.prompts.source), config.evaluation.samples)
    generator = torch.Generator().manual_seed(config.evaluation.seed)
    pending, pictures = Pending(), []
    size = config.sampling.batch_size
    for first in range(0, len(prompts), size):
        check()
        rollout = sample(policy, prompts[first : first + size], generator, config.sampling)
        services.submit(pending, rollout.images, rollout.prompts, rollout.valid.tolist())
        pictures.append(rollout.images)
        advance(len(rollout.images))
    scores = services.collect(pending, check)
    name, values = next(iter(scores.by_reward.items()))
    scored = values[np.isfinite(values)]
    if len(scored) < 2:
        raise RunStopped(
            f"only {len(scored)} of {len(values)} evaluation pictures could be scored "
            f"({scores.example or 'the others are not finite'}); correct the reward service or "
            "the model"
        )
    mean, low, high = interval(scored.tolist())
    evaluation = Evaluation(
        epoch=epoch,
        reward=name,
        prompts=prompts,
        scores=[float(value) if math.isfinite(value) else None for value in values],
        mean=mean,
        ci95=(low, high),
    )
    return evaluation, np.concatenate(pictures)
