"""Drawing and scoring the fixed evaluation pictures: the same prompts and noise every time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.config import Config
from trainer.ddim import DDIMTables
from trainer.gallery import Evaluation, Measured, Spread, interval
from trainer.picture_health import Floats, picture_health
from trainer.policy import Policy
from trainer.processes import ALONE, Processes
from trainer.prompt_sets import PromptSet
from trainer.prompts import evaluation_prompts, load_prompts
from trainer.rewards import Pending, RewardServices
from trainer.rollouts import draw, final_latent_rms, submit
from trainer.scores import Images, Scores
from trainer.sections import SamplingSection
from trainer.sharing import all_scores
from trainer.stops import Unusable


@dataclass(frozen=True)
class EvaluationPlan:
    """Which pictures are drawn of every model that is compared.

    Attributes:
        known: the prompt set; it is gone through in order, over and over.
        samples: how many pictures.
        seed: of their noise.
        setting: what an error calls `samples`.
    """

    known: PromptSet
    samples: int
    seed: int
    setting: str = "evaluation.samples"

    @property
    def prompts(self) -> list[str]:
        """The prompt of each picture."""
        return evaluation_prompts(self.known, self.samples)


@dataclass(frozen=True)
class Drawn:
    """N pictures of a plan.

    Attributes:
        images: uint8 (N, H, W, 3).
        latent_rms: (N,) of their final latents; NaN where a picture is broken.
    """

    images: Images
    latent_rms: Floats


def evaluate(
    policy: Policy,
    tables: DDIMTables,
    services: RewardServices,
    monitors: RewardServices,
    config: Config,
    epoch: int,
    advance: Callable[[int], None],
    check: Callable[[], None],
    processes: Processes = ALONE,
) -> tuple[Evaluation, Images]:
    """Draw and score the evaluation pictures of a run; touches no state of it.

    Args:
        policy: the model as it is now.
        tables: its schedule.
        services: the rewards that are trained on, at least one.
        monitors: rewards that are recorded and never trained on.
        config: the run's configuration.
        epoch: epochs trained so far.
        advance: told how many pictures have been drawn since the last call.
        check: called between batches and while waiting; may raise to leave.
        processes: who share the pictures; all get the same evaluation.

    Returns:
        The evaluation and its pictures, uint8 (N, H, W, 3).

    Raises:
        Unusable: fewer than two pictures could be scored.
    """
    known = load_prompts(config.evaluation_source)
    plan = EvaluationPlan(known, config.evaluation.samples, config.evaluation.seed)
    judges = (services, monitors)
    found, drawn = draw_and_judge(
        policy, tables, judges, plan, config.sampling, advance, check, processes
    )
    health = picture_health(drawn.images, drawn.latent_rms, plan.prompts)
    evaluation = Evaluation(
        epoch=epoch,
        prompts=plan.prompts,
        rewards={name: found[name] for name in services.identities},
        monitors={name: found[name] for name in monitors.identities},
        health={name: Spread.of(values) for name, values in health.items()},
    )
    return evaluation, drawn.images


def draw_and_judge(
    policy: Policy,
    tables: DDIMTables,
    judges: Sequence[RewardServices],
    plan: EvaluationPlan,
    sampling: SamplingSection,
    advance: Callable[[int], None],
    check: Callable[[], None],
    processes: Processes = ALONE,
) -> tuple[dict[str, Measured], Drawn]:
    """Draw a plan's pictures, and ask every reward about them while the next are drawn.

    Args:
        policy: the model as it is now.
        tables: its schedule.
        judges: the rewards; no name twice.
        plan: what to draw.
        sampling: batch size and guidance.
        advance, check, processes: see `evaluate`.

    Returns:
        Name of each reward and what it says; the pictures.

    Raises:
        Unusable: fewer than two pictures could be scored by one of them.
    """
    # The epoch is no part of the noise: every model draws the same pictures.
    noise = (plan.seed, "evaluation", 0)
    waiting = [(services, Pending()) for services in judges]
    pictures, sizes = [], [np.empty(0)]
    with processes.together(check):
        for rollout in draw(policy, tables, plan.prompts, noise, sampling, processes=processes):
            for services, pending in waiting:
                submit(services, pending, rollout, plan.known)
            pictures.append(rollout.images)
            sizes.append(final_latent_rms(rollout))
            advance(len(rollout))
            check()
        scores = [services.collect(pending, check) for services, pending in waiting]
    found: dict[str, Measured] = {}
    for each in scores:
        found |= _measured(all_scores(processes, each), plan.setting)
    images = np.concatenate(pictures) if pictures else np.empty(0, np.uint8)
    drawn = processes.gather_array(images), processes.gather_array(np.concatenate(sizes))
    return found, Drawn(*drawn)


def _measured(scores: Scores, setting: str) -> dict[str, Measured]:
    """What each reward says of the pictures.

    Raises:
        Unusable: fewer than two pictures have a score.
    """
    found = {}
    for name, values in scores.by_reward.items():
        scored = values[np.isfinite(values)]
        if len(scored) < 2:
            raise Unusable(
                f"only {len(scored)} of the {len(values)} evaluation pictures have a score of "
                f"{name} ({scores.example or f'{setting} is too small'}), too few to "
                f"compare models; correct the cause, or raise {setting}"
            )
        mean, low, high = interval(scored.tolist())
        each = [float(value) if math.isfinite(value) else None for value in values]
        found[name] = Measured(scores=each, mean=mean, ci95=(low, high))
    return found
