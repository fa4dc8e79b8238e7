"""Loading a pipeline's parts, with errors that say what is wrong with the folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trainer.families import FAMILIES, Family
from trainer.noise_schedule import ddim_scheduler
from trainer.sections import ModelSection
from trainer.shipped_files import find
from trainer.stops import ModelError
from trainer.text_encoding import ClipText, TextEncoding

MODEL_INDEX = "model_index.json"
_KNOWN = " or a ".join(FAMILIES)


@dataclass(frozen=True)
class Pipeline:
    """The parts of a text-to-image model, in fp32 on the CPU.

    The two libraries export their classes lazily, which leaves a type checker nothing to check.
    """

    family: Family
    settings: Mapping[str, Any]
    """What stands in the pipeline's index."""
    text_encoders: Sequence[ClipText]
    unet: Any
    """diffusers.UNet2DConditionModel"""
    vae: Any
    """diffusers.AutoencoderKL"""
    scheduler: Any
    """diffusers.DDIMScheduler"""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        return (self.unet.config.in_channels, height, width)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        _, height, width = self.latent_shape
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return (height * factor, width * factor)

    def text_encoding(self) -> TextEncoding:
        """How its prompts become conditioning."""
        return self.family.encoding(self.text_encoders, self.settings, self.picture_size)


def load_pipeline(model: ModelSection) -> Pipeline:
    """Load a pipeline folder or a hub model; the safety checker stays off.

    Raises:
        ModelError: not a pipeline of a known family, its weights cannot be had, or its scheduler
            is not one that DDPO can train through.
    """
    location = _locate(model.path)
    settings = _read_index(model.path, _index_file(location, model))
    family = FAMILIES[settings["_class_name"]]
    # The library's bar for a file read in a moment would tear the run's own apart.
    transformers_logging.disable_progress_bar()
    try:
        parts = _parts(location, model, family)
    # What the libraries raise for a broken file ranges widely; none of it is this code's fault.
    except Exception as error:
        raise ModelError(
            f"model.path {model.path!r} cannot be loaded as a {family.name}: {_first_line(error)}"
        ) from error
    scheduler = ddim_scheduler(parts.pop("scheduler"))
    pipeline = Pipeline(family=family, settings=settings, scheduler=scheduler, **parts)
    _check_tokenizers(model.path, pipeline)
    _check_networks(model.path, pipeline)
    return pipeline


def _parts(location: str, model: ModelSection, family: Family) -> dict[str, Any]:
    """The pipeline's parts by name, of the scheduler its settings alone."""

    def part(kind: Any, name: str, **options: Any) -> Any:
        return kind.from_pretrained(location, subfolder=name, revision=model.revision, **options)

    # Pickled weights could run code, so only safetensors are read.
    weights = {"dtype": torch.float32, "use_safetensors": True, "variant": model.variant or None}
    return {
        "text_encoders": [
            ClipText(
                part(CLIPTokenizer, name.replace("text_encoder", "tokenizer")),
                part(kind, name, **weights),
            )
            for name, kind in family.text_encoders.items()
        ],
        "unet": part(UNet2DConditionModel, "unet", **weights),
        "vae": part(AutoencoderKL, "vae", **weights),
        "scheduler": DDIMScheduler.load_config(
            location, subfolder="scheduler", revision=model.revision
        ),
    }


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
            f"model.path {path!r}: no such folder; give the folder of a {_KNOWN}, or a hub id "
            "such as CompVis/stable-diffusion-v1-4"
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


def _read_index(path: str, index: Path) -> dict[str, Any]:
    """The pipeline's index; says what is wrong with it before the libraries say it less clearly."""
    if not index.is_file():
        raise ModelError(
            f"model.path {path!r} is not a diffusers pipeline: it holds no {MODEL_INDEX}; "
            f"give the folder of a {_KNOWN}"
        )
    try:
        settings: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        kind = settings.get("_class_name")
    except (ValueError, AttributeError):
        raise ModelError(f"{index} is not a pipeline index: it is not a JSON object") from None
    if kind not in FAMILIES:
        raise ModelError(f"model.path {path!r} is a {kind}; only a {_KNOWN} can be trained")
    return settings


def _check_tokenizers(path: str, pipeline: Pipeline) -> None:
    """A tokenizer without its files loads as one that knows no word, and says nothing."""
    for name, encoder in zip(pipeline.family.text_encoders, pipeline.text_encoders, strict=True):
        tokenizer, known = encoder.tokenizer, encoder.model.config.vocab_size
        words = len(tokenizer) - len(set(tokenizer.all_special_ids))
        if words < 1 or len(tokenizer) > known:
            folder = name.replace("text_encoder", "tokenizer")
            raise ModelError(
                f"model.path {path!r} cannot be loaded as a {pipeline.family.name}: its tokenizer "
                f"knows {words} tokens, its text encoder {known}; {folder}/ is missing or of "
                "another model"
            )


def _check_networks(path: str, pipeline: Pipeline) -> None:
    """Refuse networks that take or give something else than the family's do."""
    unet, vae, family = pipeline.unet.config, pipeline.vae.config, pipeline.family
    channels = vae.latent_channels
    if unet.in_channels != channels:
        fault = f"its UNet takes {unet.in_channels} channels, its latents have {channels}"
    elif unet.addition_embed_type != family.addition:
        fault = f"its UNet has addition_embed_type {unet.addition_embed_type!r}"
    elif unet.time_cond_proj_dim is not None:
        fault = "its UNet is distilled: it takes the guidance scale as an input"
    elif vae.latents_mean is not None or vae.shift_factor is not None:
        fault = "its latents are shifted by latents_mean or shift_factor"
    else:
        return
    raise ModelError(f"model.path {path!r} is no ordinary {family.name}: {fault}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
