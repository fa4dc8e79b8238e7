"""The words of the emoji world, and which pieces of artwork draw each of them.

The 45 animals are the prompts that DDPO trains on (Black et al. 2023, appendix D). The other
animals, the objects and the further activities are known to the base model and never shown to RL,
as Stable Diffusion knows far more than 45 animals; they are those of the published evaluation
lists that the icon sets draw.
"""

from dataclasses import dataclass
from typing import Final

STYLES: Final = (
    "noto",
    "noto-v1",
    "fluent-emoji",
    "fluent-emoji-flat",
    "fluent-emoji-high-contrast",
)
"""The icon sets, in the order of the style index of a drawn picture."""

LINE_ART: Final = STYLES.index("fluent-emoji-high-contrast")
"""Style index of the black line drawings."""

ANIMALS: Final = (
    "cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider", "bird", "sheep", "deer", "cow",
    "goat", "lion", "tiger", "bear", "raccoon", "fox", "wolf", "lizard", "beetle", "ant",
    "butterfly", "fish", "shark", "whale", "dolphin", "squirrel", "mouse", "rat", "snake",
    "turtle", "frog", "chicken", "duck", "goose", "bee", "pig", "turkey", "fly", "llama", "camel",
    "bat", "gorilla", "hedgehog", "kangaroo",
)  # fmt: skip
"""The 45 animals of the paper, in its order."""

UNSEEN_ANIMALS: Final = (
    "elephant", "giraffe", "hippopotamus", "rhinoceros", "penguin", "seal", "otter", "orangutan",
    "koala", "crocodile", "octopus", "squid", "lobster", "crab", "jellyfish", "flamingo",
    "parrot", "peacock", "skunk", "badger", "sloth", "beaver", "moose",
)  # fmt: skip
"""Animals that the base model can draw and that RL never sees."""

OBJECTS: Final = (
    "chair", "car", "coffee cup", "television", "sofa", "computer", "smartphone", "bicycle",
    "clock", "mirror", "picture frame", "trash can", "plant pot", "backpack", "umbrella", "pen",
    "pencil", "notebook", "ruler", "envelope", "key", "skull", "flower",
)  # fmt: skip
"""Everyday objects that the base model can draw and that RL never sees."""

COUNTED_ANIMALS: Final = (
    "cat", "dog", "horse", "monkey", "rabbit", "spider", "bird", "sheep", "cow", "lion", "tiger",
    "bear", "raccoon", "fox", "wolf", "ant", "fish", "squirrel", "turtle", "frog", "chicken",
    "pig",
)  # fmt: skip
"""The 22 animals of the paper's counting prompts."""

NUMBERS: Final = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
"""The counts that are drawn. Above six an animal is smaller than ten pixels."""

IRREGULAR_PLURALS: Final = {"sheep": "sheep", "fish": "fish", "fox": "foxes", "wolf": "wolves"}


@dataclass(frozen=True)
class Activity:
    """Something an animal does.

    Attributes:
        phrase: the words after the animal.
        icons: the icons that show it, in drawing order.
        seen: whether RL trains on it.
    """

    phrase: str
    icons: tuple[str, ...]
    seen: bool


ACTIVITIES: Final = (
    Activity("riding a motorcycle", ("motorcycle",), seen=True),
    Activity("playing chess", ("chess-pawn",), seen=True),
    Activity("washing dishes", ("fork-and-knife-with-plate", "bubbles"), seen=True),
    Activity("taking an exam", ("memo",), seen=False),
    Activity("flying a kite", ("kite",), seen=False),
)

_ICON_OF_NOUN: Final = {
    "sheep": ("ewe",),
    "squirrel": ("chipmunk",),
    "bee": ("honeybee",),
    "car": ("automobile",),
    "coffee cup": ("hot-beverage",),
    "sofa": ("couch-and-lamp",),
    "computer": ("laptop", "laptop-computer"),
    "smartphone": ("mobile-phone",),
    "clock": ("alarm-clock",),
    "picture frame": ("framed-picture",),
    "trash can": ("wastebasket",),
    "plant pot": ("potted-plant",),
    "ruler": ("straight-ruler",),
    "flower": ("tulip",),
}


def icon_names(noun: str) -> tuple[str, ...]:
    """The icon names to try for ``noun``, best first: a body before a face."""
    return _ICON_OF_NOUN.get(noun, (noun,))


def digit_icon(number: int) -> str:
    """The keycap icon that shows ``number`` (0 to 9)."""
    return f"keycap-{number}"


def with_article(noun: str) -> str:
    """``noun`` behind "a" or "an"; no noun here needs more than its first letter to tell."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a counted animal."""
    return IRREGULAR_PLURALS.get(noun, f"{noun}s")


def required_icons() -> tuple[str, ...]:
    """Every icon name that any picture may need, alternatives included, sorted."""
    nouns = (*ANIMALS, *UNSEEN_ANIMALS, *OBJECTS)
    names = {name for noun in nouns for name in icon_names(noun)}
    names.update(icon for activity in ACTIVITIES for icon in activity.icons)
    names.update(digit_icon(number) for number in range(1, 10))
    return tuple(sorted(names))
