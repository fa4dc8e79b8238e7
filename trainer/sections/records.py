"""The sections about what a run measures and keeps."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.sections.section import Count, NonNegative, Positive, Section, Seed

Port = Annotated[int, Field(ge=1, le=65535)]


class EvaluationSection(Section):
    """The same prompts and noise, before and after training."""

    prompts: str | None = None
    """Prompt set or file to evaluate on, as `prompts.source`; unset: the training prompts.
    Others show whether what was learned carries over."""
    samples: Count = 128
    """Pictures per evaluation; the prompt set is gone through in order, over and over."""
    seed: Seed = 1_000_003
    """Seed of the evaluation pictures; independent of `run.seed`."""
    every: Annotated[int, Field(ge=0)] = 0
    """Also evaluate after every so many epochs; 0: only before and after training."""


class GuardSection(Section):
    """Ends a run whose pictures fall apart, by its monitors; keeps the weights of its best
    evaluation. Needs `monitors` and `evaluation.every`."""

    action: Literal["off", "warn", "stop"] = "off"
    """`warn` says when the monitors fall below their best and keeps the checkpoint of the best
    evaluation; `stop` also ends the run, with the weights of the best evaluation."""
    tolerance: NonNegative = 0.2
    """A smaller drop does not count; in standard deviations of the base model's scores, the mean of
    the monitors."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.995
    """Of the one-sided interval that a drop must have above 0 to count, for all evaluations of the
    run together."""
    patience: Count = 2
    """Evaluations in a row with a drop that counts after which the run is over. It is over at the
    first when another step like the last would leave nothing of the gain."""
    health_deviations: Positive = 3.0
    """A warning is given when a number of the pictures' health is further than this from the base
    model's, in standard deviations over its pictures."""


class CheckpointsSection(Section):
    """What is kept to resume from."""

    every: Count = 1
    """Epochs between checkpoints; one is always written at the end."""
    keep: Count = 2
    """Latest checkpoints kept; with a guard also that of the best evaluation."""


class TrackingSection(Section):
    """Records beside `metrics.jsonl`, which is always written."""

    tensorboard: bool = True
    """Write TensorBoard event files."""
    prometheus_port: Port | None = None
    """Port on which the numbers of the latest epoch are shown to Prometheus while the run lasts, as
    `ddpo_` and the name of the metric; unset: none."""
    prometheus_host: str = "127.0.0.1"
    """Address of that port; `0.0.0.0` shows them to other machines."""
