"""Where the pictures of jobs lie while they wait: outside the queue, which holds only their names.

A store has one value per picture, its raw pixels, and one per job with the words: everything else
that the items say. All of them end by themselves.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reward_services.scorer import ScoreItem


def letter_name(letter_id: str) -> str:
    """The job under whose name the picture of a dead letter is stored; see `_reaping.lua`."""
    return f"dead-{letter_id}"


@dataclass(frozen=True, slots=True)
class Words:
    """What the items of a job say besides their pixels; the three are equally long."""

    shapes: Sequence[Sequence[int]]
    prompts: Sequence[str]
    metadata: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, items: Sequence[ScoreItem]) -> "Words":
        """Those of `items`."""
        return cls(
            [item.image.shape for item in items],
            [item.prompt for item in items],
            [dict(item.metadata) for item in items],
        )

    @classmethod
    def decode(cls, data: bytes) -> "Words":
        """The inverse of `encode`."""
        return cls(*json.loads(data))

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps([self.shapes, self.prompts, self.metadata]).encode()

    def item(self, index: int, pixels: bytes | memoryview | NDArray[np.uint8]) -> ScoreItem:
        """The item at `index`, its image a view of `pixels`."""
        image = np.frombuffer(pixels, np.uint8).reshape(self.shapes[index])
        return ScoreItem(image, self.prompts[index], self.metadata[index])


def pixels(item: ScoreItem) -> memoryview:
    """The bytes of a picture, row by row; a copy only where they do not lie in order."""
    return np.ascontiguousarray(item.image).reshape(-1).data


class Blobs(Protocol):
    """A store of pictures. Every method may raise `shared.errors.BrokerUnavailable`."""

    async def put(self, job_id: str, items: Sequence[ScoreItem], ttl_s: float) -> None:
        """Keep the pictures of a job for `ttl_s` seconds; the same id replaces."""
        ...

    async def get(self, job_id: str, first: int, size: int) -> list[ScoreItem] | None:
        """Some of the pictures of a job; None when any of them is gone."""
        ...

    async def words(self, job_id: str) -> Words | None:
        """What its items say."""
        ...

    async def drop(self, job_id: str, size: int) -> None:
        """Forget the pictures of a job that has ended; `size` of them."""
        ...

    async def bury(self, job_id: str, index: int, letter_id: str, ttl_s: float) -> None:
        """Keep one picture under the name of a dead letter."""
        ...

    async def drop_letter(self, letter_id: str, index: int) -> None:
        """Forget the picture of a dead letter."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
