"""`ddpo export`: a run's weights for other programs.

    kohya      one .safetensors of LoRA adapters, for ComfyUI, AUTOMATIC1111 and diffusers
    diffusers  the folder that the run's own results are: adapters, or `unet/`
    merged     a whole pipeline folder with the trained UNet in it, adapters folded in

The weights are those that evaluations drew with, averaged ones if the run keeps any; `raw` takes
those that were trained. What is written appears at its place when it is complete.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from torch import Tensor

from trainer import checkpoints
from trainer.config import Config, load_config
from trainer.kohya import folded, kohya_names
from trainer.loading import load_policy
from trainer.run_folder import RunFolder
from trainer.sections import ModelSection
from trainer.shipped_files import find
from trainer.stops import ConfigError, ModelError
from trainer.weights_file import make_canonical

Format = Literal["kohya", "diffusers", "merged"]
_FILE = ".safetensors"


@dataclass(frozen=True)
class Export:
    """What to write.

    Attributes:
        run: folder of the run.
        format: see above.
        out: file to write (kohya), or folder.
        raw: take the weights that were trained where the run also averages them.
        epoch: of the checkpoint; None takes the one whose weights a finished run has chosen, else
            the newest.
    """

    run: Path
    format: Format
    out: Path
    raw: bool = False
    epoch: int | None = None


def export(asked: Export) -> tuple[Path, int]:
    """Write the weights of a run for another program.

    Returns:
        What was written, and the epochs after which the model had these weights.

    Raises:
        RunStopped: there is no such run or checkpoint, the format does not suit what was trained,
            or `out` is taken.
    """
    folder = RunFolder(asked.run)
    folder.require_run()
    config = load_config(folder.config)
    _check(asked, config)
    epoch = folder.weights_epoch if asked.epoch is None else asked.epoch
    checkpoint = checkpoints.load(checkpoints.found(folder.checkpoints, epoch))
    weights = checkpoint.weights if asked.raw else checkpoint.evaluated
    write: dict[Format, Callable[[Path], object]] = {
        "kohya": lambda path: _save_adapters(config.model, weights, path),
        "diffusers": lambda path: _save_trained(config, weights, path),
        "merged": lambda path: _save_pipeline(config.model, weights, path),
    }
    parent = asked.out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=parent) as partial:
        written = Path(partial) / asked.out.name
        write[asked.format](written)
        os.rename(written, asked.out)
    return asked.out, checkpoint.state.epoch


def _check(asked: Export, config: Config) -> None:
    """Refuse what cannot be done before anything is loaded.

    Raises:
        ConfigError: the format does not suit what was trained, or `out` is taken or no file.
    """
    if asked.format == "kohya" and config.model.train != "lora":
        raise ConfigError(
            f"--format kohya writes LoRA adapters, and the run trained the whole UNet "
            f'(model.train = "{config.model.train}"): use --format merged or diffusers'
        )
    if asked.format == "kohya" and asked.out.suffix != _FILE:
        raise ConfigError(f"--out {str(asked.out)!r} must end in {_FILE} for --format kohya")
    if asked.out.exists():
        raise ConfigError(f"--out {str(asked.out)!r} is there already: remove it, or name another")


def _save_adapters(model: ModelSection, weights: Mapping[str, Tensor], path: Path) -> None:
    rank, alpha = model.lora.rank, model.lora.alpha
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
    }
    save_file(kohya_names(weights, alpha), path, metadata)
    make_canonical(path)


def _save_trained(config: Config, weights: Mapping[str, Tensor], path: Path) -> None:
    policy = load_policy(config.model, "cpu", config.run.seed)
    policy.load_state(weights)
    policy.save_trained(path)


def _save_pipeline(model: ModelSection, weights: Mapping[str, Tensor], path: Path) -> None:
    """The pipeline as it is on the disk or the hub, in fp32, with another UNet.

    Raises:
        ModelError: it cannot be loaded, or its UNet has other weights.
    """
    diffusers_logging.disable_progress_bar()
    location = find(model.path) or model.path
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(location), revision=model.revision, use_safetensors=True
        )
    # What the libraries raise for a broken or missing file ranges widely.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model.path {model.path!r} cannot be loaded: {reason}") from error
    state = pipeline.unet.state_dict()
    try:
        state |= folded(state, weights, model.lora.alpha) if model.train == "lora" else weights
        pipeline.unet.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"the run's weights do not fit the UNet of {model.path!r}: {error}"
        ) from error
    pipeline.save_pretrained(path)
