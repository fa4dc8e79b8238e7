"""The wire: what a reward service says about itself, about a request and about each picture.

Every model is frozen. A reader ignores fields it does not know, so a service may add some without
breaking older trainers; a change that would break them raises `SCHEMA_VERSION`.

A `ScoreResponse` holds exactly one `ItemResult` per picture, in the order of the request. An item
holds either a finite score or an `ItemFault`: nothing else ever stands in for a missing score.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

SCHEMA_VERSION = 1

SAFETENSORS = "application/vnd.safetensors"
"""Media type of the trainer's request body (see `shared.wire`)."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""Request header: a repeated request with the same key gets the stored result."""

REQUEST_ID = "X-Request-Id"
"""Header of requests and answers that ties the logs of both sides together."""

DEADLINE = "X-Deadline-Seconds"
"""Request header: how long the client still waits, in seconds; work beyond it is in vain."""

LANE = "X-Lane"
"""Request header: `interactive` or `bulk`, the queue that a request waits in."""

Direction = Literal["maximize", "minimize"]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class Identity(_Wire):
    """What a score means. Two scores are comparable only when all four fields agree."""

    name: str = Field(min_length=1)
    version: str = Field(min_length=1, description="hash of the weights or of the formula")
    units: str = Field(min_length=1)
    direction: Direction

    def difference(self, other: "Identity") -> str:
        """The fields that differ, as `field 'mine' != 'theirs'`, joined by commas; may be empty."""
        mine, theirs = self.model_dump(), other.model_dump()
        return ", ".join(f"{k} {mine[k]!r} != {theirs[k]!r}" for k in mine if mine[k] != theirs[k])


class Limits(_Wire):
    """The largest request that a service takes."""

    max_items: int = Field(gt=0)
    max_body_bytes: int = Field(gt=0)
    max_pixels: int = Field(gt=0, description="width times height of one picture")


class ServiceInfo(_Wire):
    """Answer of `GET /info`."""

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    units: str = Field(min_length=1)
    direction: Direction
    range: tuple[FiniteFloat | None, FiniteFloat | None] = Field(
        description="smallest and largest possible score; null where there is no bound"
    )
    max_batch_size: int = Field(gt=0, description="items per call of the scorer")
    limits: Limits
    needs_prompt: bool = True
    schema_version: int = SCHEMA_VERSION

    @property
    def identity(self) -> Identity:
        """Name, version, units and direction."""
        return Identity(
            name=self.name, version=self.version, units=self.units, direction=self.direction
        )


class ItemFault(_Wire):
    """Why one picture has no score."""

    code: str = Field(min_length=1, description="machine code, e.g. image_unreadable")
    message: str = Field(min_length=1, description="one sentence that says what to change")
    retryable: bool = Field(description="whether the same picture may be scored later")


class ItemResult(_Wire):
    """Outcome for one picture: a finite `score`, or the `error` that took its place."""

    score: FiniteFloat | None = None
    details: dict[str, JsonValue] = Field(default_factory=dict)
    error: ItemFault | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.score is None) == (self.error is None):
            raise ValueError("an item holds either a score or an error, never both and never none")
        return self


class Durations(_Wire):
    """Where the time of a request went, in seconds, each from one process's monotonic clock."""

    queue_s: Seconds = Field(description="longest wait of an item in the queue")
    batch_wait_s: Seconds = Field(description="longest wait of an item for its batch to fill")
    inference_s: Seconds = Field(description="sum over the calls of the scorer")


class ScoreResponse(_Wire):
    """Answer of `POST /score`: one result per picture, in the order of the request."""

    reward: str = Field(min_length=1)
    version: str = Field(min_length=1)
    units: str = Field(min_length=1)
    direction: Direction
    results: list[ItemResult]
    durations: Durations
    request_id: str

    @property
    def identity(self) -> Identity:
        """Name, version, units and direction of the reward that gave these scores."""
        return Identity(
            name=self.reward, version=self.version, units=self.units, direction=self.direction
        )


class ErrorBody(_Wire):
    """Body of every 4xx and 5xx answer; `code` names a class of `shared.errors`."""

    code: str = Field(min_length=1)
    message: str
    retryable: bool
    request_id: str = ""


class JobStatus(_Wire):
    """Answer of `POST /jobs` and `GET /jobs/{id}`."""

    id: str
    status: Literal["waiting", "running", "finished", "failed"]
    response: ScoreResponse | None = Field(default=None, description="of a finished job")
    error: ErrorBody | None = Field(default=None, description="of a failed job")
