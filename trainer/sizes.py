"""The numbers that follow from the settings, and the checks that they come out whole."""

from dataclasses import asdict, dataclass
from typing import NoReturn

from trainer.sections import EvaluationSection, RWRSection, SamplingSection, TrainingSection
from trainer.stops import ConfigError


@dataclass(frozen=True)
class Sizes:
    """Derived sizes of a run, all printed at its start."""

    samples_per_epoch: int
    """Pictures sampled, and rewards asked for, per epoch."""
    sampling_batches_per_epoch: int
    """Calls of the sampler per epoch."""
    trained_timesteps: int
    """Timesteps trained on per sample and pass: int(steps in the window · timestep_fraction); 1 for
    RWR, which draws one for each sample of an optimiser step."""
    pairs_per_step: int
    """(Sample, timestep) pairs behind one optimiser step."""
    micro_batches_per_step: int
    """Forward and backward passes behind one optimiser step."""
    steps_per_epoch: int
    """Optimiser steps per epoch."""
    total_steps: int
    """Optimiser steps of the whole run."""
    training_queries: int
    """Rewards asked for while training."""
    evaluation_queries: int
    """Rewards asked for by one evaluation."""

    @classmethod
    def derive(
        cls,
        sampling: SamplingSection,
        training: TrainingSection,
        rwr: RWRSection,
        evaluation: EvaluationSection,
    ) -> "Sizes":
        """Compute every size.

        Raises:
            ConfigError: a batch size does not divide, or no timestep is left to train on.
        """
        samples = sampling.samples_per_epoch
        _check_divides("sampling.batch_size", sampling.batch_size, samples)
        _check_divides("sampling.samples_per_prompt", sampling.samples_per_prompt, samples)
        if training.is_regression:
            timesteps, steps = 1, rwr.updates
        else:
            timesteps = _trained_timesteps(sampling, training)
            steps = training.inner_epochs * (samples // training.batch_size)
        pairs = training.batch_size * timesteps
        return cls(
            samples_per_epoch=samples,
            sampling_batches_per_epoch=samples // sampling.batch_size,
            trained_timesteps=timesteps,
            pairs_per_step=pairs,
            micro_batches_per_step=-(-pairs // training.micro_batch_size),
            steps_per_epoch=steps,
            total_steps=steps * training.epochs,
            training_queries=samples * training.epochs,
            evaluation_queries=evaluation.samples,
        )

    def as_dict(self) -> dict[str, int]:
        """Name → number, in the order they are declared."""
        return asdict(self)


def _trained_timesteps(sampling: SamplingSection, training: TrainingSection) -> int:
    samples = sampling.samples_per_epoch
    _check_divides("training.batch_size", training.batch_size, samples)
    if training.algorithm == "ddpo_sf" and (
        training.batch_size < samples or training.inner_epochs > 1
    ):
        raise ConfigError(
            "ddpo_sf makes one update per epoch: set training.batch_size to "
            f"sampling.samples_per_epoch {samples} (it is {training.batch_size}) and "
            f"training.inner_epochs to 1 (it is {training.inner_epochs})"
        )
    timesteps = training.trained_timesteps(sampling.steps)
    if timesteps < 1:
        _refuse_no_timesteps(sampling, training)
    return timesteps


def _refuse_no_timesteps(sampling: SamplingSection, training: TrainingSection) -> NoReturn:
    window = training.window(sampling.steps)
    if not window:
        low, high = training.timestep_window
        raise ConfigError(
            f"training.timestep_window [{low:g}, {high:g}] holds none of the {sampling.steps} "
            "sampling.steps: widen it"
        )
    raise ConfigError(
        f"training.timestep_fraction {training.timestep_fraction} of the {len(window)} "
        "sampling.steps in training.timestep_window leaves no timestep to train on: raise it to "
        f"at least {1 / len(window):.3g}"
    )


def _check_divides(name: str, size: int, samples: int) -> None:
    if samples % size == 0:
        return
    # The next multiples and divisors are what the reader would work out next.
    multiples = [m for m in (samples // size * size, -(-samples // size) * size) if m > 0]
    divisor = max(d for d in range(1, min(size, samples) + 1) if samples % d == 0)
    nearest = " or ".join(str(m) for m in multiples)
    raise ConfigError(
        f"sampling.samples_per_epoch {samples} is not a multiple of {name} {size}: "
        f"use {nearest} samples per epoch, or {name} {divisor}"
    )
