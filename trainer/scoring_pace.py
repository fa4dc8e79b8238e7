"""How long rewards kept a run waiting, and whether a few slow requests were to blame."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Of one reward in one epoch.

    Attributes:
        late_s: seconds from the last picture drawn to the reward's last score, at least 0.
        tail: how many times as long as the median its slowest request took, 1 or more. Requests
            that pile up evenly give about 2; more means that some are unlike the others.
    """

    late_s: float
    tail: float


def paces(requests: Iterable[tuple[str, float, float]], drawn_at: float) -> dict[str, Pace]:
    """Reward → its pace.

    Args:
        requests: of each, the reward, when it was first sent and when it was answered.
        drawn_at: when the last picture was drawn, by the same clock.
    """
    spans: dict[str, list[float]] = {}
    last: dict[str, float] = {}
    for name, sent_at, answered_at in requests:
        spans.setdefault(name, []).append(answered_at - sent_at)
        last[name] = max(last.get(name, drawn_at), answered_at)
    return {
        name: Pace(last[name] - drawn_at, max(1.0, max(each) / (statistics.median(each) or 1.0)))
        for name, each in spans.items()
    }


def slowest(late: Mapping[str, float]) -> str:
    """The reward that was waited for longest."""
    return max(late, key=lambda name: late[name])
