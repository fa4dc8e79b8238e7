"""One batch drawn and one micro-batch trained at a run's sizes, to measure memory and time.

    python -m trainer.dry_step < config.json

runs in a process of its own: its peak is that of a run, and when the system kills it for want of
memory the one who asked is still there to tell. It writes a line of JSON when a stage begins, and
at the end one with what was measured. Nothing is saved and no service is asked.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from trainer.base_policy import BasePolicy
from trainer.config import Config
from trainer.ddim import DDIMTables
from trainer.devices import device_named
from trainer.dry_measurement import Measured, Stage
from trainer.loading import load_policy
from trainer.memory_meter import MemoryMeter, available, taken_by_others
from trainer.optimizer import make_optimizer
from trainer.policy import Policy
from trainer.prompts import evaluation_prompts, load_prompts
from trainer.regression import Denoiser, regress_epoch, weighted_pictures
from trainer.rollouts import draw
from trainer.sampling import Rollout
from trainer.stops import RunStopped
from trainer.update import BasePenalty, PairScorer, update_epoch
from trainer.weight_average import WeightAverage

# How torch says it of the CPU's memory, in a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory")


class DryStep:
    """The parts of a run that a step needs.

    Raises:
        RunStopped: the device, the model or the prompts do not fit.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        if config.run.threads is not None:
            torch.set_num_threads(config.run.threads)
        self.device = device_named(config.run.device)
        self.taken = taken_by_others(self.device)
        left = available(self.device)
        # What this process holds already is its own to use.
        self.left = None if left is None else left + MemoryMeter(self.device).peak()
        self._prompts = load_prompts(config.prompts.source)
        self.policy: Policy = load_policy(config.model, self.device, config.run.seed)
        self._tables: DDIMTables = self.policy.tables(config.sampling.steps, config.sampling.eta)
        self._base = BasePolicy(self.policy) if config.kl.coefficient else None
        self._average = (
            WeightAverage(self.policy.named_trained(), config.ema.decay, warmup=config.ema.warmup)
            if config.ema.decay
            else None
        )

    def sample(self) -> Rollout:
        """Draw a batch as the run will."""
        sampling, seed = self._config.sampling, self._config.run.seed
        prompts = evaluation_prompts(self._prompts, sampling.batch_size)
        base = self._base if self._config.kl.use == "reward" else None
        noise = (seed, "dry step", 0)
        return next(iter(draw(self.policy, self._tables, prompts, noise, sampling, base)))

    def update(self, rollout: Rollout) -> None:
        """Train on one micro-batch and take a step, after which AdamW holds its moments."""
        if self._config.training.is_regression:
            self._regress(rollout)
        else:
            self._follow(rollout)

    def _follow(self, rollout: Rollout) -> None:
        config, count = self._config, len(rollout)
        steps = config.training.trained_timesteps(config.sampling.steps)
        # Pairs enough for a micro-batch: of as few timesteps as will do, or of copies.
        copies = -(-config.training.micro_batch_size // (count * steps))
        whole = Rollout.cat([rollout] * copies) if copies > 1 else rollout
        wanted = -(-config.training.micro_batch_size // len(whole))
        window = len(config.training.window(config.sampling.steps))
        share = math.nextafter(wanted / window, 2)
        training = config.training.model_copy(
            update={"batch_size": len(whole), "inner_epochs": 1, "timestep_fraction": share}
        )
        scorer = PairScorer.build(self.policy, self._tables, whole, config.sampling.guidance_scale)
        in_loss = self._base is not None and config.kl.use == "loss"
        penalty = BasePenalty(self._base, config.kl.coefficient) if in_loss and self._base else None
        update_epoch(
            scorer,
            make_optimizer(self.policy, training),
            np.ones(len(whole)),
            np.ones(len(whole), np.bool_),
            training,
            torch.Generator().manual_seed(0),
            penalty=penalty,
        )

    def _regress(self, rollout: Rollout) -> None:
        config, batch_size = self._config, self._config.sampling.batch_size
        size = min(config.training.micro_batch_size, config.training.batch_size)
        training = config.training.model_copy(update={"batch_size": size})
        rwr = config.rwr.model_copy(update={"updates": 1})
        pictures = weighted_pictures(
            self.policy,
            rollout.latents[:, -1].to(self.policy.device),
            rollout.images,
            rollout.prompts,
            np.ones(len(rollout)),
            data=rwr.data,
            batch_size=batch_size,
        )
        scale = config.sampling.guidance_scale if rwr.guided_loss else 1.0
        denoiser = Denoiser.build(self.policy, pictures, scale)
        optimizer, draws = make_optimizer(self.policy, training), torch.Generator().manual_seed(0)
        regress_epoch(denoiser, optimizer, training, rwr, draws)


def measure(config: Config) -> Measured:
    """Make a step and measure it; a line for every stage as it begins.

    Raises:
        RunStopped: the device, the model or the prompts do not fit.
    """
    peaks: dict[Stage, int] = {}
    seconds: dict[Stage, float] = {}
    began = _begin("loading")
    dry = DryStep(config)
    meter = MemoryMeter(dry.device)
    peaks["loading"], seconds["loading"] = meter.peak(), time.monotonic() - began
    meter.restart()
    kept = meter.peak()
    began = _begin("sampling")
    rollout = dry.sample()
    peaks["sampling"], seconds["sampling"] = meter.peak(), time.monotonic() - began
    meter.restart()
    began = _begin("updating")
    dry.update(rollout)
    peaks["updating"], seconds["updating"] = meter.peak(), time.monotonic() - began
    return Measured(
        device=str(dry.device),
        device_name=_name(dry.device),
        device_memory=dry.left,
        taken=dry.taken,
        peaks=peaks,
        kept=kept,
        trajectories=sum(
            each.nbytes
            for each in (rollout.latents, rollout.log_probs)
            if each.device.type == dry.device.type  # the host may keep them for a GPU
        ),
        seconds=seconds,
        picture=(rollout.images.shape[1], rollout.images.shape[2]),
        trained=sum(each.numel() for each in dry.policy.trainable_parameters()),
    )


def _begin(stage: Stage) -> float:
    _tell({"stage": stage})
    return time.monotonic()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _tell(said: Mapping[str, Any]) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    """Measure the configuration on standard input."""
    try:
        _tell({"measured": asdict(measure(Config.model_validate_json(sys.stdin.read())))})
    except RunStopped as stop:
        _tell({"stopped": str(stop)})
    except (MemoryError, torch.OutOfMemoryError):
        _tell({"no_memory": True})
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        _tell({"no_memory": True})


if __name__ == "__main__":
    main()
