"""`summary.json`: what a finished run comes to, for programs."""

import dataclasses
import hashlib
import json
import platform
import resource
import sys
from importlib.metadata import version
from typing import Any

from trainer.bottleneck import Bottleneck
from trainer.config import Config
from trainer.gallery import Evaluation, Measured
from trainer.guard import Verdict
from trainer.run import Run
from trainer.run_folder import write_json
from trainer.tracking import read_metrics


def write_summary(
    run: Run, before: Evaluation, after: Evaluation, stopped: Verdict | None = None
) -> None:
    """Write `summary.json` into the run folder.

    Args:
        run: a run whose last epoch is done.
        before, after: evaluations on the fixed seeds, of the base model and of the weights that
            stand in the folder.
        stopped: why the guard ended the run, if it did.
    """
    rewards = {name: _change(run, name, before, after) for name in before.rewards}
    records = read_metrics(run.folder.metrics)
    sampling = sum(record["seconds_sampling"] for record in records)
    bottleneck = Bottleneck.of(records, list(rewards))
    summary = {
        **_only(rewards),
        "rewards": rewards,
        "monitors": {
            name: {
                **run.monitors.identities[name].model_dump(),
                "before": _measured(before.monitors[name]),
                "after": _measured(measured),
            }
            for name, measured in after.monitors.items()
            if name in before.monitors  # a resumed run may watch more than it began with
        },
        "reward_queries": run.reward_queries,
        "evaluation_queries": len(before.prompts),
        "epochs": run.epoch,
        "weights_epoch": after.epoch,
        "stopped_by_guard": dataclasses.asdict(stopped) if stopped else None,
        "seconds": run.seconds,
        "seconds_sampling": sampling,
        "seconds_reward_wait": sum(record["seconds_reward_wait"] for record in records),
        "seconds_update": sum(record["seconds_update"] for record in records),
        "bottleneck": bottleneck.sentence(),
        "reward_bound": bottleneck.reward_bound,
        "images_per_second": run.reward_queries / sampling if sampling else None,
        "masked": run.masked,
        "skipped_steps": run.skipped_steps,
        "trained_parameters": sum(p.numel() for p in run.policy.trainable_parameters()),
        "peak_memory_mb": _peak_memory_mb(),
        "model": run.config.model.path,
        "train": run.config.model.train,
        "config_hash": config_hash(run.config),
        "device": str(run.policy.device),
        "python": platform.python_version(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
    }
    write_json(run.folder.summary, summary)


def _change(run: Run, reward: str, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """What a reward that was trained on is, and how it moved."""
    first, last = before.rewards[reward], after.rewards[reward]
    change = last.mean - first.mean
    return {
        **run.services.identities[reward].model_dump(),
        "weight": run.config.rewards[reward].weight,
        "before": _measured(first),
        "after": _measured(last),
        "change_percent": 100 * change / abs(first.mean) if first.mean else None,
    }


def _only(rewards: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The reward of a run that has one, without having to know its name."""
    return {"reward": next(iter(rewards.values()))} if len(rewards) == 1 else {}


def config_hash(config: Config) -> str:
    """SHA-256 of the resolved configuration, 16 hexadecimal digits."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _measured(evaluation: Measured) -> dict[str, Any]:
    return {
        "mean": evaluation.mean,
        "ci95": list(evaluation.ci95),
        "samples": sum(score is not None for score in evaluation.scores),
    }


def _peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
