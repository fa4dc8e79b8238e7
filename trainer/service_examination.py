"""Whether a reward service can be trained on: there, ready, and a function of the picture.

Every replica is asked on its own. Differences between scores that should be equal are held against
the spread of the scores over clearly different pictures: what is small beside it is rounding.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from shared.client import SyncRewardClient
from shared.errors import DeadlineExceeded, RewardError, Unauthorized
from shared.schema import ScoreResponse, ServiceInfo
from trainer.findings import Finding, ok, problem, warning
from trainer.reward_service import RewardSource
from trainer.scores import Images

_READY_TIMEOUT_S = 5.0
_ROUNDING = 1e-3
"""Share of the spread up to which a difference is rounding, not noise."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """What a run will send.

    Attributes:
        batch_size: pictures at once.
        height, width: of each.
        prompts: some prompts of the run.
        metadata: a JSON object for each, or None.
        deadline_s: how long one request may take.
    """

    batch_size: int
    height: int
    width: int
    prompts: Sequence[str]
    metadata: Sequence[Mapping[str, Any]] | None
    deadline_s: float


@dataclass
class ServiceExamination:
    """The checks of one replica of a reward. `reach` comes before `score`.

    Attributes:
        source: the reward.
        url: the replica.
        kind: `reward` or `monitor`.
        info: what it said of itself; None before `reach`, and when it could not be reached.
        seconds: how long a request of the run's size took; None before `score`.
    """

    source: RewardSource
    url: str
    kind: str
    info: ServiceInfo | None = None
    seconds: float | None = field(default=None, init=False)

    @property
    def check(self) -> str:
        """What findings about it are called."""
        return f"{self.kind} {self.source.name} at {self.url}"

    def reach(self) -> Iterator[Finding]:
        """Is it there, is it ready, and what is it?"""
        try:
            ready = httpx.get(
                f"{self.url.rstrip('/')}/readyz", timeout=_READY_TIMEOUT_S, trust_env=False
            )
        except httpx.HTTPError as error:
            yield problem(self.check, self._unreachable(error))
            return
        said = _body(ready)
        if ready.status_code != httpx.codes.OK:
            reason = said.get("message", f"HTTP {ready.status_code} at /readyz")
            yield problem(
                self.check,
                f"it is not ready ({reason}): wait until a worker has loaded its weights, or "
                f"correct --{self.kind} {self.source.name}=URL",
            )
            return
        try:
            with self._client(_READY_TIMEOUT_S) as client:
                info = client.info()
        except RewardError as error:
            yield problem(self.check, self._unreachable(error))
            return
        self.info = info
        about = f"{info.name}, version {info.version}, {info.units}, to {info.direction}"
        yield ok(self.check, f"{about}; scores {info.max_batch_size} pictures at a time")
        if said.get("workers") == 0:
            yield warning(self.check, f"{said.get('message', 'no worker shows life')}")

    def score(self, asked: Request) -> Iterator[Finding]:
        """Does it score pictures as a run needs it?"""
        info = self.info
        assert info is not None
        if asked.height * asked.width > info.limits.max_pixels:
            yield problem(
                self.check,
                f"the run's pictures have {asked.width}×{asked.height} pixels, more than the "
                f"{info.limits.max_pixels} that it takes: raise REWARD_MAX_PIXELS where it runs",
            )
            return
        images = clearly_different(asked.height, asked.width)
        try:
            with self._client(asked.deadline_s) as client:
                yield from self._judge(info, *self._asked(client, asked, images))
        except DeadlineExceeded as error:
            yield problem(
                self.check,
                f"{asked.batch_size} pictures were not scored within scoring.deadline_s = "
                f"{asked.deadline_s:g} ({error}): raise it, or add workers",
            )
        except _Refused as refused:
            yield problem(self.check, str(refused))
        except RewardError as error:
            yield problem(self.check, f"it does not score: {error}")

    def _asked(
        self, client: SyncRewardClient, asked: Request, images: Images
    ) -> tuple[Floats, Floats, Floats]:
        """Scores of the pictures in a batch of the run's size, again, and each alone: (N,) each."""
        count, size = len(images), max(len(images), asked.batch_size)
        rows = [row % count for row in range(size)]
        prompts = [asked.prompts[row % len(asked.prompts)] for row in range(count)]
        known = asked.metadata
        told = None if known is None else [known[row % len(known)] for row in range(count)]

        def scored(rows: Sequence[int]) -> Floats:
            metadata = None if told is None else [told[row] for row in rows]
            answer = client.score(images[list(rows)], [prompts[row] for row in rows], metadata)
            return _values(answer)

        began = time.monotonic()
        first = scored(rows)
        self.seconds = (time.monotonic() - began) * asked.batch_size / size
        again = scored(rows)
        alone = np.concatenate([scored([row]) for row in range(count)])
        return first[:count], again[:count], alone

    def _judge(
        self, info: ServiceInfo, first: Floats, again: Floats, alone: Floats
    ) -> Iterator[Finding]:
        low, high = info.range
        outside = [
            x for x in first if (low is not None and x < low) or (high is not None and x > high)
        ]
        if outside:
            yield problem(
                self.check,
                f"it gave {outside[0]:g}, outside the range {_range(info)} that it states: correct "
                "the reward's `range`, or what it computes",
            )
        spread = float(first.max() - first.min())
        again_off, alone_off = _distance(first, again), _distance(first, alone)
        if spread == 0 and again_off == 0:
            yield problem(
                self.check,
                f"it gave {first[0]:g} to all {len(first)} clearly different pictures, so there is "
                "nothing to learn from: use a reward that tells pictures apart",
            )
            return
        noisy = again_off > _ROUNDING * spread
        if noisy:
            row = int(np.abs(first - again).argmax())
            yield problem(
                self.check,
                f"it gave the same picture {first[row]:.6g} and then {again[row]:.6g}, so no run "
                "with it can be repeated: take the randomness out (greedy decoding, evaluation "
                "mode, a fixed seed); `reward-services check` shows it offline",
            )
        elif alone_off > _ROUNDING * spread:
            row = int(np.abs(first - alone).argmax())
            yield problem(
                self.check,
                f"it gave a picture {first[row]:.6g} in a batch and {alone[row]:.6g} alone: the "
                "score must not depend on the pictures beside it; score them one by one, or pad "
                "them alike",
            )
        elif again_off or alone_off:
            yield warning(
                self.check,
                f"scores of the same picture differ by {max(again_off, alone_off):.2g}, little "
                f"beside their spread of {spread:.3g}: rounding, which a resumed run may show",
            )
        if not noisy and not outside:
            yield ok(
                self.check,
                f"{len(first)} different pictures score {first.min():.4g} to {first.max():.4g}",
            )

    def _client(self, deadline_s: float) -> SyncRewardClient:
        return SyncRewardClient(self.url, api_key=self.source.api_key, deadline_s=deadline_s)

    def _unreachable(self, error: Exception) -> str:
        name = self.source.name
        if isinstance(error, Unauthorized):
            setting = f"{self.kind}s.{name}.api_key_env"
            return f"it asks for a key ({error}): name the variable that holds it in {setting}"
        reason = " ".join(str(error).split()) or type(error).__name__
        return (
            f"it cannot be reached ({reason}): start it with `reward-services serve {name}`, or "
            f"correct --{self.kind} {name}=URL"
        )


def clearly_different(height: int, width: int) -> Images:
    """Pictures that no two of which look alike: uint8 (6, H, W, 3), the same on every call."""
    rows, columns = np.mgrid[0:height, 0:width]
    down, across = rows / max(1, height - 1), columns / max(1, width - 1)
    disc = (down - 0.5) ** 2 + (across - 0.5) ** 2 < 0.1
    noise = np.random.default_rng(0).random((height, width, 3))
    shades = [
        np.full((height, width, 3), 0.8),
        np.stack([down, across, 1 - down], axis=-1),
        noise,
        np.repeat(((rows // 4 + columns // 4) % 2)[..., None], 3, axis=-1),
        np.stack([disc * 0.9, disc * 0.5, 0.2 + 0 * down], axis=-1),
        0.15 + 0.1 * noise,
    ]
    return np.stack([np.round(255 * shade).astype(np.uint8) for shade in shades])


class _Refused(Exception):
    """A picture got no score."""


def _values(answer: ScoreResponse) -> Floats:
    """The scores.

    Raises:
        _Refused: a picture has none.
    """
    faults = [each.error for each in answer.results if each.error is not None]
    if faults:
        raise _Refused(
            f"it refused {len(faults)} of {len(answer.results)} pictures ({faults[0].code}: "
            f"{faults[0].message}): does it suit the run's prompts?"
        )
    return np.array([each.score for each in answer.results], np.float64)


def _distance(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).max())


def _range(info: ServiceInfo) -> str:
    low, high = info.range
    return f"[{'−∞' if low is None else f'{low:g}'}, {'∞' if high is None else f'{high:g}'}]"


def _body(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty where it holds none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
