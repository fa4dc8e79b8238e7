"""How many weights a model has, from its configuration alone: nothing is loaded or fetched."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import try_to_load_from_cache
from peft import LoraConfig

from trainer.published_shapes import PUBLISHED_SHAPES
from trainer.sections import ModelSection
from trainer.shipped_files import find
from trainer.stops import ConfigError

UNET = "unet"
TEXT_ENCODER = "text_encoder"  # the first one; others have a number behind
_CONFIG = "config.json"
_OTHERS = (TEXT_ENCODER, f"{TEXT_ENCODER}_2", "vae")


@dataclass(frozen=True)
class ModelSizes:
    """What a model is made of.

    Attributes:
        parts: name of each part that the trainer loads → its number of weights, adapters left out.
        adapters: weights of the LoRA adapters; 0 where the whole UNet is trained.
        latent_shape: (C, h, w) of one latent.
    """

    parts: Mapping[str, int]
    adapters: int
    latent_shape: tuple[int, int, int]

    @property
    def trained(self) -> int:
        """Weights that the optimiser changes."""
        return self.adapters or self.parts[UNET]


def model_sizes(model: ModelSection) -> ModelSizes | None:
    """Count the weights of a model.

    Args:
        model: what would be trained.

    Returns:
        None for a hub model of which this machine has no files, unless its shape is known, see
        `trainer.published_shapes`.

    Raises:
        ConfigError: the adapters fit no module of the UNet.
    """
    found = {name: _config(model, name) for name in (UNET, *_OTHERS)}
    configs: Mapping[str, Mapping[str, Any]] | None
    configs = {name: each for name, each in found.items() if each is not None}
    if UNET not in configs:
        configs = PUBLISHED_SHAPES.get(model.path)
        if configs is None:
            return None
    # On the device `meta` a tensor has a shape and no memory.
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs[UNET])
        parts = {UNET: _count(unet)}
        parts |= {name: _count(_built(name, configs[name])) for name in _OTHERS if name in configs}
        adapters = _adapters(unet, model) if model.train == "lora" else 0
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return ModelSizes(parts, adapters, (unet.config.in_channels, height, width))


def _config(model: ModelSection, part: str) -> dict[str, Any] | None:
    """The configuration of a part, from the model's folder or from what the hub left here."""
    folder = find(model.path)
    path: object = folder / part / _CONFIG if folder is not None else None
    if folder is None and model.path.count("/") == 1:
        path = try_to_load_from_cache(model.path, f"{part}/{_CONFIG}", revision=model.revision)
    # Of a file that it knows not to exist, the hub's cache answers with an object of its own.
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return config


def _built(part: str, config: Mapping[str, Any]) -> Any:
    if part == "vae":
        return AutoencoderKL.from_config(config)
    kind = getattr(transformers, config["architectures"][0])
    return kind(kind.config_class(**config))


def _adapters(unet: Any, model: ModelSection) -> int:
    """Weights that adapters would add; as `Policy` puts them in."""
    unet.requires_grad_(False)
    targets = list(model.lora.target_modules)
    try:
        unet.add_adapter(LoraConfig(r=model.lora.rank, target_modules=targets))
    except ValueError as error:
        raise ConfigError(f"model.lora: {error}") from error
    return sum(each.numel() for each in unet.parameters() if each.requires_grad)


def _count(module: Any) -> int:
    return sum(each.numel() for each in module.parameters())
