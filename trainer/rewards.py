"""Pictures to rewards over HTTP: requested as soon as a batch is sampled, awaited before training.

What can go wrong, and what is done about it:

- a replica of a service is away: the others do its work;
- the service is away (no connection, 429, 503, 504): the same pictures are sent again until
  `max_outage_s` is over, then `Outage`. Waiting never changes a result;
- one picture can never be scored: it has no reward and is masked. It never gets a made-up one;
- a service answers as another reward than the one pinned at the start: the run stops;
- the request itself is refused (4xx), or the service is broken (500): the run stops.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from shared.client import Metadata
from shared.schema import Identity, ItemFault
from trainer.reward_service import CONNECTIONS, Request, RewardService, RewardSource
from trainer.scores import NOT_FINITE, Images, Scores
from trainer.scoring_pace import paces

_ITEM_TRIES = 3  # a retryable fault of one picture: sent this often, then masked


@dataclass
class Pending:
    """Everything of one epoch that has been submitted so far."""

    valid: list[bool] = field(default_factory=list)
    requests: list[tuple[RewardService, Request]] = field(default_factory=list)


class RewardServices:
    """The rewards of a run. Use as a context manager: it holds connections and threads.

    Args:
        sources: the rewards, at least one.
        deadline_s: how long one request may take before it counts as lost.
        max_outage_s: how long a service may stay away.
        notify: gets one line for the person at the terminal when an outage begins or ends.
        processes: who ask them; the connections that a run may have are divided among these.
    """

    def __init__(
        self,
        sources: Sequence[RewardSource],
        *,
        deadline_s: float,
        max_outage_s: float,
        notify: Callable[[str], None],
        processes: int = 1,
    ) -> None:
        self._sources = list(sources)
        self._deadline_s = deadline_s
        self._max_outage_s = max_outage_s
        self._notify = notify
        self._connections = max(1, CONNECTIONS // processes)
        self._services: list[RewardService] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for service in self._services:
            service.close()

    @property
    def identities(self) -> dict[str, Identity]:
        """Reward name → what its service is, pinned for the whole run."""
        return {service.name: service.identity for service in self._services}

    def connect(self, pinned: Mapping[str, Identity] | None = None) -> None:
        """Ask every service what it is, and pin the answer for the rest of the run.

        Args:
            pinned: identities from a checkpoint, which the services must still have.

        Raises:
            RunStopped: a service cannot be reached, or is another reward than before.
        """
        for source in self._sources:
            self._services.append(
                RewardService(
                    source,
                    (pinned or {}).get(source.name),
                    deadline_s=self._deadline_s,
                    max_outage_s=self._max_outage_s,
                    notify=self._notify,
                    connections=self._connections,
                )
            )

    def submit(
        self,
        pending: Pending,
        images: Images,
        prompts: Sequence[str],
        valid: Sequence[bool],
        metadata: Metadata = None,
    ) -> None:
        """Send a batch to every reward and return at once.

        Args:
            pending: collects what is on its way.
            images: uint8 (B, H, W, 3).
            prompts: B prompts.
            valid: B flags; a picture whose flag is False is not sent and gets no score.
            metadata: B JSON objects, or None.
        """
        start = len(pending.valid)
        pending.valid.extend(bool(flag) for flag in valid)
        rows = [start + i for i, flag in enumerate(valid) if flag]
        if not rows:
            return
        sent = images[[row - start for row in rows]]
        words = [prompts[row - start] for row in rows]
        told = None if metadata is None else [metadata[row - start] for row in rows]
        for service in self._services:
            pending.requests.append((service, service.send(rows, sent, words, told)))

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
        by_reward = {service.name: np.full(count, np.nan) for service in self._services}
        sampled = np.array(pending.valid, dtype=np.bool_)
        faults = Counter({NOT_FINITE: count - int(sampled.sum())})
        example, scoring_s = "", 0.0
        queue, answered = list(pending.requests), []
        while queue:
            service, request = queue.pop(0)
            response = service.answer(request, check)
            scoring_s += response.durations.inference_s
            # The answer may be known a moment before the time it came.
            answered.append(
                (service.name, request.sent_at, request.answered_at or time.monotonic())
            )
            again = []
            for i, result in enumerate(response.results):
                if result.score is not None:
                    by_reward[service.name][request.rows[i]] = result.score
                elif result.error is not None and _may_retry(request, result.error):
                    again.append(i)
                elif result.error is not None:
                    faults[result.error.code] += 1
                    teller = f"{service.name}: " if len(self._services) > 1 else ""
                    example = f"{teller}{result.error.code}: {result.error.message}"
            if again:
                queue.append((service, service.send_again(request, again)))
        valid = sampled.copy()
        for scores in by_reward.values():
            valid &= np.isfinite(scores)
        wait_s = time.monotonic() - began
        pace = paces(answered, began)
        return Scores(by_reward, valid, +faults, example, wait_s, scoring_s, pace)


def _may_retry(request: Request, fault: ItemFault) -> bool:
    return fault.retryable and request.tries < _ITEM_TRIES
