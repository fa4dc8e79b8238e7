"""A request body, taken apart as far as the number of pictures; none of them is decoded here.

The three media types of `POST /score` meet in `Payload`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidRequest, TooManyItems
from shared.layout import MAX_HEADER_BYTES

MOST_WORDS_BYTES = MAX_HEADER_BYTES
"""Bytes of prompts and of metadata in one request, whatever its media type."""

MOST_DEPTH = 64
"""Levels of metadata. Every program on the way has its own limit, and some end with a crash."""

Encoded = Callable[[], bytes]
"""Gives the bytes of an image file, or raises `ImageError`."""

Picture = NDArray[np.uint8] | Encoded
"""Pixels (uint8, height × width × 3) as they came, or an image file still to be decoded."""

Words = str | Sequence[str] | None
Facts = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Payload:
    """What a request asks to score; the three are equally long, and not empty."""

    pictures: Sequence[Picture]
    prompts: Sequence[str]
    metadata: Sequence[Mapping[str, Any]]

    @property
    def size(self) -> int:
        """Number of pictures."""
        return len(self.pictures)


@dataclass(frozen=True, slots=True)
class Demands:
    """What a service asks of a payload."""

    max_items: int
    needs_prompt: bool

    def check_count(self, count: int) -> None:
        """Refuse an empty request and one with too many pictures.

        Raises:
            InvalidRequest, TooManyItems.
        """
        if count == 0:
            raise InvalidRequest("there are no pictures: send at least one")
        if count > self.max_items:
            raise TooManyItems(
                f"{count} pictures are more than the {self.max_items} that one request may have: "
                "split it"
            )


def require_shallow(metadata: Sequence[Mapping[str, Any]]) -> None:
    """Refuse metadata that somebody behind this process might not be able to read.

    Raises:
        InvalidRequest: nested too deep.
    """
    # One object may stand for all pictures.
    level: list[object] = list({id(each): each for each in metadata}.values())
    for _ in range(MOST_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise InvalidRequest(f"`metadata` is nested more than {MOST_DEPTH} levels deep: flatten it")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def assemble(
    pictures: Sequence[Picture], prompts: Words, metadata: Facts, demands: Demands
) -> Payload:
    """One prompt and one metadata object per picture; a lone one stands for all.

    Raises:
        InvalidRequest: counts that differ, or no prompts where the reward needs them.
        TooManyItems: more pictures than one request may have.
    """
    count = len(pictures)
    demands.check_count(count)
    if prompts is None and demands.needs_prompt:
        raise InvalidRequest("this reward needs `prompts`: send one per picture, or one for all")
    words = [prompts or ""] * count if prompts is None or isinstance(prompts, str) else prompts
    if len(words) != count:
        raise InvalidRequest(
            f"{count} pictures but {len(words)} prompts: send one per picture, or one for all"
        )
    if metadata is None or isinstance(metadata, Mapping):
        metadata = [metadata or {}] * count
    if len(metadata) != count:
        raise InvalidRequest(
            f"{count} pictures but {len(metadata)} metadata objects: "
            "send one per picture, one for all, or none"
        )
    return Payload(pictures, words, metadata)
