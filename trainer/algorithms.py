"""The algorithms as functions that the loop calls: rewards → a number per picture → an update.

DDPO turns rewards into advantages and follows the policy gradient; RWR turns them into weights of a
denoising loss. Everything else of a run is the same for all four.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from trainer import rwr
from trainer.advantages import Float64s, global_advantages
from trainer.loss import Surrogate, ppo_loss, score_function_loss
from trainer.regression import Denoiser, regress_epoch, weighted_pictures
from trainer.run import Run
from trainer.sampling import Rollout
from trainer.scores import Bools
from trainer.step_statistics import StepStats, UpdateStats
from trainer.stops import Unusable
from trainer.update import PairScorer, update_epoch

OnStep = Callable[[StepStats], None]


@dataclass(frozen=True)
class Algorithm:
    """What distinguishes one algorithm from another.

    Attributes:
        signal: from a run, the prompts and the signed rewards (M,) of the pictures that count,
            larger being better, to the numbers (M,) that the update takes: advantages or weights.
        update: changes the weights by a rollout of N pictures and their numbers (N,), NaN where a
            picture does not count; calls back after every optimiser step.
    """

    signal: Callable[[Run, list[str], Float64s], Float64s]
    update: Callable[[Run, Rollout, Float64s, Bools, OnStep], UpdateStats]


def _advantages(run: Run, prompts: list[str], rewards: Float64s) -> Float64s:
    if run.config.advantages.per_prompt:
        return run.tracker.update(prompts, rewards)
    return global_advantages(rewards)


def _policy_gradient(
    surrogate: Surrogate,
    run: Run,
    rollout: Rollout,
    advantages: Float64s,
    keep: Bools,
    on_step: OnStep,
) -> UpdateStats:
    scale = run.config.sampling.guidance_scale
    scorer = PairScorer.build(run.policy, run.tables, rollout, scale)
    return update_epoch(
        scorer,
        run.optimizer,
        advantages,
        keep,
        run.config.training,
        run.shuffling,
        on_step,
        surrogate,
    )


def _softmax_weights(run: Run, prompts: list[str], rewards: Float64s) -> Float64s:
    section = run.config.rwr
    return rwr.softmax_weights(
        rewards,
        _groups(run, prompts),
        section.inverse_temperature,
        standardize=section.standardize,
    )


def _kept(run: Run, prompts: list[str], rewards: Float64s) -> Float64s:
    section = run.config.rwr
    if section.keep == "threshold":
        # Signed rewards come in, the setting is in the reward's own direction.
        mask = rewards >= (section.threshold if run.maximizes else -section.threshold)
    elif section.keep == "streaming_percentile":
        batch_size = run.config.sampling.batch_size
        mask = rwr.streaming_percentile_mask(rewards, batch_size, section.percentile)
    else:
        mask = rwr.percentile_mask(rewards, _groups(run, prompts), section.percentile)
    if not mask.any():
        raise Unusable(
            f"no picture of epoch {run.epoch + 1} reached rwr.threshold = {section.threshold:g} "
            f"(the best has {abs(rewards.max()):g}): make it easier, or keep a percentile"
        )
    return mask.astype(np.float64)


def _groups(run: Run, prompts: list[str]) -> list[str]:
    """What the softmax or the percentile of a picture is taken over."""
    return prompts if run.config.rwr.group == "prompt" else [""] * len(prompts)


def _regression(
    run: Run, rollout: Rollout, weights: Float64s, keep: Bools, on_step: OnStep
) -> UpdateStats:
    del keep  # what does not count has no weight
    config = run.config
    pictures = weighted_pictures(
        run.policy,
        rollout.latents[:, -1],
        rollout.images,
        rollout.prompts,
        weights,
        data=config.rwr.data,
        batch_size=config.sampling.batch_size,
    )
    scale = config.sampling.guidance_scale if config.rwr.guided_loss else 1.0
    denoiser = Denoiser.build(run.policy, pictures, scale)
    return regress_epoch(
        denoiser, run.optimizer, config.training, config.rwr, run.shuffling, on_step
    )


ALGORITHMS: Mapping[str, Algorithm] = {
    "ddpo_is": Algorithm(_advantages, partial(_policy_gradient, ppo_loss)),
    "ddpo_sf": Algorithm(_advantages, partial(_policy_gradient, score_function_loss)),
    "rwr": Algorithm(_softmax_weights, _regression),
    "rwr_sparse": Algorithm(_kept, _regression),
}
"""`training.algorithm` → what it does."""
