"""What a run's settings come to on a number of GPUs: batches, steps, rewards and memory.

Sizes are those of `trainer.sizes`, which are of the whole run; each GPU gets an equal share of the
sampling batches and of the samples of an optimiser step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.amounts import amount
from trainer.config import Config
from trainer.memory_estimate import MemoryEstimate
from trainer.model_sizes import ModelSizes, model_sizes
from trainer.sections import SamplingSection
from trainer.sizes import Sizes
from trainer.stops import ConfigError


@dataclass(frozen=True)
class Row:
    """One size: of the whole run, and of each GPU where the GPUs share it."""

    name: str
    whole: int
    per_gpu: int | None
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """The sizes of a run and the memory of each of its GPUs.

    Attributes:
        config: the run.
        gpus: how many processes share it.
        model: its numbers of weights; None where this machine does not know them.
    """

    config: Config
    gpus: int
    model: ModelSizes | None

    @classmethod
    def of(cls, config: Config, gpus: int) -> "Plan":
        """Plan a run.

        Raises:
            ConfigError: a size cannot be shared equally; says what to change to what.
        """
        check_shares(config, gpus)
        return cls(config, gpus, model_sizes(config.model))

    @property
    def sizes(self) -> Sizes:
        """The derived sizes of the whole run."""
        return self.config.sizes

    def rows(self) -> list[Row]:
        """Every derived size."""
        sizes, sampling, training = self.sizes, self.config.sampling, self.config.training
        pairs = sizes.pairs_per_step // self.gpus
        each = -(-pairs // training.micro_batch_size)
        whole = sizes.micro_batches_per_step if self.gpus == 1 else each * self.gpus
        batches = sizes.sampling_batches_per_epoch
        shared = [
            ("samples per epoch", sizes.samples_per_epoch, f"{sampling.steps} steps each"),
            ("sampling batches per epoch", batches, f"of {sampling.batch_size}"),
            ("reward queries per epoch", sizes.samples_per_epoch, "to every reward"),
            ("samples per optimiser step", training.batch_size, ""),
            ("pairs per optimiser step", sizes.pairs_per_step, self._timesteps()),
        ]
        return [
            *(Row(name, size, size // self.gpus, note) for name, size, note in shared),
            Row("micro-batches per optimiser step", whole, each, f"of {training.micro_batch_size}"),
            Row("optimiser steps per epoch", sizes.steps_per_epoch, None),
            Row("optimiser steps", sizes.total_steps, None, f"in {training.epochs} epochs"),
            Row("reward queries", sizes.training_queries, sizes.training_queries // self.gpus),
            Row("reward queries per evaluation", sizes.evaluation_queries, None),
        ]

    def memory(self) -> MemoryEstimate | None:
        """Of each GPU; None where the model's size is not known here."""
        if self.model is None:
            return None
        # Every process keeps the trajectories of all, see `trainer.sharing`.
        return MemoryEstimate.of(self.config, self.model, self.sizes.samples_per_epoch)

    def text(self) -> str:
        """The plan as it is printed."""
        config = self.config
        gpus = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}"
        model = f"{config.model.path} ({config.model.train}, {config.model.dtype})"
        lines = [f"{config.training.algorithm} on {model}, {gpus}", "", *self._table()]
        return "\n".join([*lines, "", *self._memory_lines()])

    def _timesteps(self) -> str:
        if self.config.training.is_regression:
            return "one timestep each"
        return f"{self.sizes.trained_timesteps} timesteps each"

    def _table(self) -> list[str]:
        head = ["", "whole run", "per GPU", ""]
        cells = [
            [row.name, _count(row.whole), _count(row.per_gpu), row.note] for row in self.rows()
        ]
        return _aligned([head, *cells])

    def _memory_lines(self) -> list[str]:
        estimate, model = self.memory(), self.model
        if estimate is None or model is None:
            return [
                f"memory: the files of {self.config.model.path} are not on this machine, so its "
                "weights cannot be counted; download it, or run `ddpo doctor` where it is"
            ]
        shape = "×".join(map(str, model.latent_shape))
        samples = self.sizes.samples_per_epoch
        latents = self.config.sampling.steps + 1
        kept = f"{samples} samples × {latents} latents of {shape} in fp32"
        parts = [
            *((f"weights of {name}", size, "") for name, size in estimate.weights.items()),
            ("adapters", estimate.adapters, ""),
            ("AdamW", estimate.optimizer, f"two moments of {_count(model.trained)} weights"),
            ("gradients", estimate.gradients, "during the update"),
            ("moving average", estimate.average, "ema.decay"),
            ("copy of the base UNet", estimate.base, "kl.coefficient"),
            ("trajectories", estimate.trajectories, f"{kept}; twice while batches are joined"),
            ("at least", estimate.at_least, "at the largest moment"),
        ]
        rows = [[name, amount(size), note] for name, size, note in parts if size]
        return [
            "memory per GPU, estimated from the settings",
            *_aligned(rows),
            "Activations come on top: sampling.batch_size and training.micro_batch_size decide, "
            "and `ddpo doctor` measures them.",
        ]


def check_shares(config: Config, gpus: int) -> None:
    """Every GPU gets as much as the others; a run does not insist on that, a plan does.

    Raises:
        ConfigError: sampling batches, or samples of an optimiser step, cannot be shared equally.
    """
    sampling, batch = config.sampling, config.training.batch_size
    batches = config.sizes.sampling_batches_per_epoch
    if batches % gpus:
        raise ConfigError(
            f"{batches} sampling batches per epoch (sampling.samples_per_epoch "
            f"{sampling.samples_per_epoch} in batches of {sampling.batch_size}) cannot be shared "
            f"equally by {gpus} GPUs, so that some would wait: use {_advice(config, gpus)}"
        )
    if batch % gpus:
        fitting = [size for size in _divisors(sampling.samples_per_epoch) if size % gpus == 0]
        if config.training.is_regression:  # its batch size need not divide the samples
            fitting = [size for size in (batch // gpus * gpus, -(-batch // gpus) * gpus) if size]
        raise ConfigError(
            f"training.batch_size {batch} cannot be shared equally by {gpus} GPUs, so that some "
            f"would wait: use {_nearest(fitting, batch)}"
        )


def _advice(config: Config, gpus: int) -> str:
    sampling = config.sampling
    samples = sampling.samples_per_epoch
    unit = math.lcm(sampling.batch_size * gpus, sampling.samples_per_prompt)
    if not config.training.is_regression and config.training.algorithm != "ddpo_sf":
        unit = math.lcm(unit, config.training.batch_size)
    fitting = [count for count in (samples // unit * unit, -(-samples // unit) * unit) if count]
    advice = f"sampling.samples_per_epoch {' or '.join(map(str, fitting))}"
    if samples % gpus == 0:
        advice += f", or sampling.batch_size {_smaller_batch(sampling, gpus)}"
    return advice


def _smaller_batch(sampling: SamplingSection, gpus: int) -> int:
    each = _divisors(sampling.samples_per_epoch // gpus)
    return max(size for size in each if size <= sampling.batch_size)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _nearest(sizes: Sequence[int], wanted: int) -> str:
    """The next smaller and the next larger of some sizes."""
    below = [size for size in sizes if size < wanted]
    above = [size for size in sizes if size > wanted]
    return " or ".join(str(size) for size in [*below[-1:], *above[:1]])


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}".replace(",", " ")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as columns: names and notes to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
