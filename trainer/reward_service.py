"""One reward of a run: its service, asked over HTTP, and what is done while it is away.

The service may have any number of replicas, over which the client spreads the requests
(`shared.replicas`). It is away when not one of them can be used. The same pictures are then sent
again under the same key until `max_outage_s` is over: waiting never changes a result.
"""

import math
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from shared.client import Metadata, SyncRewardClient
from shared.errors import IdentityMismatch, RewardError, ServiceUnavailable, Unauthorized
from shared.schema import Identity, ScoreResponse
from trainer.scores import Images
from trainer.stops import Outage, RunStopped

CONNECTIONS = 8
"""Requests to a service at a time, of a whole run."""

_POLL_S = 0.2
_START_DEADLINE_S = 5.0
_NOTIFY_EVERY_S = 30.0


@dataclass(frozen=True)
class RewardSource:
    """One reward of a run.

    Attributes:
        name: what the run calls it.
        urls: where its service listens, or its replicas; at least one.
        api_key: bearer key that the service asks for, None when it asks for none.
    """

    name: str
    urls: tuple[str, ...]
    api_key: str | None = None


@dataclass
class Request:
    """Some pictures on their way to a service.

    Attributes:
        rows: where the scores belong in the epoch.
        images: uint8 (B, H, W, 3).
        prompts: B prompts.
        metadata: B JSON objects, or None.
        tries: how often these pictures have been sent, repetitions after an outage not counted.
        key: Idempotency-Key, which those repetitions keep.
        sent_at: monotonic time.
        future: the answer.
        answered_at: monotonic time at which the answer came; None before.
    """

    rows: list[int]
    images: Images
    prompts: list[str]
    metadata: Metadata
    tries: int
    key: str
    sent_at: float
    future: Future[ScoreResponse]
    answered_at: float | None = None

    def note_the_answer(self) -> None:
        """Keep when the future is done, whenever it is looked at."""
        self.future.add_done_callback(lambda _: setattr(self, "answered_at", time.monotonic()))


class RewardService:
    """The service of one reward. Holds connections and a thread until `close`.

    Args:
        source: the reward.
        pinned: identity from a checkpoint, which the service must still have.
        deadline_s: how long one request may take before it counts as lost.
        max_outage_s: how long the service may stay away.
        connections: requests to it at a time.
        notify: gets one line for the person at the terminal when an outage begins or ends.

    Raises:
        RunStopped: no replica can be reached, or one is another reward than the others or than
            the pinned one.
    """

    def __init__(
        self,
        source: RewardSource,
        pinned: Identity | None,
        *,
        deadline_s: float,
        max_outage_s: float,
        notify: Callable[[str], None],
        connections: int = CONNECTIONS,
    ) -> None:
        self.name = source.name
        self._urls = " and ".join(source.urls)
        self._deadline_s = deadline_s
        self._max_outage_s = max_outage_s
        self._notify = notify
        self._away_since: float | None = None
        self._last_answer = -math.inf
        self._notified_at = -math.inf
        self._replicas_away: set[str] = set()
        try:
            self._client = SyncRewardClient(
                source.urls,
                api_key=source.api_key,
                deadline_s=_START_DEADLINE_S,
                max_connections=connections,
                expected_identity=pinned,
            )
        except RewardError as error:
            raise self._unusable(error) from error
        try:
            self.identity = self._asked(pinned)
        except RunStopped:
            self.close()
            raise
        self._tell_of_replicas()

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._client.close()

    def send(
        self,
        rows: list[int],
        images: Images,
        prompts: list[str],
        metadata: Metadata = None,
        tries: int = 1,
    ) -> Request:
        """Send pictures, under a key of their own, and return at once."""
        key = uuid.uuid4().hex
        future = self._submit(images, prompts, metadata, key)
        sent_at = time.monotonic()
        request = Request(rows, images, prompts, metadata, tries, key, sent_at, future)
        request.note_the_answer()
        return request

    def send_again(self, request: Request, local: Sequence[int]) -> Request:
        """Send some pictures of a request once more, to be scored anew."""
        rows = [request.rows[i] for i in local]
        prompts = [request.prompts[i] for i in local]
        metadata = None if request.metadata is None else [request.metadata[i] for i in local]
        return self.send(rows, request.images[list(local)], prompts, metadata, request.tries + 1)

    def answer(self, request: Request, check: Callable[[], None]) -> ScoreResponse:
        """The answer to a request, which is sent again for as long as the service is away.

        Args:
            request: what `send` returned.
            check: called while waiting; may raise to leave the wait.

        Raises:
            Outage: the service stayed away longer than `max_outage_s`.
            RunStopped: the request was refused, or a replica is no longer the same reward.
        """
        while True:
            while not wait([request.future], timeout=_POLL_S).done:
                check()
                self._watch(request)
            try:
                response = request.future.result()
            except ServiceUnavailable as error:
                self._wait_out(request, error, check)
            except IdentityMismatch as error:
                raise self._replaced(error) from error
            except RewardError as error:
                raise RunStopped(
                    f"the reward service {self.name} refused to score: {error}"
                ) from error
            else:
                if self._away_since is not None:
                    self._notify(f"the reward service {self.name} is back")
                self._away_since, self._last_answer = None, time.monotonic()
                self._tell_of_replicas()
                return response

    def _asked(self, pinned: Identity | None) -> Identity:
        """What the service says it is, all replicas alike."""
        try:
            return self._client.info().identity
        except ServiceUnavailable as error:
            raise RunStopped(
                f"the reward service {self.name} at {self._urls} cannot be reached ({error}); "
                f"start it with `reward-services serve {self.name}` or correct "
                f"--reward {self.name}=URL"
            ) from error
        except IdentityMismatch as error:
            if pinned is not None:
                raise self._replaced(error) from error
            raise RunStopped(
                f"the replicas of the reward service {self.name} are not the same: {error}; start "
                "them with the same weights, or leave one out"
            ) from error
        except RewardError as error:
            raise self._unusable(error) from error

    def _submit(
        self, images: Images, prompts: list[str], metadata: Metadata, key: str
    ) -> Future[ScoreResponse]:
        return self._client.submit(
            images, prompts, metadata, idempotency_key=key, deadline_s=self._deadline_s
        )

    def _watch(self, request: Request) -> None:
        """Notice an outage while the client tries again; a slow answer is none."""
        away = self._client.away
        if len(away) < len(self._client.urls):
            return
        if self._away_since is None:
            self._away_since = time.monotonic()
        try:
            self._outage_left_s("; ".join(away.values()))
        except Outage:
            request.future.cancel()
            raise

    def _outage_left_s(self, reason: str) -> float:
        """How long the outage that goes on since `_away_since` may still last.

        Raises:
            Outage: it has lasted too long.
        """
        assert self._away_since is not None
        now = time.monotonic()
        away_s = now - self._away_since
        if away_s >= self._max_outage_s:
            raise Outage(
                f"the reward service {self.name} has been away for {away_s:.0f} s ({reason}), "
                f"longer than scoring.max_outage_s = {self._max_outage_s:g}"
            )
        left_s = self._max_outage_s - away_s
        if now - self._notified_at > _NOTIFY_EVERY_S:
            self._notified_at = now
            self._notify(
                f"the reward service {self.name} is away ({reason}); waiting, {left_s:.0f} s left"
            )
        return left_s

    def _wait_out(
        self, request: Request, error: ServiceUnavailable, check: Callable[[], None]
    ) -> None:
        """Send a request again, or give up when the service has been away for too long."""
        if self._away_since is None:  # it hung, or was busy, for as long as the request lived
            # That may be long ago, when the run drew pictures or waited for another reward since.
            lived_from = max(request.sent_at, time.monotonic() - self._deadline_s)
            self._away_since = max(lived_from, self._last_answer)
        left_s = self._outage_left_s(str(error))
        # The client has waited between its own tries; this bounds a service that fails at once.
        resume_at = time.monotonic() + min(error.retry_after or 1.0, left_s)
        while time.monotonic() < resume_at:
            check()
            time.sleep(_POLL_S)
        request.future = self._submit(
            request.images, request.prompts, request.metadata, request.key
        )
        request.note_the_answer()

    def _tell_of_replicas(self) -> None:
        """Say which replicas have gone and come; they change nothing but the speed."""
        away, urls = self._client.away, self._client.urls
        for url in away.keys() - self._replicas_away:
            left = f"going on with {len(urls) - len(away)} of {len(urls)}"
            self._notify(
                f"a replica of the reward service {self.name} is away: {away[url]}; {left}"
            )
        for url in self._replicas_away - away.keys():
            self._notify(f"the replica {url} of the reward service {self.name} is back")
        self._replicas_away = set(away)

    def _replaced(self, error: IdentityMismatch) -> RunStopped:
        return RunStopped(
            f"the reward service {self.name} is no longer the reward this run started with: "
            f"{error}; bring the old one back, or start a new run"
        )

    def _unusable(self, error: RewardError) -> RunStopped:
        hint = (
            f"; name the environment variable that holds the key in rewards.{self.name}.api_key_env"
        )
        return RunStopped(
            f"the reward service {self.name} at {self._urls} cannot be used: {error}"
            f"{hint if isinstance(error, Unauthorized) else ''}"
        )
