"""Several ways of doing the same work, timed in turns, so that other load falls on all alike."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CLIENT = "client"
"""The stage that runs in this process."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing the work.

    Attributes:
        name: for the table.
        call: does the work once.
        stages: name of a stage → the process ids that it runs in, with all their descendants.
    """

    name: str
    call: Callable[[], Awaitable[object]]
    stages: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Measured:
    """What one way took: seconds of every round, and CPU seconds per stage in all of them."""

    seconds: list[float] = field(default_factory=list)
    cpu: Counter[str] = field(default_factory=Counter)

    @property
    def median(self) -> float:
        """Seconds of the median round."""
        return statistics.median(self.seconds)

    def cpu_ms(self, items: int) -> dict[str, float]:
        """CPU milliseconds per item and stage; `items` is the number in one round."""
        return {
            stage: 1000 * seconds / (items * len(self.seconds))
            for stage, seconds in self.cpu.items()
        }


async def in_turns(ways: Sequence[Way], rounds: int) -> dict[str, Measured]:
    """Do all ways once to warm up, then `rounds` times in turns, each time in another order."""
    for way in ways:
        await way.call()
    measured = {way.name: Measured() for way in ways}
    for number in range(rounds):
        start = number % len(ways)
        for way in (*ways[start:], *ways[:start]):
            with _clocked(way, measured[way.name]):
                await way.call()
    return measured


@contextmanager
def _clocked(way: Way, measured: Measured) -> Iterator[None]:
    before, started = _cpu(way), time.perf_counter()
    yield
    measured.seconds.append(time.perf_counter() - started)
    after = _cpu(way)
    measured.cpu.update({stage: after[stage] - before[stage] for stage in after})


def _cpu(way: Way) -> dict[str, float]:
    family = _children() if way.stages else {}
    return {
        CLIENT: time.process_time(),
        **{
            stage: sum(cpu_of(pid) for root in roots for pid in _descent(root, family))
            for stage, roots in way.stages.items()
        },
    }


def cpu_of(pid: int) -> float:
    """CPU seconds of another process so far, user and system; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _children() -> dict[int, list[int]]:
    family: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        family.setdefault(parent, []).append(int(path.parent.name))
    return family


def _descent(root: int, family: Mapping[int, Sequence[int]]) -> Iterator[int]:
    yield root
    for child in family.get(root, ()):
        yield from _descent(child, family)
