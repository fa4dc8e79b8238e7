"""A study: the same task for several arms, rewards and seeds, one run (a cell) for each.

    name = "comparison"
    seeds = [1, 2, 3]
    monitors = ["emoji_judge"]       # scored in every cell, trained on in none

    [settings.model]                 # a recipe's tables, common to all cells
    path = "emoji_world/models/diffusion"

    [arms.ddpo_is.training]          # an arm: an algorithm with its settings
    algorithm = "ddpo_is"

    [rewards.jpeg_compressibility]   # a reward, with what its task needs
    [rewards.llava_bertscore.prompts]
    source = "emoji_world/prompts/rare_pairs.txt"

    [both.llava_bertscore.ddpo_is.training]   # for one arm on one reward
    learning_rate = 1e-4

The later of these tables is the stronger.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.config import Config
from trainer.sections.section import Seed
from trainer.stops import ConfigError
from trainer.tables import flatten, merge

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]
Settings = dict[str, Any]

# Settings of a cell that say where it runs, not what it computes.
_ELSEWHERE = ("run.dir", "run.name", "rewards", "monitors", "scoring", "tracking", "checkpoints")


class StudyFile(BaseModel):
    """The tables of a study's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    seeds: Annotated[list[Seed], Field(min_length=1)]
    monitors: list[Name] = []
    settings: Settings
    arms: Annotated[dict[Name, Settings], Field(min_length=1)]
    rewards: Annotated[dict[Name, Settings], Field(min_length=1)]
    both: dict[Name, dict[Name, Settings]] = {}

    @model_validator(mode="after")
    def _names_fit(self) -> "StudyFile":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice: keep one")
        for reward, arms in self.both.items():
            if reward not in self.rewards:
                raise ValueError(f"both.{reward}: there is no such reward in the study")
            for arm in arms.keys() - self.arms.keys():
                raise ValueError(f"both.{reward}.{arm}: there is no such arm in the study")
        for monitor in set(self.monitors) & self.rewards.keys():
            raise ValueError(f"{monitor} is a reward and a monitor: keep it as one of them")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        arm, reward, seed: its place.
        settings: a recipe's tables, without the addresses of services.
    """

    arm: str
    reward: str
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        """`ARM/REWARD/SEED`, as in `--cell`."""
        return f"{self.arm}/{self.reward}/{self.seed}"

    @property
    def folder(self) -> str:
        """Name of its run's folder."""
        return f"{self.arm}-{self.reward}-{self.seed}"

    def config(self) -> Config:
        """Its configuration, all defaults filled in, without services.

        Raises:
            ConfigError: a setting is unknown or does not fit.
        """
        try:
            config = Config(**self.settings)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"cell {self.name}: {where}: {first['msg']}") from None
        try:
            _ = config.sizes  # computing them is the check
        except ConfigError as error:
            raise ConfigError(f"cell {self.name}: {error}") from None
        return config

    @property
    def config_hash(self) -> str:
        """SHA-256 of what determines the result, 16 hexadecimal digits; no address, no folder.

        Settings that have their default are left out, so that a new one does not make strangers of
        old results. Whether a default was another then is told by the commit of a row.
        """
        flat = {
            key: value
            for key, value in flatten(
                self.config().model_dump(mode="json", exclude_defaults=True)
            ).items()
            if not key.startswith(_ELSEWHERE)
        }
        text = json.dumps([self.reward, flat], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Study:
    """A study's file, read and checked.

    Attributes:
        path: the file.
        name: of its results and of the folder of its runs.
        rewards, monitors: what services it needs.
        cells: seed after seed, so that a study that is cut short is balanced.
    """

    path: Path
    name: str
    rewards: list[str]
    monitors: list[str]
    cells: list[Cell]

    @classmethod
    def read(cls, path: Path) -> "Study":
        """Read a study's file and check every cell's settings.

        Raises:
            ConfigError: the file is missing or malformed, or a setting of a cell does not fit.
        """
        try:
            file = StudyFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"the study {path} cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{path}: {f'{where}: ' if where else ''}{reason}") from None
        cells = [
            Cell(arm, reward, seed, _settings(file, arm, reward, seed))
            for seed in file.seeds
            for reward in file.rewards
            for arm in file.arms
        ]
        for cell in cells:
            cell.config()
        return cls(path, file.name, list(file.rewards), file.monitors, cells)

    def chosen(self, names: list[str]) -> list[Cell]:
        """The cells of these names, all for none; `ARM`, `ARM/REWARD` and `*` parts match many.

        Raises:
            ConfigError: a name matches no cell.
        """
        if not names:
            return self.cells
        for name in names:
            if not any(_matches(cell, name) for cell in self.cells):
                raise ConfigError(
                    f"--cell {name!r}: the study {self.name} has no such cell; they are called "
                    f"ARM/REWARD/SEED, for example {self.cells[0].name}"
                )
        return [cell for cell in self.cells if any(_matches(cell, name) for name in names)]


def _matches(cell: Cell, name: str) -> bool:
    parts = name.split("/")
    known = cell.name.split("/")
    return len(parts) <= len(known) and all(
        part in ("*", mine) for part, mine in zip(parts, known, strict=False)
    )


def _settings(file: StudyFile, arm: str, reward: str, seed: int) -> Settings:
    """The tables of one cell, weakest first."""
    settings: Settings = {}
    layers: list[Mapping[str, Any]] = [
        file.settings,
        file.rewards[reward],
        file.arms[arm],
        file.both.get(reward, {}).get(arm, {}),
        {"run": {"seed": seed}},
    ]
    for layer in layers:
        merge(settings, deepcopy(dict(layer)))
    return settings
