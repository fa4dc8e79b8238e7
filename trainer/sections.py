"""The sections of a run's configuration. Every field's docstring is its help text.

All sections are frozen, and an unknown key in any of them is an error.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]


class Section(BaseModel):
    """Base of the sections: frozen, strict about keys, field docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class RunSection(Section):
    """Where the run is kept and what it runs on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "ddpo"
    """Name of the run; its folder is `<dir>/<name>`. Letters, digits, dot, dash, underscore."""
    dir: str = "runs"
    """Folder that holds all runs."""
    seed: Seed = 0
    """Every random draw of the run derives from this number."""
    threads: Count | None = None
    """CPU threads for torch; unset leaves torch's own choice."""
    device: str = "auto"
    """`auto` takes the first GPU if there is one, else the CPU; or a torch device such as `cpu`."""


class LoraSection(Section):
    """Low-rank adapters, used when `model.train` is `lora`."""

    rank: Count = 4
    """Rank of the adapters."""
    alpha: Positive = 4.0
    """The adapters' output is scaled by alpha / rank."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
    )
    """Endings of the names of the UNet's modules that get an adapter."""
    init: Literal["gaussian", "default"] = "gaussian"
    """Initialisation of the adapters' first matrix (the second one is zero): `gaussian` is
    N(0, 1/rank), `default` is peft's Kaiming-uniform."""


class ModelSection(Section):
    """The text-to-image model and which of its weights are trained."""

    path: str
    """Folder of a StableDiffusionPipeline, or its id on a model hub. A relative folder is looked
    for in the working directory, then beside the installed packages."""
    revision: str | None = None
    """Revision of a hub model: a branch, a tag or a commit."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the frozen weights and of the forward pass. Trained weights, the DDIM step,
    log-probabilities and stored latents are fp32 always."""
    train: Literal["lora", "full"] = "lora"
    """Train low-rank adapters (`lora`) or every weight of the UNet (`full`)."""
    lora: LoraSection = LoraSection()
    """Settings of the adapters."""
    channels_last: bool = False
    """Keep the UNet's convolution weights in channels-last memory order."""


class PromptsSection(Section):
    """What the model is asked to draw."""

    source: str = "animals"
    """Name of a prompt set (`animals`, `animal_activities`, `paper_animals`, `paper_activities`,
    `counting`, `emoji_counting`, `unseen_animals`, `everyday_objects`, `unseen_activities`,
    `unseen_animals_activities`), or the path of a file: text with one prompt per line, or `.jsonl`
    with the metadata of each. A relative path is looked for in the working directory, then beside
    the installed packages."""


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
    depend on the reward's unit."""
    keep: Literal["percentile", "streaming_percentile", "threshold"] = "percentile"
    """What `rwr_sparse` keeps: the best of each group, the best of all drawn so far in the epoch,
    or what reaches `rwr.threshold`."""
    percentile: Annotated[float, Field(ge=0, le=100)] = 90.0
    """Percentile that a picture must reach to be kept."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Reward that a picture must reach to be kept, with `keep = "threshold"`."""
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


class AdvantagesSection(Section):
    """How rewards are normalised; not for RWR."""

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


class RewardSection(Section):
    """One reward: where its service is. Written short as just the URL, or a list of URLs."""

    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Base URL of the reward service, or those of its replicas, as a list or with commas. All must
    serve the same version; the run goes on while one of them is up."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the service's API key."""

    @model_validator(mode="before")
    @classmethod
    def _from_urls(cls, value: object) -> object:
        return {"urls": value} if isinstance(value, str | list | tuple) else value

    @field_validator("urls", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: object) -> object:
        return tuple(url.strip() for url in value.split(",")) if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _no_url_twice(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if len({url.rstrip("/") for url in urls}) < len(urls):
            raise ValueError("a URL is given twice, which would count one replica as two: keep one")
        return urls


class ScoringSection(Section):
    """How rewards are asked for, and what happens when one does not come."""

    deadline_s: Positive = 120.0
    """Seconds one request may take, retries included, before it is sent again as if lost."""
    max_outage_s: NonNegative = 3600.0
    """Seconds an unreachable or overloaded service is waited for before the run saves a
    checkpoint and exits."""
    min_valid_per_prompt: Count = 1
    """A prompt with fewer scored samples in an epoch is left out of that epoch."""
    max_invalid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of an epoch's samples that may stay without a score before the run stops."""


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
