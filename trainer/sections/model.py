"""The sections about the run as a whole, its model and its prompts."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.sections.section import Count, Positive, Section, Seed


class RunSection(Section):
    """Where the run is kept and what it runs on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "ddpo"
    """Name of the run; its folder is `<dir>/<name>`. Letters, digits, dot, dash, underscore."""
    dir: str = "runs"
    """Folder that holds all runs."""
    seed: Seed = 0
    """Every random draw of the run derives from this number."""
    threads: Count | None = None
    """CPU threads of each process for torch; unset leaves torch's own choice."""
    device: str = "auto"
    """`auto` takes the first GPU if there is one, else the CPU; or a torch device such as `cpu`. Of
    several processes each takes a GPU of its own."""


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
    """Folder of a StableDiffusionPipeline or a StableDiffusionXLPipeline, or its id on a model hub.
    A relative folder is looked for in the working directory, then beside the installed packages."""
    revision: str | None = None
    """Revision of a hub model: a branch, a tag or a commit."""
    variant: str | None = None
    """Which of several files of the same weights to load: `fp16` takes those whose names end in
    `.fp16.safetensors`, nothing (`--set model.variant=`) those without such an ending."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the frozen weights and of the forward pass. Trained weights, the DDIM step,
    log-probabilities and stored latents are fp32 always."""
    train: Literal["lora", "full"] = "lora"
    """Train low-rank adapters (`lora`) or every weight of the UNet (`full`)."""
    lora: LoraSection = LoraSection()
    """Settings of the adapters."""
    from_scratch: bool = False
    """Begin with random weights of the UNet, drawn from `run.seed`, in place of the model's own:
    reinforcement learning without pretraining. For `train = "full"` alone."""
    keep_text_encoders: bool = False
    """Keep the text encoders on the device. Otherwise they are in the host's memory while every
    prompt asked for is encoded already, which leaves the device 3.3 GB more with Stable Diffusion
    XL and 0.5 GB more with Stable Diffusion 1; the result is the same."""
    channels_last: bool = False
    """Keep the UNet's convolution weights in channels-last memory order."""
    gradient_checkpointing: bool = False
    """Keep no activations within the UNet's blocks for the backward pass, but compute them again:
    far less memory per pair of a micro-batch, a third more work. The gradient is the same."""
    vae_tiling: bool = False
    """Decode large pictures tile by tile, with blended seams: less memory at 1024×1024 and above,
    and pictures that differ a little from those of other programs."""

    @model_validator(mode="after")
    def _all_is_trained_from_scratch(self) -> "ModelSection":
        if self.from_scratch and self.train != "full":
            raise ValueError(
                'from_scratch draws every weight of the UNet at random: set train = "full"'
            )
        return self


class PromptsSection(Section):
    """What the model is asked to draw."""

    source: str = "animals"
    """Name of a prompt set (`animals`, `animal_activities`, `paper_animals`, `paper_activities`,
    `counting`, `emoji_counting`, `unseen_animals`, `everyday_objects`, `paper_unseen_animals`,
    `paper_everyday_objects`, `unseen_activities`, `unseen_animals_activities`), or the path of a
    file: text with one prompt per line, or `.jsonl` with the metadata of each. A relative path is
    looked for in the working directory, then beside the installed packages."""
