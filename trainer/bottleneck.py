"""What a run spends its time on, and in one sentence what would make it faster."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.scoring_pace import slowest

REWARD_BOUND = 0.1
"""From this share of the time on, waiting for scores is what to do something about."""
STRAGGLER = 3.0
"""From this ratio on, a few requests are unlike the others; a queue that is even gives 2."""


@dataclass(frozen=True)
class Bottleneck:
    """Where the time of some epochs went.

    Attributes:
        sampling, waiting, updating: seconds.
        service: the reward that was waited for longest.
        tail: median over the epochs of its slowest request over its median one; None where it was
            not recorded.
    """

    sampling: float
    waiting: float
    updating: float
    service: str
    tail: float | None

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], rewards: Sequence[str]) -> "Bottleneck":
        """Of at least one line of `metrics.jsonl`, and the names of the run's rewards."""

        def total(name: str) -> float:
            return sum(record.get(name) or 0.0 for record in records)

        late = {name: total(f"seconds_reward_wait/{name}") for name in rewards}
        service = slowest(late) if late else "the reward"
        keys = (f"scoring_tail/{service}", "scoring_tail")
        tails = [next((r[key] for key in keys if r.get(key)), None) for r in records]
        known = [tail for tail in tails if tail is not None]
        return cls(
            sampling=total("seconds_sampling"),
            waiting=total("seconds_reward_wait"),
            updating=total("seconds_update"),
            service=service,
            tail=statistics.median(known) if known else None,
        )

    @property
    def waited(self) -> float:
        """Waiting for scores as a share of the time, 0 to 1."""
        return self.waiting / ((self.sampling + self.waiting + self.updating) or 1.0)

    @property
    def reward_bound(self) -> bool:
        """Whether faster scoring would make the run noticeably faster."""
        return self.waited >= REWARD_BOUND

    def sentence(self) -> str:
        """What the run is bound by, and what to do."""
        if not self.reward_bound:
            longer = "sampling" if self.sampling >= self.updating else "the update"
            share = max(self.sampling, self.updating) / (
                (self.sampling + self.waiting + self.updating) or 1.0
            )
            return (
                f"trainer-bound: {longer} took {_percent(share)} of the epochs, waiting for scores "
                f"{_percent(self.waited)}"
            )
        said = (
            f"reward-bound: scoring waited {_percent(self.waited)} of the epochs: add a worker to "
            f"{self.service}"
        )
        if self.tail is not None and self.tail >= STRAGGLER:
            said += (
                f"; its slowest request took {self.tail:.1f} times the median: look for a worker "
                "that is slower than the others, or was away"
            )
        return said


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
