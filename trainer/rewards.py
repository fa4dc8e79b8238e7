"""Pictures to rewards over HTTP: requested as soon as a batch is sampled, awaited before training.

What can go wrong, and what is done about it:

- the service is away (no connection, 429, 503, 504): the same pictures are sent again until
  `max_outage_s` is over, then `Outage`. Waiting never changes a result;
- one picture can never be scored: it has no reward and is masked. It never gets a made-up one;
- the service answers as another reward than the one pinned at the start: the run stops;
- the request itself is refused (4xx), or the service is broken (500): the run stops.
"""

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from shared.client import SyncRewardClient
from shared.errors import RewardError, ServiceUnavailable, Unauthorized
from shared.schema import Identity, ItemFault, ScoreResponse, ServiceInfo
from trainer.scores import NOT_FINITE, Images, Scores
from trainer.stops import Outage, RunStopped

_POLL_S = 0.2
_ITEM_TRIES = 3  # a retryable fault of one picture: sent this often, then masked
_START_DEADLINE_S = 5.0
_NOTIFY_EVERY_S = 30.0


@dataclass(frozen=True)
class RewardSource:
    """One reward of a run.

    Attributes:
        name: what the run calls it.
        url: where its service listens.
        api_key: bearer key that the service asks for, None when it asks for none.
    """

    name: str
    url: str
    api_key: str | None = None


@dataclass
class _Request:
    """Some pictures on their way to one service."""

    source: RewardSource
    rows: list[int]  # where the scores belong in the epoch
    images: Images
    prompts: list[str]
    key: str  # Idempotency-Key
    future: Future[ScoreResponse]
    sent_at: float
    tries: int


@dataclass
class Pending:
    """Everything of one epoch that has been submitted so far."""

    valid: list[bool] = field(default_factory=list)
    requests: list[_Request] = field(default_factory=list)


class RewardServices:
    """The rewards of a run. Use as a context manager: it holds connections and threads.

    Args:
        sources: the rewards, at least one.
        deadline_s: how long one request may take before it counts as lost.
        max_outage_s: how long a service may stay away.
        notify: gets one line for the person at the terminal when an outage begins or ends.
    """

    def __init__(
        self,
        sources: Sequence[RewardSource],
        *,
        deadline_s: float,
        max_outage_s: float,
        notify: Callable[[str], None],
    ) -> None:
        self._sources = list(sources)
        self._deadline_s = deadline_s
        self._max_outage_s = max_outage_s
        self._notify = notify
        self._clients: dict[str, SyncRewardClient] = {}
        self._away_since: dict[str, float] = {}
        self._last_answer: dict[str, float] = {}
        self._notified_at = -math.inf
        self.infos: dict[str, ServiceInfo] = {}
        self.identities: dict[str, Identity] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()

    def connect(self, pinned: Mapping[str, Identity] | None = None) -> None:
        """Ask every service what it is, and pin the answer for the rest of the run.

        Args:
            pinned: identities from a checkpoint, which the services must still have.

        Raises:
            RunStopped: a service cannot be reached, or is another reward than before.
        """
        for source in self._sources:
            try:
                client = SyncRewardClient(
                    source.url, api_key=source.api_key, deadline_s=_START_DEADLINE_S
                )
                self._clients[source.name] = client
                info = client.info()
            except ServiceUnavailable as error:
                raise RunStopped(
                    f"the reward service {source.name} at {source.url} cannot be reached "
                    f"({error}); start it with `reward-services serve {source.name}` or correct "
                    f"--reward {source.name}=URL"
                ) from error
            except RewardError as error:
                hint = (
                    "; name the environment variable that holds the key in "
                    f"rewards.{source.name}.api_key_env"
                )
                raise RunStopped(
                    f"the reward service {source.name} at {source.url} cannot be used: {error}"
                    f"{hint if isinstance(error, Unauthorized) else ''}"
                ) from error
            self.infos[source.name] = info
            self.identities[source.name] = (pinned or {}).get(source.name, info.identity)
            self._check_identity(source, info.identity)

    def submit(
        self, pending: Pending, images: Images, prompts: Sequence[str], valid: Sequence[bool]
    ) -> None:
        """Send a batch to every reward and return at once.

        Args:
            pending: collects what is on its way.
            images: uint8 (B, H, W, 3).
            prompts: B prompts.
            valid: B flags; a picture whose flag is False is not sent and gets no score.
        """
        start = len(pending.valid)
        pending.valid.extend(bool(flag) for flag in valid)
        rows = [start + i for i, flag in enumerate(valid) if flag]
        if not rows:
            return
        sent = images[[row - start for row in rows]]
        words = [prompts[row - start] for row in rows]
        for source in self._sources:
            pending.requests.append(self._request(source, rows, sent, words))

    def collect(self, pending: Pending, check: Callable[[], None]) -> Scores:
        """Wait for every score of an epoch.

        Args:
            pending: what `submit` filled.
            check: called while waiting; may raise to leave the wait.

        Raises:
            Outage: a service stayed away longer than `max_outage_s`.
            RunStopped: a request was refused, or a service is no longer the same reward.
        """
        began = time.monotonic()
        count = len(pending.valid)
        by_reward = {source.name: np.full(count, np.nan) for source in self._sources}
        sampled = np.array(pending.valid, dtype=np.bool_)
        faults = Counter({NOT_FINITE: count - int(sampled.sum())})
        example, scoring_s = "", 0.0
        queue = list(pending.requests)
        while queue:
            request = queue.pop(0)
            response = self._response(request, check)
            scoring_s += response.durations.inference_s
            again = []
            for row, result in zip(request.rows, response.results, strict=True):
                if result.score is not None:
                    by_reward[request.source.name][row] = result.score
                elif result.error is not None and self._may_retry(request, result.error):
                    again.append(request.rows.index(row))
                elif result.error is not None:
                    faults[result.error.code] += 1
                    example = f"{result.error.code}: {result.error.message}"
            if again:
                queue.append(self._repeat(request, again))
        valid = sampled.copy()
        for scores in by_reward.values():
            valid &= np.isfinite(scores)
        wait_s = time.monotonic() - began
        return Scores(by_reward, valid, +faults, example, wait_s, scoring_s)

    def _request(
        self,
        source: RewardSource,
        rows: list[int],
        images: Images,
        prompts: list[str],
        tries: int = 1,
    ) -> _Request:
        """Send pictures, under a key of their own that every sending after an outage repeats."""
        key = uuid.uuid4().hex
        future = self._submit(source, images, prompts, key)
        return _Request(source, rows, images, prompts, key, future, time.monotonic(), tries)

    def _submit(
        self, source: RewardSource, images: Images, prompts: list[str], key: str
    ) -> Future[ScoreResponse]:
        away = time.monotonic() - self._away_since.get(source.name, math.inf)
        left = max(_POLL_S, self._max_outage_s - max(away, 0.0))
        return self._clients[source.name].submit(
            images, prompts, idempotency_key=key, deadline_s=min(self._deadline_s, left)
        )

    def _repeat(self, request: _Request, local: Sequence[int]) -> _Request:
        """Some pictures of a request once more."""
        rows = [request.rows[i] for i in local]
        images = request.images[list(local)]
        prompts = [request.prompts[i] for i in local]
        return self._request(request.source, rows, images, prompts, request.tries + 1)

    @staticmethod
    def _may_retry(request: _Request, fault: ItemFault) -> bool:
        return fault.retryable and request.tries < _ITEM_TRIES

    def _response(self, request: _Request, check: Callable[[], None]) -> ScoreResponse:
        """The answer to a request, sent again for as long as its service is away."""
        source = request.source
        while True:
            while not wait([request.future], timeout=_POLL_S).done:
                check()
            try:
                response = request.future.result()
            except ServiceUnavailable as error:
                self._wait_out(request, error, check)
                continue
            except RewardError as error:
                raise RunStopped(
                    f"the reward service {source.name} at {source.url} refused to score: {error}"
                ) from error
            self._check_identity(source, response.identity)
            if self._away_since.pop(source.name, None) is not None:
                self._notify(f"the reward service {source.name} is back")
            self._last_answer[source.name] = time.monotonic()
            return response

    def _wait_out(
        self, request: _Request, error: ServiceUnavailable, check: Callable[[], None]
    ) -> None:
        """Send a request again, or give up when its service has been away for too long."""
        source, now = request.source, time.monotonic()
        began = max(request.sent_at, self._last_answer.get(source.name, -math.inf))
        away_s = now - self._away_since.setdefault(source.name, began)
        if away_s >= self._max_outage_s:
            raise Outage(
                f"the reward service {source.name} at {source.url} has been away for "
                f"{away_s:.0f} s ({error}), longer than scoring.max_outage_s = "
                f"{self._max_outage_s:g}"
            ) from error
        if now - self._notified_at > _NOTIFY_EVERY_S:
            self._notified_at = now
            self._notify(
                f"the reward service {source.name} at {source.url} is away ({error}); waiting, "
                f"{self._max_outage_s - away_s:.0f} s left"
            )
        # The client has waited between its own tries; this bounds a service that fails at once.
        resume_at = now + min(error.retry_after or 1.0, self._max_outage_s - away_s)
        while time.monotonic() < resume_at:
            check()
            time.sleep(_POLL_S)
        request.future = self._submit(source, request.images, request.prompts, request.key)

    def _check_identity(self, source: RewardSource, identity: Identity) -> None:
        pinned = self.identities[source.name]
        if identity != pinned:
            raise RunStopped(
                f"the reward service {source.name} at {source.url} is no longer the reward this "
                f"run started with: {pinned.difference(identity)}; bring the old one back, or "
                "start a new run"
            )
