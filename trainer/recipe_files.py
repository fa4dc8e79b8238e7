"""Recipes: the shipped ones by name, and any other TOML file by path."""

import tomllib
from pathlib import Path
from typing import Any

from trainer.stops import ConfigError

RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_path(recipe: str | Path) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        ConfigError: there is no such recipe.
    """
    for path in (RECIPES / f"{recipe}.toml", Path(recipe)):
        if path.is_file():
            return path
    names = ", ".join(recipe_names())
    raise ConfigError(f"no recipe named {str(recipe)!r} and no such file; recipes: {names}")


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """The tables of a recipe.

    Raises:
        ConfigError: there is no such recipe, or it is not TOML.
    """
    path = recipe_path(recipe)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
