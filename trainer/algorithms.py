"""The algorithms as functions that the loop calls: rewards → a number per picture → an update.

DDPO turns rewards into advantages and follows the policy gradient; RWR turns them into weights of a
denoising loss. Everything else of a run is the same for all four.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from trainer import rwr
from trainer.advantages import Float64s, global_advantages
from trainer.kl import penalized
from trainer.loss import Surrogate, ppo_loss, score_function_loss
from trainer.regression import Denoiser, regress_epoch, weighted_pictures
from trainer.reward_mix import mixed
from trainer.run import Run
from trainer.sampling import Rollout
from trainer.scores import Bools
from trainer.step_statistics import StepStats, UpdateStats
from trainer.stops import Unusable
from trainer.update import BasePenalty, PairScorer, update_epoch

OnStep = Callable[[StepStats], None]
Rewards = Mapping[str, Float64s]


@dataclass(frozen=True)
class Algorithm:
    """What distinguishes one algorithm from another.

    Attributes:
        signal: from a run, the prompts of the M pictures that count and every reward's signed
            values (M,) of them, larger being better, to the numbers (M,) that the update takes:
            advantages or weights.
        update: changes the weights by a rollout of N pictures and their numbers (N,), NaN where a
            picture does not count; calls back after every optimiser step.
    """

    signal: Callable[[Run, list[str], Rewards], Float64s]
    update: Callable[[Run, Rollout, Float64s, Bools, OnStep], UpdateStats]


def _advantages(run: Run, prompts: list[str], rewards: Rewards) -> Float64s:
    def of_one(name: str, values: Float64s) -> Float64s:
        if run.config.advantages.per_prompt:
            return run.trackers[name].update(prompts, values)
        return global_advantages(values)

    return mixed(rewards, run.config.weights, of_one)


def _policy_gradient(
    surrogate: Surrogate,
    run: Run,
    rollout: Rollout,
    advantages: Float64s,
    keep: Bools,
    on_step: OnStep,
) -> UpdateStats:
    scale, kl = run.config.sampling.guidance_scale, run.config.kl
    scorer = PairScorer.build(run.policy, run.tables, rollout, scale)
    penalty, distance = None, math.nan
    if rollout.divergence is not None:
        size = math.prod(run.policy.latent_shape)
        advantages = penalized(advantages, keep, rollout.divergence.drawn, kl.coefficient, size)
        distance = float(rollout.divergence.exact.cpu().numpy()[keep].mean())
    elif run.base is not None:
        penalty = BasePenalty(run.base, kl.coefficient)
    stats = update_epoch(
        scorer,
        run.optimizer,
        advantages,
        keep,
        run.config.training,
        run.shuffling,
        on_step,
        surrogate,
        penalty,
        run.processes,
    )
    return replace(stats, kl_of_pictures=distance)


def _softmax_weights(run: Run, prompts: list[str], rewards: Rewards) -> Float64s:
    section = run.config.rwr
    groups = _groups(run, prompts)
    values = _standardized(run, groups, rewards) if section.standardize else _only(rewards)
    return rwr.softmax_weights(values, groups, section.inverse_temperature)


def _kept(run: Run, prompts: list[str], rewards: Rewards) -> Float64s:
    section = run.config.rwr
    if section.keep == "threshold":
        mask = _reaching_threshold(run, rewards)
    elif section.keep == "streaming_percentile":
        # Pictures are compared across prompts here, so one unit has to hold for all of them.
        values = _comparable(run, [""] * len(prompts), rewards)
        batch_size = run.config.sampling.batch_size
        mask = rwr.streaming_percentile_mask(values, batch_size, section.percentile)
    else:
        groups = _groups(run, prompts)
        mask = rwr.percentile_mask(_comparable(run, groups, rewards), groups, section.percentile)
    return mask.astype(np.float64)


def _reaching_threshold(run: Run, rewards: Rewards) -> Bools:
    """Which pictures reach `rwr.threshold`, which is in the reward's own direction."""
    ((name, values),) = rewards.items()
    threshold = run.config.rwr.threshold
    mask: Bools = values >= (threshold if run.maximizes(name) else -threshold)
    if not mask.any():
        raise Unusable(
            f"no picture of epoch {run.epoch + 1} reached rwr.threshold = {threshold:g} "
            f"(the best has {abs(values.max()):g}): make it easier, or keep a percentile"
        )
    return mask


def _comparable(run: Run, groups: list[str], rewards: Rewards) -> Float64s:
    """One number per picture, larger being better, for comparing the pictures of a group."""
    return _only(rewards) if len(rewards) == 1 else _standardized(run, groups, rewards)


def _standardized(run: Run, groups: list[str], rewards: Rewards) -> Float64s:
    return mixed(rewards, run.config.weights, lambda _, values: rwr.standardized(values, groups))


def _only(rewards: Rewards) -> Float64s:
    (values,) = rewards.values()
    return values


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
        rollout.latents[:, -1].to(run.policy.device),
        rollout.images,
        rollout.prompts,
        weights,
        data=config.rwr.data,
        batch_size=config.sampling.batch_size,
    )
    scale = config.sampling.guidance_scale if config.rwr.guided_loss else 1.0
    denoiser = Denoiser.build(run.policy, pictures, scale)
    return regress_epoch(
        denoiser,
        run.optimizer,
        config.training,
        config.rwr,
        run.shuffling,
        on_step,
        run.processes,
    )


ALGORITHMS: Mapping[str, Algorithm] = {
    "ddpo_is": Algorithm(_advantages, partial(_policy_gradient, ppo_loss)),
    "ddpo_sf": Algorithm(_advantages, partial(_policy_gradient, score_function_loss)),
    "rwr": Algorithm(_softmax_weights, _regression),
    "rwr_sparse": Algorithm(_kept, _regression),
}
"""`training.algorithm` → what it does."""
