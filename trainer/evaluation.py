"""Drawing and scoring the fixed evaluation pictures: the same prompts and noise every time."""

import math
from collections.abc import Callable

import numpy as np

from trainer.config import Config
from trainer.ddim import DDIMTables
from trainer.gallery import Evaluation, Measured, interval
from trainer.policy import Policy
from trainer.prompts import evaluation_prompts, load_prompts
from trainer.rewards import Pending, RewardServices
from trainer.rollouts import draw, submit
from trainer.scores import Images, Scores
from trainer.stops import RunStopped


def evaluate(
    policy: Policy,
    tables: DDIMTables,
    services: RewardServices,
    monitors: RewardServices,
    config: Config,
    epoch: int,
    advance: Callable[[int], None],
    check: Callable[[], None],
) -> tuple[Evaluation, Images]:
    """Draw and score the evaluation pictures; touches no state of the run.

    Args:
        policy: the model as it is now.
        tables: its schedule.
        services: where the reward comes from.
        monitors: rewards that are recorded and never trained on.
        config: the run's configuration.
        epoch: epochs trained so far.
        advance: told how many pictures have been drawn since the last call.
        check: called between batches and while waiting; may raise to leave.

    Returns:
        The evaluation and its pictures, uint8 (N, H, W, 3).

    Raises:
        RunStopped: fewer than two pictures could be scored.
    """
    known = load_prompts(config.evaluation_source)
    prompts = evaluation_prompts(known, config.evaluation.samples)
    # The epoch is no part of the noise: every evaluation draws the same pictures.
    noise = (config.evaluation.seed, "evaluation", 0)
    pending, watched = Pending(), Pending()
    pictures = []
    for rollout in draw(policy, tables, prompts, noise, config.sampling):
        submit(services, pending, rollout, known)
        submit(monitors, watched, rollout, known)
        pictures.append(rollout.images)
        advance(len(rollout))
        check()
    ((reward, measured),) = _measured(services.collect(pending, check)).items()
    evaluation = Evaluation(
        epoch=epoch,
        reward=reward,
        prompts=prompts,
        **measured.model_dump(),
        monitors=_measured(monitors.collect(watched, check)),
    )
    return evaluation, np.concatenate(pictures)


def _measured(scores: Scores) -> dict[str, Measured]:
    """What each reward says of the pictures.

    Raises:
        RunStopped: fewer than two pictures have a score.
    """
    found = {}
    for name, values in scores.by_reward.items():
        scored = values[np.isfinite(values)]
        if len(scored) < 2:
            raise RunStopped(
                f"only {len(scored)} of the {len(values)} evaluation pictures have a score of "
                f"{name} ({scores.example or 'evaluation.samples is too small'}), too few to "
                "compare models; correct the cause, or raise evaluation.samples"
            )
        mean, low, high = interval(scored.tolist())
        each = [float(value) if math.isfinite(value) else None for value in values]
        found[name] = Measured(scores=each, mean=mean, ci95=(low, high))
    return found
