"""The sections about sampling and the update."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trainer.sections.section import Count, Fraction, NonNegative, Positive, Section


class SamplingSection(Section):
    """How training pictures are made."""

    steps: Count = 50
    """DDIM steps per picture."""
    eta: Annotated[float, Field(gt=0, le=1)] = 1.0
    """DDIM noise level; 0 would be a deterministic sampler, which has no likelihood to train."""
    guidance_scale: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 5.0
    """Classifier-free guidance weight, in sampling and in training alike; 1 turns it off."""
    batch_size: Count = 8
    """Pictures sampled at once. Affects speed and memory, not which pictures are drawn."""
    samples_per_epoch: Count = 256
    """Pictures, and so reward queries, per epoch."""
    samples_per_prompt: Count = 1
    """How often each prompt that is drawn is sampled in the epoch. With several, a picture is
    compared with others of the very same prompt and weights."""
    trajectories: Literal["device", "host"] = "device"
    """Where an epoch's latents are kept until the update: on the device, or in the host's memory,
    from where each micro-batch fetches its own. 3.3 MB per picture with 50 steps of Stable
    Diffusion 1, 13 MB with those of Stable Diffusion XL."""


Algorithm = Literal["ddpo_is", "ddpo_sf", "rwr", "rwr_sparse"]


class TrainingSection(Section):
    """The update."""

    algorithm: Algorithm = "ddpo_is"
    """`ddpo_is`: policy gradient with importance sampling and clipping. `ddpo_sf`: REINFORCE, one
    update per epoch. `rwr`: the denoising loss on the epoch's pictures, weighted by a softmax of
    their rewards. `rwr_sparse`: the same on the best pictures alone."""
    epochs: Count = 100
    """Rounds of sampling, scoring and training."""
    batch_size: Count = 64
    """Samples per optimiser step; divides `sampling.samples_per_epoch` (not so for RWR)."""
    micro_batch_size: Count = 16
    """(Sample, timestep) pairs per forward and backward pass. Affects speed and memory only."""
    inner_epochs: Count = 1
    """Passes over the epoch's samples; RWR counts `rwr.updates` instead."""
    timestep_window: tuple[Annotated[float, Field(ge=0, lt=1)], Fraction] = (0.0, 1.0)
    """Part of the trajectory that is trained on, as shares of it from the noisiest step on:
    [0, 0.5] is its first half, in which the layout is decided."""
    timestep_fraction: Fraction = 1.0
    """Share of each sample's timesteps in the window that is trained on, drawn anew in every
    pass."""
    learning_rate: Positive = 3e-4
    """AdamW learning rate. Published: 3e-4 for LoRA, 1e-5 for the full UNet."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps over which the learning rate rises from nothing, as a straight line. The
    first steps of AdamW change every weight by the whole learning rate, whichever way its gradient
    happens to point; a high one can throw the model off there. Published: none."""
    optimizer: Literal["adamw", "adamw_fused", "adamw_8bit"] = "adamw"
    """`adamw` is torch's own. `adamw_fused` does a step in one pass over the weights, which is
    faster on a GPU and rounds differently. `adamw_8bit` (bitsandbytes) keeps the two moments of
    every weight in one byte each instead of four: 5 GB less for a whole UNet of Stable Diffusion
    1.4; of adapters there is nothing to gain."""
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.9, 0.999)
    """AdamW betas."""
    adam_epsilon: Positive = 1e-8
    """AdamW epsilon."""
    weight_decay: NonNegative = 1e-4
    """AdamW weight decay."""
    max_grad_norm: Positive = 1.0
    """Global gradient norm above which the gradient is scaled down."""
    clip_range: Positive = 1e-4
    """The probability ratio is clipped to 1 ± this. Small, because the log-probability is a mean
    over latent dimensions."""
    advantage_clip: Positive = 5.0
    """Advantages are clipped to ± this."""
    max_skipped_steps: Count = 5
    """Consecutive optimiser steps with a non-finite gradient after which the run stops."""

    @field_validator("timestep_window")
    @classmethod
    def _window_goes_forward(cls, window: tuple[float, float]) -> tuple[float, float]:
        if window[0] >= window[1]:
            raise ValueError(
                f"the window ends at {window[1]:g} and begins at {window[0]:g}: give the earlier, "
                "noisier end first"
            )
        return window

    def window(self, steps: int) -> range:
        """Indices of the steps in the window, of a trajectory of `steps`; 0 is the noisiest."""
        first, last = (round(share * steps) for share in self.timestep_window)
        return range(first, last)

    def trained_timesteps(self, steps: int) -> int:
        """How many of them are trained on in one pass."""
        return int(len(self.window(steps)) * self.timestep_fraction)

    @property
    def is_regression(self) -> bool:
        """RWR, which trains on pictures, not on trajectories."""
        return self.algorithm in ("rwr", "rwr_sparse")


class RWRSection(Section):
    """Reward-weighted regression, used when `training.algorithm` is `rwr` or `rwr_sparse`."""

    group: Literal["prompt", "epoch"] = "prompt"
    """Pictures are weighed against the others of their prompt, or of the whole epoch."""
    inverse_temperature: NonNegative = 0.2
    """β of the softmax of `rwr`; it multiplies the reward. Published: 0.2 on raw rewards."""
    standardize: bool = False
    """`rwr`: bring the rewards of a group to mean 0 and deviation 1 first, so that β does not
    depend on the reward's unit. Several rewards need it; `rwr_sparse` does it with several by
    itself."""
    keep: Literal["percentile", "streaming_percentile", "threshold"] = "percentile"
    """What `rwr_sparse` keeps: the best of each group, the best of all drawn so far in the epoch,
    or what reaches `rwr.threshold`."""
    percentile: Annotated[float, Field(ge=0, le=100)] = 90.0
    """Percentile that a picture must reach to be kept."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Reward that a picture must reach to be kept, with `keep = "threshold"` and one reward."""
    updates: Count = 400
    """Optimiser steps per epoch."""
    guided_loss: bool = True
    """Train the guided prediction, as published; else the plain one, as in pretraining."""
    prompt_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Without `rwr.guided_loss`: share of pictures trained on without their prompt, which keeps the
    unconditional half of the guidance in step."""
    data: Literal["pictures", "latents"] = "pictures"
    """Train on the drawn pictures, encoded again, as published; or on the sampler's own latents."""
    fresh_optimizer: bool = True
    """Begin every epoch with an empty optimiser, as published."""

    def refuse_units(self, algorithm: Algorithm, rewards: Sequence[str]) -> None:
        """Several rewards have no common unit for these settings to be in.

        Raises:
            ValueError: the algorithm would take raw rewards.
        """
        several = f"{len(rewards)} rewards ({', '.join(rewards)})"
        if algorithm == "rwr" and not self.standardize:
            raise ValueError(
                f"{several} have units that cannot be added: set rwr.standardize to true and "
                "rwr.inverse_temperature to what suits a deviation of 1, or keep one reward"
            )
        if algorithm == "rwr_sparse" and self.keep == "threshold":
            raise ValueError(
                f"{several} have no common unit that rwr.threshold could be in: set rwr.keep to "
                "percentile or streaming_percentile, or keep one reward"
            )


class AdvantagesSection(Section):
    """How rewards are normalised, each on its own; not for RWR."""

    per_prompt: bool = True
    """Normalise by a running mean and deviation per prompt; else by those of the epoch."""
    buffer_size: Count = 16
    """Latest rewards kept per prompt."""
    min_count: Count = 16
    """With fewer rewards than this a prompt is normalised by the whole epoch's statistics."""

    @model_validator(mode="after")
    def _count_is_reachable(self) -> "AdvantagesSection":
        if self.per_prompt and self.min_count > self.buffer_size:
            raise ValueError(
                f"min_count {self.min_count} can never be reached with buffer_size "
                f"{self.buffer_size}: raise buffer_size or lower min_count"
            )
        return self


class KLSection(Section):
    """Keeping the policy near the model it began as; not for RWR."""

    coefficient: NonNegative = 0
    """β: how much of an advantage, in standard deviations of the reward, one nat of divergence from
    the base model costs. 0 is off and computes nothing."""
    use: Literal["loss", "reward"] = "loss"
    """`loss`: β KL of each trained step is part of the loss. `reward`: β times the log-ratio of a
    picture's whole trajectory, less its mean over the epoch, is taken off the picture's advantage;
    recorded rewards stay as they are."""


class EMASection(Section):
    """An exponential moving average of the trained weights, for evaluations and as the result."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0
    """What each optimiser step keeps of the average, for example 0.99. 0 is off."""
    warmup: bool = True
    """Keep at most (1 + n) / (10 + n) in step n, so that the average leaves the weights before
    training behind in a run of few steps, too."""
