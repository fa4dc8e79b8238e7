"""What was recorded and measured of the committed models, read back for the model card."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from emoji_world.vocabulary import STYLES


@dataclass(frozen=True)
class ArtworkPackage:
    """One icon set as the lock file pins it."""

    style: str
    version: str
    licence: str


@dataclass(frozen=True)
class ModelRecords:
    """Everything that a model card tells in numbers.

    Attributes:
        plan: the settings of the pretraining.
        log: the rows of its log, one per step number, in order.
        seconds: time it took, over all sessions.
        dataset: ``{"pictures": …}``, of the data set.
        decoder: ``{"psnr_db": …}``.
        quality: settings of the evaluation, and under ``groups`` each prompt group's numbers.
        accuracy: share of held-out real pictures that the classifier reads right, per family.
        parameters: parameters of each module, by folder name.
        megabytes: size of each module's weights, by folder name.
        artwork: the icon sets.
    """

    plan: Mapping[str, Any]
    log: tuple[Mapping[str, Any], ...]
    seconds: float
    dataset: Mapping[str, int]
    decoder: Mapping[str, float]
    quality: Mapping[str, Any]
    accuracy: Mapping[str, float]
    parameters: Mapping[str, int]
    megabytes: Mapping[str, float]
    artwork: tuple[ArtworkPackage, ...]


def read_records(models: Path, lock: Path) -> ModelRecords:
    """Read the folders ``diffusion``, ``classifier`` and ``training`` in ``models``.

    Raises:
        ValueError: a record is missing, incomplete or damaged; the message tells which command
            writes it.
    """
    training = models / "training"
    rows = log_rows(training / "log.jsonl", "export")
    weights = {
        name: weights_file(models / folder)
        for name, folder in (
            ("unet", "diffusion/unet"),
            ("text_encoder", "diffusion/text_encoder"),
            ("vae", "diffusion/vae"),
            ("classifier", "classifier"),
        )
    }
    return ModelRecords(
        plan=read_json(training / "plan.json", "export"),
        log=tuple({row["step"]: row for row in rows}.values()),
        seconds=_seconds(rows),
        dataset=read_json(training / "dataset.json", "export"),
        decoder=read_json(training / "decoder.json", "export"),
        quality=read_json(training / "quality.json", "evaluate"),
        accuracy=read_json(models / "classifier" / "accuracy.json", "classifier"),
        parameters={name: weights_parameters(path) for name, path in weights.items()},
        megabytes={name: path.stat().st_size / 1e6 for name, path in weights.items()},
        artwork=_artwork(lock),
    )


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Bounds of a share of ``count`` trials, 95 % by default (Wilson 1927)."""
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def read_json(path: Path, command: str) -> dict[str, Any]:
    """The JSON object in ``path``, which ``command`` writes.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: run `python -m emoji_world {command}` first"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return content


def log_rows(path: Path, command: str) -> list[dict[str, Any]]:
    """The lines of a training's log in ``path``, one or more, which ``command`` writes.

    Raises:
        ValueError: it is missing, empty or damaged.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `python -m emoji_world {command}` first")
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not rows:
        raise ValueError(f"{path} is empty: the pretraining has not logged anything")
    return rows


def _seconds(rows: list[dict[str, Any]]) -> float:
    """Sum over the sessions of a run: the clock of each starts at zero."""
    total, before = 0.0, 0.0
    for row in rows:
        if row["seconds"] < before:
            total += before
        before = float(row["seconds"])
    return total + before


def weights_file(folder: Path) -> Path:
    """The weights in a model's folder.

    Raises:
        ValueError: there are none.
    """
    for name in ("diffusion_pytorch_model.safetensors", "model.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} holds no weights: export the model and train the classifier first")


def weights_parameters(path: Path) -> int:
    """The number of parameters in a safetensors file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with safe_open(path, "np") as tensors:
            names = [name for name in tensors.keys() if not _is_statistic(name)]  # noqa: SIM118
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _is_statistic(name: str) -> bool:
    """Buffers of batch normalisation and position numbers are no parameters."""
    return "running_" in name or name.endswith(("num_batches_tracked", "position_ids"))


def _artwork(lock: Path) -> tuple[ArtworkPackage, ...]:
    packages = read_json(lock, "icons")["packages"]
    pinned = {style: packages[f"node_modules/@iconify-json/{style}"] for style in STYLES}
    return tuple(
        ArtworkPackage(style, package["version"], package["license"])
        for style, package in pinned.items()
    )
