"""The contract kit behind `reward-services check`: does a scorer keep what the service promises?"""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from reward_services.scorer import (
    ItemError,
    Scored,
    ScoreItem,
    Scorer,
    ScorerContractError,
    describe,
    run_scorer,
)
from shared.schema import ItemResult

PROMPTS = ("a cat", "a dog riding a bicycle", "an ant", "three horses on a hill")
UNUSUAL_PROMPTS = ("", " ", "\n", "猫 🐈‍⬛", "<b>&amp;", "a cat and " * 1000)
# Timing is repeated this often; the median counts.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `message` says what was seen."""

    name: str
    passed: bool
    message: str


def check_scorer(make: Callable[[], Scorer], tolerance: float = 0.0) -> Iterator[Finding]:
    """Run every check, yielding each outcome as soon as it is known.

    Args:
        make: builds the scorer; called twice, as every worker builds its own.
        tolerance: how far scores may lie apart that should be equal. 0 on a CPU; a GPU may round
            differently for batches of different size.
    """
    kit = _Kit(make, tolerance)
    checks: dict[str, Callable[[], str]] = {
        "description": kit.description,
        "length and order": kit.order,
        "batch-mates": kit.batch_mates,
        "determinism": kit.determinism,
        "two instances": kit.instances,
        "unusual pictures": kit.unusual,
        "unusual prompts": kit.unusual_prompts,
        "range": kit.bounds,
        "details": kit.details,
        "pictures untouched": kit.untouched,
        "latency": kit.latency,
        "close": kit.close,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, True, check())
        except _Broken as error:
            yield Finding(name, False, str(error))
        except ScorerContractError as error:
            yield Finding(name, False, str(error))
        except Exception as error:
            said = " ".join(str(error).split())
            yield Finding(name, False, f"it raised {type(error).__name__}: {said}")


class _Broken(Exception):
    """A check failed."""


class _Kit:
    """The checks; each returns what it saw, or raises."""

    def __init__(self, make: Callable[[], Scorer], tolerance: float) -> None:
        self._scorer = make()
        self._other: Scorer | None = make()
        self._tolerance = tolerance
        self._items = pictures(8)

    def description(self) -> str:
        assert self._other is not None
        about = describe(self._scorer)
        again = describe(self._other)
        if about != again:
            raise _Broken(f"two instances describe themselves differently: {about} and {again}")
        return f"{about.name}, version {about.version}, {about.units}, {about.direction}"

    def order(self) -> str:
        scores = self._scores(self._items)
        turned = self._scores(self._items[::-1])[::-1]
        self._require_equal(scores, turned, "when the batch is reversed")
        return f"{len(scores)} scores for {len(self._items)} pictures, in their order"

    def batch_mates(self) -> str:
        together = self._scores(self._items)
        alone = [self._scores([item])[0] for item in self._items]
        self._require_equal(together, alone, "when it is scored alone")
        return "a picture scores the same alone and in a batch"

    def determinism(self) -> str:
        self._require_equal(self._scores(self._items), self._scores(self._items), "a second time")
        return "the same pictures score the same again"

    def instances(self) -> str:
        """What one worker scores, another must score the same: weights drawn anew would differ."""
        assert self._other is not None
        first, second = self._scores(self._items), _scores(self._other, self._items)
        self._require_equal(first, second, "by a second instance")
        # Two copies of a large model may be as much as the machine holds.
        self._other = None
        return "two instances score the same"

    def unusual(self) -> str:
        return self._all_answered([ScoreItem(image, PROMPTS[0]) for image in unusual_images()])

    def unusual_prompts(self) -> str:
        picture = self._items[0].image
        return self._all_answered([ScoreItem(picture, prompt) for prompt in UNUSUAL_PROMPTS])

    def _all_answered(self, items: Sequence[ScoreItem]) -> str:
        outcomes = [self._run([item])[0] for item in items]
        refused = sum(isinstance(outcome, ItemError) for outcome in outcomes)
        return f"{len(items) - refused} scored and {refused} refused of {len(items)}, none raised"

    def bounds(self) -> str:
        low, high = describe(self._scorer).range
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        for score in self._scores(self._items):
            if not low <= score <= high:
                raise _Broken(f"the score {score} lies outside the range [{low}, {high}]")
        return f"finite and within [{low}, {high}]"

    def details(self) -> str:
        keys: set[str] = set()
        for outcome in self._run(self._items):
            if isinstance(outcome, Scored):
                try:
                    answer = ItemResult(score=outcome.score, details=dict(outcome.details))
                    json.dumps(answer.details, allow_nan=False)
                except ValidationError as error:
                    where = ".".join(map(str, error.errors()[0]["loc"][1:]))
                    raise _Broken(f"details are not JSON: look at {where}") from None
                except ValueError as error:
                    raise _Broken(f"details are not JSON: {error}") from None
                keys.update(outcome.details)
        return f"JSON with {', '.join(sorted(keys))}" if keys else "none"

    def untouched(self) -> str:
        before = [item.image.copy() for item in self._items]
        self._run(self._items)
        if any(
            not np.array_equal(old, item.image)
            for old, item in zip(before, self._items, strict=True)
        ):
            raise _Broken("score() wrote into the pictures it was given")
        return "score() leaves its input as it was"

    def latency(self) -> str:
        largest = describe(self._scorer).max_batch_size
        sizes = [2**k for k in range(largest.bit_length()) if 2**k < largest] + [largest]
        return ", ".join(f"{size}: {self._ms(size):.2f}" for size in sizes) + " ms per batch"

    def _ms(self, size: int) -> float:
        items = pictures(size)
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            self._run(items)
            times.append(time.perf_counter() - started)
        return statistics.median(times) * 1000

    def close(self) -> str:
        """The last check: what is closed scores no more."""
        close = getattr(self._scorer, "close", None)
        if not callable(close):
            return "nothing to close"
        close()
        return "closed"

    def _run(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        return run_scorer(self._scorer, items)

    def _scores(self, items: Sequence[ScoreItem]) -> list[float]:
        return _scores(self._scorer, items)

    def _require_equal(self, first: Sequence[float], second: Sequence[float], when: str) -> None:
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            if abs(one - other) > self._tolerance:
                raise _Broken(f"picture {index} scores {one!r}, but {other!r} {when}")


def _scores(scorer: Scorer, items: Sequence[ScoreItem]) -> list[float]:
    scores = []
    for outcome in run_scorer(scorer, items):
        if isinstance(outcome, ItemError):
            raise _Broken(f"an ordinary picture was refused: {outcome.message}")
        scores.append(outcome.score)
    return scores


def pictures(count: int, side: int = 64) -> list[ScoreItem]:
    """`count` different pictures, of `side` × `side` pixels, the same on every call."""
    rows, columns = np.mgrid[0:side, 0:side]
    items = []
    for index in range(count):
        waves = np.stack(
            [
                np.sin(rows / (3 + index) + columns / 7 + index),
                np.cos(columns / (2 + index) - rows / 11),
                np.sin((rows * columns) / (40 + 9 * index)),
            ],
            axis=-1,
        )
        image = np.round(127.5 + 127.5 * waves).astype(np.uint8)
        items.append(ScoreItem(image, PROMPTS[index % len(PROMPTS)], {"index": index}))
    return items


def unusual_images() -> list[np.ndarray]:
    """Whole but odd: tiny, long and thin, of one colour, pure noise, and large."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    return [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((1, 1024, 3), np.uint8),
        np.zeros((1024, 1, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.full((64, 64, 3), 255, np.uint8),
        noise,
        np.tile(noise, (12, 16, 1)),
    ]
