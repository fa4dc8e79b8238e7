"""What the model is asked to draw: named prompt sets, text files, and a seeded choice of them."""

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import inflect
import numpy as np

from trainer.shipped_files import find
from trainer.stops import ConfigError

ACTIVITIES = ("riding a motorcycle", "playing chess", "washing dishes")
"""Of the authors' blog post."""
PAPER_ACTIVITIES = ("washing the dishes", "riding a bike", "playing chess")
"""Of the published code."""

_inflect = inflect.engine()


def _animals() -> tuple[str, ...]:
    """The 45 common animals."""
    text = files("trainer").joinpath("assets/animals.txt").read_text(encoding="utf-8")
    return tuple(text.split("\n")[:-1])


def with_article(noun: str) -> str:
    """ "cat" → "a cat", "ant" → "an ant"."""
    return str(_inflect.a(noun))


def _with_activities(activities: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{with_article(a)} {activity}" for a in _animals() for activity in activities)


PROMPT_SETS: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "animals": lambda: tuple(with_article(animal) for animal in _animals()),
    "animal_activities": lambda: _with_activities(ACTIVITIES),
    "paper_animals": _animals,
    "paper_activities": lambda: _with_activities(PAPER_ACTIVITIES),
}
"""Name → its prompts. The `paper_` sets are worded as in the published code."""


def load_prompts(source: str, setting: str = "prompts.source") -> tuple[str, ...]:
    """The prompts of a named set, or the non-empty lines of a text file.

    Args:
        source: name of a set, or path of a file. A relative path is looked for in the working
            directory, then beside the installed packages.
        setting: what the error calls it.

    Raises:
        ConfigError: neither a set nor a readable text file, or a file without prompts.
    """
    if source in PROMPT_SETS:
        return PROMPT_SETS[source]()
    path = find(source)
    if path is None or not path.is_file():
        raise ConfigError(
            f"{setting} {source!r} is neither a prompt set ({', '.join(PROMPT_SETS)}) "
            "nor a text file with one prompt per line"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{setting} {source!r} is not UTF-8 text: {error}") from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise ConfigError(f"{setting} {source!r} holds no prompt: write one per line")
    return prompts


class PromptSampler:
    """Draws prompts uniformly, with replacement, from its own generator.

    Args:
        prompts: what to draw from.
        seed: start of the generator.
    """

    def __init__(self, prompts: tuple[str, ...], seed: int) -> None:
        self._prompts = prompts
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def draw(self, count: int) -> list[str]:
        """The next `count` prompts; the same in one call or in several."""
        # One draw at a time, since bounded integers drawn as an array share random bits.
        return [self._prompts[self._generator.integers(len(self._prompts))] for _ in range(count)]

    def state_dict(self) -> dict[str, Any]:
        """The generator's position; plain JSON."""
        state: dict[str, Any] = json.loads(json.dumps(self._generator.bit_generator.state))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of `state_dict`."""
        self._generator.bit_generator.state = dict(state)


def evaluation_prompts(prompts: tuple[str, ...], count: int) -> list[str]:
    """`count` prompts in order, starting over at the end: the same ones at every evaluation."""
    return [prompts[i % len(prompts)] for i in range(count)]
