"""The sections about what a run measures and keeps."""

from typing import Annotated

from pydantic import Field

from trainer.sections.section import Count, Section, Seed


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


class CheckpointsSection(Section):
    """What is kept to resume from."""

    every: Count = 1
    """Epochs between checkpoints; one is always written at the end."""
    keep: Count = 2
    """Latest checkpoints kept."""


class TrackingSection(Section):
    """Records beside `metrics.jsonl`, which is always written."""

    tensorboard: bool = True
    """Write TensorBoard event files."""
