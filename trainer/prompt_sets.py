"""The named prompt sets, and what a prompt set is: texts, and what a reward is told of some.

Words come from `assets/`, one noun a line; articles and plurals are made by inflect.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import inflect

ACTIVITIES = ("riding a motorcycle", "playing chess", "washing dishes")
"""Of the authors' blog post."""
PAPER_ACTIVITIES = ("washing the dishes", "riding a bike", "playing chess")
"""Of the published code."""
UNSEEN_ACTIVITIES = ("taking an exam", "flying a kite")
"""No recipe trains on them; "taking an exam" is the blog post's."""

_PAPER_NUMBERS = range(2, 9)
_EMOJI_NUMBERS = range(2, 7)  # the emoji model has never seen more animals in a picture

_inflect = inflect.engine()


@dataclass(frozen=True)
class PromptSet:
    """What a model may be asked to draw.

    Attributes:
        texts: the prompts in order. One that comes twice is drawn twice as often.
        metadata: text → the JSON object that rewards get with its pictures; only for the prompts
            that have one.
    """

    texts: tuple[str, ...]
    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def metadata_of(self, prompts: Sequence[str]) -> list[Mapping[str, Any]] | None:
        """One object per prompt, empty where it has none; None when no prompt of the set has any.

        None keeps the requests of a plain set as they would be without metadata.
        """
        return [self.metadata.get(prompt, {}) for prompt in prompts] if self.metadata else None


def with_article(noun: str) -> str:
    """ "cat" → "a cat", "ant" → "an ant"."""
    return str(_inflect.a(noun))


def plural(noun: str) -> str:
    """ "cat" → "cats", "wolf" → "wolves", "sheep" → "sheep"."""
    return str(_inflect.plural(noun))


def _nouns(name: str) -> tuple[str, ...]:
    """The lines of a list in `assets/`."""
    text = files("trainer").joinpath(f"assets/{name}.txt").read_text(encoding="utf-8")
    return tuple(text.split("\n")[:-1])


def _things(name: str) -> PromptSet:
    return PromptSet(tuple(with_article(noun) for noun in _nouns(name)))


def _doing(name: str, activities: tuple[str, ...]) -> PromptSet:
    return PromptSet(
        tuple(f"{with_article(noun)} {what}" for noun in _nouns(name) for what in activities)
    )


def _counting(numbers: Iterable[int]) -> PromptSet:
    """Every number of every counted animal, with the questions that the paper asks of it."""
    questions = {}
    for noun in _nouns("counted_animals"):
        for number in (str(_inflect.number_to_words(str(each))) for each in numbers):
            questions[f"{number} {plural(noun)}"] = {
                "questions": [
                    f"How many {plural(noun)} are there in this image?",
                    "What animal is in this image?",
                ],
                "answers": [number, noun],
            }
    return PromptSet(tuple(questions), questions)


PROMPT_SETS: Mapping[str, Callable[[], PromptSet]] = {
    "animals": lambda: _things("animals"),
    "animal_activities": lambda: _doing("animals", ACTIVITIES),
    "paper_animals": lambda: PromptSet(_nouns("animals")),
    "paper_activities": lambda: _doing("animals", PAPER_ACTIVITIES),
    "counting": lambda: _counting(_PAPER_NUMBERS),
    "emoji_counting": lambda: _counting(_EMOJI_NUMBERS),
    "unseen_animals": lambda: _things("unseen_animals"),
    "everyday_objects": lambda: _things("everyday_objects"),
    "paper_unseen_animals": lambda: _things("paper_unseen_animals"),
    "paper_everyday_objects": lambda: _things("paper_everyday_objects"),
    "unseen_activities": lambda: _doing("animals", UNSEEN_ACTIVITIES),
    "unseen_animals_activities": lambda: _doing("unseen_animals", ACTIVITIES),
}
"""Name → its prompts. The `paper_` sets are those of the published code, more words than the emoji
model knows."""
