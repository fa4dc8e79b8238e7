"""Loading a StableDiffusionPipeline, with errors that say what is wrong with the folder."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trainer.sections import ModelSection
from trainer.shipped_files import find
from trainer.stops import ModelError

MODEL_INDEX = "model_index.json"
PIPELINE_CLASS = "StableDiffusionPipeline"


# Pickled weights could run code, so only safetensors are read.
_WEIGHTS: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}


@dataclass(frozen=True)
class Pipeline:
    """The parts of a text-to-image model, in fp32 on the CPU.

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

    Raises:
        ModelError: not a StableDiffusionPipeline, its weights cannot be had, or its scheduler
            is not one that DDPO can train through.
    """
    location = _locate(model.path)
    _check_index(model.path, _index_file(location, model))

    def part(kind: Any, name: str, **options: Any) -> Any:
        return kind.from_pretrained(location, subfolder=name, revision=model.revision, **options)

    # The library's bar for a file read in a moment would tear the run's own apart.
    transformers_logging.disable_progress_bar()
    try:
        pipeline = Pipeline(
            tokenizer=part(CLIPTokenizer, "tokenizer"),
            text_encoder=part(CLIPTextModel, "text_encoder", **_WEIGHTS),
            unet=part(UNet2DConditionModel, "unet", **_WEIGHTS),
            vae=part(AutoencoderKL, "vae", **_WEIGHTS),
            scheduler=part(DDIMScheduler, "scheduler"),
        )
    # What the libraries raise for a broken file ranges widely; none of it is this code's fault.
    except Exception as error:
        raise ModelError(
            f"model.path {model.path!r} cannot be loaded as a {PIPELINE_CLASS}: "
            f"{_first_line(error)}"
        ) from error
    _check_tokenizer(model.path, pipeline)
    _check_scheduler(pipeline.scheduler.config)
    return pipeline


def with_random_unet(pipeline: Pipeline, seed: int) -> Pipeline:
    """The pipeline with a UNet of the same shape and random weights, as diffusers draws them."""
    # The layers draw from torch's global generator: seed it for the call and put it back.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(pipeline.unet.config)
    return replace(pipeline, unet=unet)


def _locate(path: str) -> str:
    """The folder to load from, or the hub id.

    Raises:
        ModelError: neither an existing folder nor of the form of a hub id.
    """
    folder = find(path)
    if folder is not None:
        return str(folder)
    # A hub id is OWNER/NAME; anything else can only have been meant as a folder.
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ModelError(
            f"model.path {path!r}: no such folder; give the folder of a {PIPELINE_CLASS} "
            "or a hub id such as CompVis/stable-diffusion-v1-4"
        )
    return path


def _index_file(location: str, model: ModelSection) -> Path:
    """The pipeline's index: in its folder, or fetched from the hub."""
    if Path(location).exists():
        return Path(location) / MODEL_INDEX
    try:
        return Path(hf_hub_download(location, MODEL_INDEX, revision=model.revision))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"model.path {model.path!r} is no folder here, and as a model hub id its "
            f"{MODEL_INDEX} cannot be had: {_first_line(error)}"
        ) from error


def _check_index(path: str, index: Path) -> None:
    """Say what is wrong before the libraries say it less clearly."""
    if not index.is_file():
        raise ModelError(
            f"model.path {path!r} is not a diffusers pipeline: it holds no {MODEL_INDEX}; "
            f"give the folder of a {PIPELINE_CLASS}"
        )
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError):
        raise ModelError(f"{index} is not a pipeline index: it is not a JSON object") from None
    if kind != PIPELINE_CLASS:
        raise ModelError(f"model.path {path!r} is a {kind}; only a {PIPELINE_CLASS} can be trained")


def _check_tokenizer(path: str, pipeline: Pipeline) -> None:
    """A tokenizer without its files loads as one that knows no word, and says nothing."""
    tokenizer, known = pipeline.tokenizer, pipeline.text_encoder.config.vocab_size
    words = len(tokenizer) - len(set(tokenizer.all_special_ids))
    if words < 1 or len(tokenizer) > known:
        raise ModelError(
            f"model.path {path!r} cannot be loaded as a {PIPELINE_CLASS}: its tokenizer knows "
            f"{words} tokens, its text encoder {known}; tokenizer/ is missing or of another model"
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
