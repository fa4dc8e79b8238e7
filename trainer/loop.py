"""A run from the first picture to the last weight (Black et al. 2023, algorithm 1).

    evaluate on fixed seeds
    repeat: sample → rewards → advantages (or weights) → update → checkpoint (→ guard)
    evaluate on the same seeds, write weights, summary and report

An epoch changes the weights only in its update. Whatever stops it before leaves a checkpoint of
the state in which it began, so that a resumed run repeats it to the bit.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer import gallery
from trainer.advantages import Float64s
from trainer.algorithms import ALGORITHMS
from trainer.config import Config
from trainer.evaluation import evaluate
from trainer.gallery import Evaluation
from trainer.guard import Verdict
from trainer.guarding import deliver, watch
from trainer.picture_health import HEALTH, picture_health
from trainer.preflight import check_ratio, check_rewards
from trainer.progress import announce, conclude, tell
from trainer.report import write_report
from trainer.rewards import Pending
from trainer.rollouts import draw, final_latent_rms, submit
from trainer.run import Moment, Run, open_run
from trainer.rwr import effective_sample_size
from trainer.sampling import Rollout
from trainer.scores import Bools, Floats, Scores, usable
from trainer.sharing import all_rollouts, all_scores, own_rollout
from trainer.step_statistics import StepStats, UpdateStats
from trainer.stops import RunStopped, Unusable
from trainer.summary import write_summary
from trainer.tracking import reward_metrics, service_metrics


def train(config: Config, *, resume: bool = False) -> Path:
    """Train a model, or go on training it.

    Args:
        config: what to run.
        resume: go on from the newest checkpoint of the run folder.

    Returns:
        The run's folder.

    Raises:
        RunStopped: the run cannot start, cannot go on, or was interrupted.
    """
    with open_run(config, resume=resume) as run:
        announce(run)
        if run.epoch == 0:
            _begin(run)
        stopped = None
        while run.epoch < config.training.epochs and stopped is None:
            _evaluate_if_due(run)
            stopped = watch(run)
            if stopped is None:
                train_epoch(run)
        _finish(run, stopped)
        return run.folder.path


def train_epoch(run: Run) -> None:
    """One round: sample, score, normalise, update, record."""
    moment = run.moment()
    with run.saved_when_stopped(moment):
        with run.processes.together(run.check):
            run.check()
            began = time.monotonic()
            drawn, pending = _sample(run)
            sampled = time.monotonic()
            found = run.services.collect(pending, run.check)
        rollout = all_rollouts(run.processes, drawn)
        scores = all_scores(run.processes, found)
        keep = usable(
            scores,
            rollout.prompts,
            min_valid_per_prompt=run.config.scoring.min_valid_per_prompt,
            max_invalid_fraction=run.config.scoring.max_invalid_fraction,
        )
    signal = _signal(run, rollout.prompts, scores.by_reward, keep)
    updating = time.monotonic()
    stats = _update(run, moment, rollout, signal, keep)
    seconds = (sampled - began, time.monotonic() - updating)
    _count(run, rollout, keep, stats)
    with run.processes.together():
        if run.metrics is not None:
            record = _record(run, scores, signal, keep, stats, seconds) | _health(rollout)
            run.metrics.append(record)
            tell(run, record)
        last = run.epoch == run.config.training.epochs
        if last or run.epoch % run.config.checkpoints.every == 0:
            run.save(run.moment())


def _sample(run: Run) -> tuple[Rollout, Pending]:
    """Draw this process's pictures; every batch is being scored while the next one is drawn."""
    config = run.config
    each = config.sampling.samples_per_prompt
    drawn = run.prompts.draw(config.sampling.samples_per_epoch // each)
    prompts = [prompt for prompt in drawn for _ in range(each)]
    noise = (config.run.seed, "train", run.epoch)
    batches, pending = [], Pending()
    base = run.base if config.kl.use == "reward" else None
    batches_of = (run.policy, run.tables, prompts, noise, config.sampling, base, run.processes)
    with run.terminal.phase("sampling", len(prompts)) as phase:
        for batch in draw(*batches_of):
            submit(run.services, pending, batch, run.prompts.drawn_from)
            batches.append(batch)
            phase.advance(len(batch) * run.processes.count)
            run.check()
    own = own_rollout(batches, run.policy.device, with_base=base is not None)
    return (own.on_host() if config.sampling.trajectories == "host" else own), pending


def _signal(run: Run, prompts: list[str], rewards: Mapping[str, Floats], keep: Bools) -> Float64s:
    """Advantages or weights of the pictures that count, NaN for the others."""
    signed = {
        name: values[keep] if run.maximizes(name) else -values[keep]
        for name, values in rewards.items()
    }
    kept = [prompt for prompt, flag in zip(prompts, keep, strict=True) if flag]
    signal = np.full(len(prompts), np.nan)
    signal[keep] = ALGORITHMS[run.config.training.algorithm].signal(run, kept, signed)
    return signal


def _update(
    run: Run, moment: Moment, rollout: Rollout, signal: Float64s, keep: Bools
) -> UpdateStats:
    """Change the weights.

    An interruption is acted on at once when the epoch's beginning is on the disk already, else
    after the update, whose end is then saved.
    """
    config = run.config
    algorithm = ALGORITHMS[config.training.algorithm]
    saved = run.saved(moment)
    with run.terminal.phase("updating", config.sizes.steps_per_epoch) as phase:

        def after_step(step: StepStats) -> None:
            phase.advance(1)
            if run.average and not step.skipped:
                run.average.update()
            if saved:
                with run.processes.together(run.check):
                    run.check()

        stats = algorithm.update(run, rollout, signal, keep, after_step)
    run.skipped_in_a_row = stats.consecutive_skipped(run.skipped_in_a_row)
    if run.skipped_in_a_row >= config.training.max_skipped_steps:
        raise Unusable(
            f"{run.skipped_in_a_row} optimiser steps in a row had a gradient that is not finite "
            "and were skipped (training.max_skipped_steps); lower training.learning_rate "
            f"({config.training.learning_rate:g}) or set model.dtype to fp32, and resume from the "
            "last checkpoint in a new run"
        )
    return stats


def _begin(run: Run) -> None:
    """Measure the model as it is, and check that training it makes sense."""
    with run.saved_when_stopped(run.moment()):
        with run.processes.together(run.check):
            if not run.config.training.is_regression:
                check_ratio(run.policy, run.tables, run.config)
        check_rewards(_evaluate(run))


def _evaluate_if_due(run: Run) -> None:
    every = run.config.evaluation.every
    if every and run.epoch and run.epoch % every == 0:
        with run.saved_when_stopped(run.moment()):
            _evaluate(run)


def _evaluate(run: Run) -> Evaluation:
    """Evaluate the model, or its average, unless an earlier process has done and written it."""
    if known := run.processes.from_main(lambda: _evaluation_on_disk(run)):
        return Evaluation.model_validate(known)
    samples = run.config.evaluation.samples
    with run.averaged(), run.terminal.phase("evaluating", samples) as phase:
        evaluation, pictures = evaluate(
            run.policy,
            run.tables,
            run.services,
            run.monitors,
            run.config,
            run.epoch,
            lambda count: phase.advance(count * run.processes.count),
            run.check,
            run.processes,
        )
    with run.processes.together():
        if run.processes.is_main:
            gallery.save(run.folder.evaluation, evaluation, pictures)
    for name, measured in evaluation.judged.items():
        low, high = measured.ci95
        run.terminal.say(
            f"evaluation after epoch {run.epoch}: {name} {measured.mean:.4g} "
            f"(95 % interval {low:.4g} to {high:.4g}, {len(pictures)} pictures)"
        )
    return evaluation


def _evaluation_on_disk(run: Run) -> dict[str, Any] | None:
    """That of this moment, as JSON, if there is one."""
    done = gallery.load(run.folder.evaluation, run.epoch)
    return done[0].model_dump(mode="json") if done else None


def _count(run: Run, rollout: Rollout, keep: Bools, stats: UpdateStats) -> None:
    run.epoch += 1
    run.reward_queries += int(np.count_nonzero(rollout.valid))
    run.masked += int(np.count_nonzero(~keep))
    run.skipped_steps += stats.skipped


def _record(
    run: Run,
    scores: Scores,
    signal: Float64s,
    keep: Bools,
    stats: UpdateStats,
    seconds: tuple[float, float],
) -> dict[str, float]:
    """The epoch in numbers, see `tracking.METRICS`."""
    sampling, updating = seconds
    effective = effective_sample_size(signal[keep])
    return {
        "epoch": run.epoch,
        "reward_queries": run.reward_queries,
        **reward_metrics({name: values[keep] for name, values in scores.by_reward.items()}),
        "masked": int(np.count_nonzero(~keep)),
        "effective_samples": effective if run.config.training.is_regression else float("nan"),
        **stats.metrics(),
        "seconds_sampling": sampling,
        **service_metrics(scores),
        "seconds_scoring": scores.scoring_s,
        "seconds_update": updating,
        "images_per_second": len(keep) / sampling,
    }


def _health(rollout: Rollout) -> dict[str, float]:
    """The state of the epoch's pictures, NaN for what cannot be said of them."""
    found = picture_health(rollout.images, final_latent_rms(rollout), rollout.prompts)
    return {name: float(found[name].mean()) if name in found else float("nan") for name in HEALTH}


def _finish(run: Run, stopped: Verdict | None) -> None:
    """Evaluate for the last time, then write what came of the run."""
    with run.saved_when_stopped(run.moment()):
        _evaluate(run)
    stopped = stopped or watch(run)
    with run.processes.together():
        if run.processes.is_main:
            _conclude(run, stopped)


def _conclude(run: Run, stopped: Verdict | None) -> None:
    """Write the weights and what there is to tell."""
    shots = gallery.load_all(run.folder.evaluation)
    if not shots or shots[0][0].epoch != 0:
        raise RunStopped(
            f"the evaluation before training is missing from {run.folder.evaluation}; put it "
            "back, or start a new run"
        )
    weights, epoch = deliver(run, stopped)
    shots = [shot for shot in shots if shot[0].epoch <= epoch]
    before, after = shots[0][0], shots[-1][0]
    pictures = [paths for _, paths in gallery.milestones(shots)]
    gallery.write_grid(run.folder.evaluation / "grid.png", before.prompts, pictures)
    write_summary(run, before, after, stopped)
    report = write_report(run.folder)
    for name, measured in before.rewards.items():
        run.terminal.say(
            f"{name}: {measured.mean:.4g} before, {after.rewards[name].mean:.4g} after "
            f"{run.reward_queries} reward queries in {run.seconds:.0f} s"
        )
    conclude(run)
    averaged = f" (averaged; as they were trained: {run.folder.raw})" if run.average else ""
    run.terminal.say(f"weights: {weights}{averaged}")
    run.terminal.say(f"report: {report}")
