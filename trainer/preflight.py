"""Checks before the first update, of what would otherwise show as a run that does not learn."""

from trainer.config import Config
from trainer.ddim import DDIMTables
from trainer.gallery import Evaluation
from trainer.policy import Policy
from trainer.prompts import evaluation_prompts, load_prompts
from trainer.rollouts import draw
from trainer.sampling import Rollout
from trainer.stops import RunStopped
from trainer.update import PairScorer, recomputed_ratios

_PICTURES = 2


def check_ratio(policy: Policy, tables: DDIMTables, config: Config) -> float:
    """Draw two pictures and compute the probability of their steps again, as training will.

    Before any update every ratio is 1; what is off by more than the clip range would be clipped,
    or would push the policy for no reason (precision, guidance or schedule that differ between
    sampling and training).

    Returns:
        The largest distance of a ratio from 1.

    Raises:
        RunStopped: it is more than a tenth of `training.clip_range` (half of it below fp32), or
            the pictures are not finite.
    """
    prompts = evaluation_prompts(load_prompts(config.prompts.source), _PICTURES)
    noise = (config.run.seed, "preflight", 0)
    rollout = Rollout.cat(list(draw(policy, tables, prompts, noise, config.sampling)))
    if not rollout.valid.all():
        raise RunStopped(
            "the model draws pictures that are not finite (NaN) before any training; "
            f"set model.dtype to fp32 (it is {config.model.dtype}), or use other weights"
        )
    scorer = PairScorer.build(policy, tables, rollout, config.sampling.guidance_scale)
    ratios = recomputed_ratios(scorer, config.training.micro_batch_size)
    distance = float((ratios - 1).abs().max())
    share = 0.1 if config.model.dtype == "fp32" else 0.5
    if not distance <= share * config.training.clip_range:
        raise RunStopped(
            f"before any update the probability ratio is off 1 by {distance:.2g}, more than "
            f"{share:g} × training.clip_range = {config.training.clip_range:g}: sampling and "
            f"training do not compute the same; set model.dtype to fp32 (it is "
            f"{config.model.dtype}) or raise training.clip_range"
        )
    return distance


def check_rewards(evaluation: Evaluation) -> None:
    """There is something to learn from every reward.

    Raises:
        RunStopped: one gave the same to every picture.
    """
    for name, measured in evaluation.rewards.items():
        scores = [score for score in measured.scores if score is not None]
        if len(set(scores)) == 1:
            raise RunStopped(
                f"{name} gave {scores[0]:g} to all {len(scores)} scored evaluation pictures, so "
                "there is nothing to learn from; use a reward that tells them apart, or raise "
                "evaluation.samples"
            )
