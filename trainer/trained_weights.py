"""What was trained, in the form that plain diffusers loads.

Everything is written beside its place and moved there, so what stands there is complete.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft.utils.save_and_load import get_peft_model_state_dict

from trainer.weights_file import make_canonical

LORA_FILE = "pytorch_lora_weights.safetensors"
UNET_FOLDER = "unet"


def save_unet(unet: Any, folder: Path) -> Path:
    """A whole UNet as a `unet/` folder.

    It loads with `UNet2DConditionModel.from_pretrained(folder / "unet")`.

    Returns:
        The folder written.
    """
    return _moved(folder, UNET_FOLDER, lambda partial: unet.save_pretrained(partial / UNET_FOLDER))


def save_lora(unet: Any, folder: Path) -> Path:
    """The adapters in a UNet as `pytorch_lora_weights.safetensors`.

    They load with `pipe.load_lora_weights(folder)`.

    Returns:
        The file written.
    """
    config = unet.peft_config["default"]
    # Sets come in another order in every process, which would show in the file.
    metadata = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}

    def write(partial: Path) -> None:
        StableDiffusionLoraLoaderMixin.save_lora_weights(
            partial,
            unet_lora_layers=_named(get_peft_model_state_dict(unet)),
            # Without it a loader assumes alpha = rank.
            unet_lora_adapter_metadata=metadata,
        )
        make_canonical(partial / LORA_FILE)

    return _moved(folder, LORA_FILE, write)


def _named(adapters: dict[str, Any]) -> dict[str, Any]:
    """Adapters by the names of diffusers, which knows some for attention, else by those of peft.

    Never by both: of such a file diffusers loads one half, and leaves out the other.
    """
    named: dict[str, Any] = convert_state_dict_to_diffusers(adapters)
    return adapters if any(".lora_A." in name for name in named) else named


def _moved(folder: Path, name: str, write: Callable[[Path], None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        write(Path(partial))
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(Path(partial) / name, target)
    return target
