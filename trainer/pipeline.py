"""Loading a StableDiffusionPipeline, with errors that say what is wrong with the folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import trainer
from trainer.sections import ModelSection
from trainer.stops import ModelError

MODEL_INDEX = "model_index.json"
PACKAGES = Path(trainer.__file__).parent.parent


@dataclass(frozen=True)
class Pipeline:
    """The parts of a text-to-image model, in fp32 on the CPU, in evaluation mode.

    The two libraries export their classes lazily, which leaves a type checker nothing to check.
    """

    tokenizer: Any
    """transformers.CLIPTokenizer"""
    text_encoder: Any
    """transformers.CLIPTextModel"""
    unet: Any
    """diffusers.UNet2DConditionModel"""
    vae: Any
    """diffusers.AutoencoderKL"""
    scheduler: Any
    """diffusers.DDIMScheduler"""


def load_pipeline(model: ModelSection) -> Pipeline:
    """Load a pipeline folder or a hub model; the safety checker stays off.

    Only safetensors files are read: a pickled weight file could run code.

    Raises:
        ModelError: not a StableDiffusionPipeline, its weights cannot be had, or its scheduler
            is not one that DDPO can train through.
    """
    location, is_folder = _locate(model.path)
    try:
        loaded = StableDiffusionPipeline.from_pretrained(
            location,
            revision=model.revision,
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=is_folder,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"model.path {model.path!r} cannot be loaded as a StableDiffusionPipeline: "
            f"{_first_line(error)}"
        ) from error
    scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    _check_scheduler(scheduler.config)
    return Pipeline(loaded.tokenizer, loaded.text_encoder, loaded.unet, loaded.vae, scheduler)


def _locate(path: str) -> tuple[str, bool]:
    """Where to load from, and whether that is a folder (else a hub id).

    Raises:
        ModelError: neither a pipeline folder nor the form of a hub id.
    """
    for folder in (Path(path).expanduser(), PACKAGES / path):
        if folder.exists():
            _check_folder(folder)
            return str(folder), True
    # A hub id is OWNER/NAME; anything else can only have been meant as a folder.
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ModelError(
            f"model.path {path!r}: no such folder; give the folder of a StableDiffusionPipeline "
            "or a hub id such as CompVis/stable-diffusion-v1-4"
        )
    return path, False


def _check_folder(folder: Path) -> None:
    """Say what is missing before diffusers says it less clearly."""
    index = folder / MODEL_INDEX
    if not index.is_file():
        raise ModelError(
            f"model.path {str(folder)!r} is not a diffusers pipeline: it holds no {MODEL_INDEX}"
        )
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError):
        raise ModelError(f"{index} is not a pipeline index: it is not a JSON object") from None
    if kind != StableDiffusionPipeline.__name__:
        raise ModelError(
            f"model.path {str(folder)!r} is a {kind}; only a StableDiffusionPipeline can be trained"
        )


def _check_scheduler(config: Any) -> None:
    """Refuse what would change the step that the log-probability belongs to."""
    if config.prediction_type != "epsilon":
        raise ModelError(
            f"the model's scheduler predicts {config.prediction_type!r}; "
            "only epsilon prediction can be trained"
        )
    for option in ("clip_sample", "thresholding", "rescale_betas_zero_snr"):
        if config[option]:
            raise ModelError(
                f"the model's scheduler sets {option}, under which a DDIM step is no longer the "
                f"Gaussian that DDPO trains through: set {option} to false in "
                "scheduler/scheduler_config.json"
            )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
