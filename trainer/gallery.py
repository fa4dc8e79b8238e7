"""Evaluations on the disk, and their pictures side by side.

evaluation/epoch-00000/
    scores.json       prompts, scores, mean and 95 % interval (`Evaluation`); written last
    000.png, …        the pictures, lossless, in the order of the prompts
evaluation/grid.png   the same prompt and noise side by side: before | halfway | after
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.images import encode_png
from trainer.run_folder import write_whole

_NAME = re.compile(r"epoch-(\d{5,})")
_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
_CELL, _GAP, _CAPTION, _COLUMNS = 128, 24, 40, 4


class Measured(BaseModel):
    """What one reward says of the N evaluation pictures.

    Attributes:
        scores: N rewards; None where a picture could not be scored.
        mean: over the scored pictures.
        ci95: ends of the 95 % interval of the mean (normal approximation).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: list[float | None]
    mean: float
    ci95: tuple[float, float]


class Spread(BaseModel):
    """Mean and standard deviation (of the values, not of the mean) of one number over pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    std: float

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> "Spread":
        """That of one or more finite values."""
        return cls(mean=float(values.mean()), std=float(values.std()))


class Evaluation(BaseModel):
    """What the fixed evaluation seeds gave at one point of a run.

    Attributes:
        epoch: epochs trained before it; 0 is the model as it was loaded.
        prompts: N prompts.
        rewards: name of each reward that is trained on, and what it says; at least one.
        monitors: name of each reward that is not trained on, and what it says.
        health: numbers of the pictures themselves, see `picture_health`; empty in old files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    prompts: list[str]
    rewards: Annotated[dict[str, Measured], Field(min_length=1)]
    monitors: dict[str, Measured] = {}
    health: dict[str, Spread] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_when_a_run_had_one_reward(cls, values: object) -> object:
        """Such evaluations say `reward`, and have what it says beside its name."""
        if not isinstance(values, dict) or "reward" not in values:
            return values
        said = {name: values[name] for name in Measured.model_fields if name in values}
        others = {key: values[key] for key in values.keys() - said.keys() - {"reward"}}
        return {**others, "rewards": {values["reward"]: said}}

    @property
    def judged(self) -> dict[str, Measured]:
        """What every reward says, those that are trained on first."""
        return self.rewards | self.monitors


Shots = Sequence[tuple[Evaluation, list[Path]]]
"""Evaluations with the paths of their pictures, oldest first."""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95 % interval, normal approximation, from at least two values."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = _Z95 * math.sqrt(variance / len(values))
    return mean, mean - half, mean + half


def save(folder: Path, evaluation: Evaluation, pictures: npt.NDArray[np.uint8]) -> None:
    """Write an evaluation below the run's `evaluation/` folder; the scores come last."""
    target = folder / f"epoch-{evaluation.epoch:05d}"
    save_pictures(target, pictures)
    write_whole(target / "scores.json", evaluation.model_dump_json(indent=1))


def save_pictures(folder: Path, pictures: npt.NDArray[np.uint8]) -> list[Path]:
    """Write N pictures, (N, H, W, 3), losslessly into a folder, which is made.

    Returns:
        Their N paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03d}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        path.write_bytes(encode_png(picture))
    return paths


def load(folder: Path, epoch: int) -> tuple[Evaluation, list[Path]] | None:
    """The evaluation of one epoch with the paths of its pictures; None when there is none."""
    return next((found for found in load_all(folder) if found[0].epoch == epoch), None)


def load_all(folder: Path) -> list[tuple[Evaluation, list[Path]]]:
    """Every complete evaluation below a run's `evaluation/` folder, oldest first.

    Returns:
        Evaluations, each with the paths of its pictures in the order of the prompts.
    """
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        scores = path / "scores.json"
        if _NAME.fullmatch(path.name) and scores.exists():
            evaluation = Evaluation.model_validate_json(scores.read_bytes())
            pictures = [path / f"{i:03d}.png" for i in range(len(evaluation.prompts))]
            found.append((evaluation, pictures))
    return sorted(found, key=lambda item: item[0].epoch)


def shown(prompts: Sequence[str], limit: int) -> list[int]:
    """Which pictures to show: the first of every prompt, at most `limit`."""
    first = {prompt: index for index, prompt in reversed(list(enumerate(prompts)))}
    return sorted(first.values())[:limit]


def milestones(shots: Shots) -> Shots:
    """First and last of one or more evaluations, and the one halfway when there are others."""
    middle = shots[len(shots) // 2 : len(shots) // 2 + 1] if len(shots) > 2 else []
    return [shots[0], *middle, shots[-1]] if len(shots) > 1 else list(shots)


def write_grid(path: Path, prompts: Sequence[str], moments: Sequence[Sequence[Path]]) -> None:
    """One PNG of pictures of the same prompt and noise side by side, with the prompts.

    Args:
        path: the file to write.
        prompts: N prompts.
        moments: N pictures for each moment of training, from left to right.
    """
    rows = shown(prompts, 24)
    pitch = len(moments) * (_CELL + 2) - 2 + _GAP
    lines = -(-len(rows) // _COLUMNS)
    size = (min(len(rows), _COLUMNS) * pitch + _GAP, lines * (_CELL + _CAPTION) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for place, row in enumerate(rows):
        left = _GAP + (place % _COLUMNS) * pitch
        top = _GAP + (place // _COLUMNS) * (_CELL + _CAPTION)
        for moment, pictures in enumerate(moments):
            with Image.open(pictures[row]) as image:
                cell = image.resize((_CELL, _CELL), Image.Resampling.LANCZOS)
            sheet.paste(cell, (left + moment * (_CELL + 2), top))
        draw.text((left, top + _CELL + 5), prompts[row], fill="black", font=font)
    sheet.save(path)


def write_sheet(path: Path, pictures: Sequence[npt.NDArray[np.uint8]]) -> None:
    """One PNG of N ≥ 1 pictures of one size, (H, W, 3) each, as square a sheet as can be."""
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width = pictures[0].shape[:2]
    sheet = np.full((-(-len(pictures) // columns) * height, columns * width, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(sheet))
