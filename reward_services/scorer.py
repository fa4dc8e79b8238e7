"""What a reward is: a name, a batch size, and one score per item in the order given.

A scorer knows nothing of HTTP, queues or batching, so the same class serves requests and
scores files offline. Its output is checked here, once, for every caller.
"""

import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.schema import Direction, Identity, Limits, ServiceInfo


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """One picture to score.

    Attributes:
        image: uint8, shape (height, width, 3), RGB, 0..255; not to be written to.
        prompt: the text the picture was made for; "" where the sender gave none.
        metadata: whatever else the sender says about the picture, as JSON values.
    """

    image: NDArray[np.uint8]
    prompt: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pil(self) -> Image.Image:
        """The picture as a PIL image in mode RGB (a copy)."""
        return Image.fromarray(self.image)


@dataclass(frozen=True, slots=True)
class Scored:
    """A score with what led to it: `details` is shown to the caller and must be JSON."""

    score: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ItemError:
    """This one picture cannot be scored; its batch-mates are not touched.

    Set `retryable` where the same picture might score later.
    """

    message: str
    code: str = "not_scorable"
    retryable: bool = False


Outcome = float | Scored | ItemError


@runtime_checkable
class Scorer(Protocol):
    """The whole contract of a reward; everything but these three members is optional.

    Optional attributes, with what they default to: `version` (a hash of the source file),
    `units` ("score"), `direction` ("maximize"), `range` ((None, None)), `needs_prompt` (True),
    `close()`.
    """

    name: str
    max_batch_size: int

    def score(self, items: Sequence[ScoreItem]) -> Sequence[Outcome]:
        """Return one outcome per item, in the order given.

        The score of an item may not depend on the items beside it.
        """
        ...


class ScorerContractError(Exception):
    """A scorer broke the contract; the message names the scorer and what it did."""


@dataclass(frozen=True, slots=True)
class ScorerDescription:
    """What a scorer says about itself, with the defaults filled in."""

    name: str
    version: str
    units: str
    direction: Direction
    range: tuple[float | None, float | None]
    max_batch_size: int
    needs_prompt: bool

    @property
    def identity(self) -> Identity:
        """What a trainer pins: the same identity means comparable scores."""
        return Identity(
            name=self.name, version=self.version, units=self.units, direction=self.direction
        )

    def info(self, limits: Limits) -> ServiceInfo:
        """What `GET /info` answers for this scorer behind the given limits."""
        return ServiceInfo(
            **self.identity.model_dump(),
            range=self.range,
            max_batch_size=self.max_batch_size,
            limits=limits,
            needs_prompt=self.needs_prompt,
        )


def describe(scorer: Scorer) -> ScorerDescription:
    """Read a scorer's attributes.

    Raises:
        ScorerContractError: a member is missing or has a value that cannot be used.
    """
    name = getattr(scorer, "name", None)
    if not isinstance(name, str) or not name:
        raise ScorerContractError(f"{_class_name(scorer)} needs a `name`, a text that is not empty")
    size = getattr(scorer, "max_batch_size", None)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ScorerContractError(f"{name}.max_batch_size must be a number from 1, not {size!r}")
    if not callable(getattr(scorer, "score", None)):
        raise ScorerContractError(f"{name} needs a method `score(items)`")
    direction: Direction = getattr(scorer, "direction", "maximize")
    if direction not in ("maximize", "minimize"):
        raise ScorerContractError(
            f'{name}.direction must be "maximize" or "minimize", not {direction!r}'
        )
    units = getattr(scorer, "units", "score")
    if not isinstance(units, str) or not units:
        raise ScorerContractError(f"{name}.units must be a text that is not empty, not {units!r}")
    return ScorerDescription(
        name=name,
        version=str(getattr(scorer, "version", None) or _source_hash(scorer)),
        units=units,
        direction=direction,
        range=_range(name, getattr(scorer, "range", (None, None))),
        max_batch_size=size,
        needs_prompt=bool(getattr(scorer, "needs_prompt", True)),
    )


def run_scorer(scorer: Scorer, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
    """Score `items` and hold the scorer to its contract.

    A score that is not finite becomes an `ItemError` with code `non_finite_score`.

    Raises:
        ScorerContractError: another length than the items have, or something that is no score.
    """
    outcomes: object = scorer.score(items)
    if not isinstance(outcomes, (Sequence, np.ndarray)):
        raise ScorerContractError(
            f"{scorer.name} returned {type(outcomes).__name__}, not a sequence of scores"
        )
    if len(outcomes) != len(items):
        raise ScorerContractError(
            f"{scorer.name} returned {len(outcomes)} results for {len(items)} items"
        )
    return [_checked(scorer.name, outcome) for outcome in outcomes]


def _checked(name: str, outcome: object) -> Scored | ItemError:
    if isinstance(outcome, ItemError):
        if not (outcome.message and outcome.code):
            raise ScorerContractError(f"{name} refused a picture without a message or a code")
        return outcome
    details: Mapping[str, Any] = {}
    value: object = outcome
    if isinstance(outcome, Scored):
        value, details = outcome.score, outcome.details
    if isinstance(value, (bool, str, bytes)) or not isinstance(value, SupportsFloat):
        raise ScorerContractError(
            f"{name} returned {value!r} ({type(value).__name__}) where a number was due"
        )
    score = float(value)
    if not math.isfinite(score):
        return ItemError(f"{name} gave the score {score}", code="non_finite_score")
    return Scored(score, details)


def _range(name: str, bounds: object) -> tuple[float | None, float | None]:
    if isinstance(bounds, Sequence) and len(bounds) == 2:
        low, high = bounds
        numbers = [each for each in (low, high) if each is not None]
        if all(_is_finite(each) for each in numbers) and numbers == sorted(numbers):
            return low, high
    raise ScorerContractError(
        f"{name}.range must be (lowest, highest), each a finite number or None for no bound, "
        f"not {bounds!r}"
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _class_name(scorer: object) -> str:
    return f"{type(scorer).__module__}:{type(scorer).__qualname__}"


def _source_hash(scorer: object) -> str:
    """A version for a scorer that names none: its source file, so that an edit shows."""
    try:
        source = inspect.getsource(inspect.getmodule(type(scorer)) or type(scorer))
    except (OSError, TypeError):
        raise ScorerContractError(
            f"{_class_name(scorer)} has no readable source: give it a `version`"
        ) from None
    return f"source-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
