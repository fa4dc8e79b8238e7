"""What the model is asked to draw: a named set, or a file of prompts, and a seeded choice."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared import strict_json
from shared.errors import MalformedRequest
from trainer.prompt_sets import PROMPT_SETS, PromptSet
from trainer.shipped_files import find
from trainer.stops import ConfigError


def load_prompts(source: str, setting: str = "prompts.source") -> PromptSet:
    """The prompts of a named set, or of a file.

    A text file holds one prompt per line. A `.jsonl` file holds one object per line, with the
    `prompt`, and optionally the `metadata` that rewards get with its pictures. Empty lines do not
    count in either.

    Args:
        source: name of a set, or path of a file. A relative path is looked for in the working
            directory, then beside the installed packages.
        setting: what the error calls it.

    Raises:
        ConfigError: neither a set nor a readable file, a file without prompts, or a line that is
            no such object or gives a prompt other metadata than a line before; it is named.
    """
    if source in PROMPT_SETS:
        return PROMPT_SETS[source]()
    path = find(source)
    if path is None or not path.is_file():
        raise ConfigError(
            f"{setting} {source!r} is neither a prompt set ({', '.join(PROMPT_SETS)}) "
            "nor a file: a text file with one prompt per line, or .jsonl"
        )
    prompts = _from_file(path, f"{setting} {source!r}")
    if not prompts.texts:
        raise ConfigError(f"{setting} {source!r} holds no prompt: write one per line")
    return prompts


def _from_file(path: Path, file: str) -> PromptSet:
    """The prompts of a file; `file` names it in errors."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error}") from None
    if path.suffix.lower() == ".jsonl":
        return _from_jsonl(text, file)
    return PromptSet(tuple(line.strip() for line in text.splitlines() if line.strip()))


def _from_jsonl(text: str, file: str) -> PromptSet:
    texts: list[str] = []
    metadata: dict[str, Mapping[str, Any]] = {}
    first_line: dict[str, int] = {}
    # Not `splitlines`: a JSON string may hold U+2028, at which that splits too.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        prompt, given = _entry(line, f"line {number} of {file}")
        earlier = first_line.setdefault(prompt, number)
        if earlier == number:
            metadata[prompt] = given
        elif _canonical(given) != _canonical(metadata[prompt]):
            raise ConfigError(
                f"line {number} of {file} gives {prompt!r} other metadata than line {earlier}: "
                "one prompt has one, so word them differently, or drop a line"
            )
        texts.append(prompt)
    return PromptSet(tuple(texts), {prompt: each for prompt, each in metadata.items() if each})


def _entry(line: str, where: str) -> tuple[str, dict[str, Any]]:
    """Prompt and metadata of a line."""
    try:
        value = strict_json.loads(where, line)
    except MalformedRequest as error:
        raise ConfigError(str(error)) from None
    if not isinstance(value, dict) or not value.keys() <= {"prompt", "metadata"}:
        raise ConfigError(
            f'{where} is not an object of the form {{"prompt": "a cat", "metadata": {{…}}}} '
            "(metadata may be left out)"
        )
    prompt, metadata = value.get("prompt"), value.get("metadata", {})
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"{where} holds no prompt: give it as a text that is not empty")
    if not isinstance(metadata, dict):
        raise ConfigError(f"{where}: metadata must be a JSON object, or left out")
    return prompt, metadata


def _canonical(metadata: Mapping[str, Any]) -> str:
    """Text that is equal for equal JSON alone; in Python 1 equals true."""
    return json.dumps(metadata, sort_keys=True)


class PromptSampler:
    """Draws prompts uniformly, with replacement, from its own generator.

    Args:
        prompts: what to draw from.
        seed: start of the generator.
    """

    def __init__(self, prompts: PromptSet, seed: int) -> None:
        self.drawn_from = prompts
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def draw(self, count: int) -> list[str]:
        """The next `count` prompts; the same in one call or in several."""
        texts = self.drawn_from.texts
        # One draw at a time, since bounded integers drawn as an array share random bits.
        return [texts[self._generator.integers(len(texts))] for _ in range(count)]

    def state_dict(self) -> dict[str, Any]:
        """The generator's position; plain JSON."""
        state: dict[str, Any] = json.loads(json.dumps(self._generator.bit_generator.state))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of `state_dict`."""
        self._generator.bit_generator.state = dict(state)


def evaluation_prompts(prompts: PromptSet, count: int) -> list[str]:
    """`count` prompts in order, starting over at the end: the same ones at every evaluation."""
    return [prompts.texts[i % len(prompts.texts)] for i in range(count)]
