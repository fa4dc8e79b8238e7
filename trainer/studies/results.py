"""What a study comes to: for each reward and arm the mean over its seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.studies.rows import Row

# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Result:
    """One arm on one reward.

    Attributes:
        arm, reward: which.
        direction, units: of the reward.
        reward_queries: of each seed; the largest number if they differ.
        before: mean over the seeds of the reward before training.
        after: each finished seed's reward after training, in the order of the seeds.
        stopped: seeds whose run could not be finished.
    """

    arm: str
    reward: str
    direction: str
    units: str
    reward_queries: int
    before: float
    after: list[float]
    stopped: list[int]

    @property
    def mean(self) -> float:
        """Over the finished seeds; NaN when there is none."""
        return statistics.fmean(self.after) if self.after else math.nan

    @property
    def half(self) -> float:
        """Half of the 95 % interval of the mean over seeds (Student's t); NaN below two seeds."""
        return seed_interval(self.after)

    @property
    def gain(self) -> float:
        """How much better the mean became, in the reward's units: positive is better."""
        change = self.mean - self.before
        return change if self.direction == "maximize" else -change


def seed_interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean over seeds, by Student's t; NaN below two values."""
    if len(values) < 2:
        return math.nan
    freedom = min(len(values) - 1, len(_T975))
    return _T975[freedom - 1] * statistics.stdev(values) / math.sqrt(len(values))


def results(rows: Sequence[Row]) -> list[Result]:
    """One result per reward and arm, the best arm of each reward first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.reward, row.algorithm), []).append(row)
    found = [_result(group) for group in groups.values()]
    order = list(dict.fromkeys(row.reward for row in rows))
    return sorted(
        found,
        key=lambda each: (
            order.index(each.reward),
            -each.gain if math.isfinite(each.gain) else math.inf,
        ),
    )


def _result(rows: Sequence[Row]) -> Result:
    rows = sorted(rows, key=lambda row: row.seed)
    return Result(
        arm=rows[0].algorithm,
        reward=rows[0].reward,
        direction=rows[0].direction,
        units=rows[0].units,
        reward_queries=max(row.reward_queries for row in rows),
        before=statistics.fmean(row.before.mean for row in rows),
        after=[row.after.mean for row in rows if row.after is not None],
        stopped=[row.seed for row in rows if row.after is None],
    )


HEAD = ("reward", "algorithm", "reward queries", "before", "after", "95 % over seeds", "each seed")


def cells(result: Result) -> tuple[str, ...]:
    """A result as the cells of a table under `HEAD`."""
    seeds = [f"{value:.4g}" for value in result.after]
    seeds += [f"seed {seed} stopped" for seed in result.stopped]
    half = result.half
    return (
        f"{result.reward} ({result.units}, {result.direction})",
        result.arm,
        str(result.reward_queries),
        f"{result.before:.4g}",
        f"{result.mean:.4g}" if result.after else "",
        f"± {half:.2g}" if math.isfinite(half) else "",
        ", ".join(seeds),
    )


def table(found: Sequence[Result]) -> str:
    """Results in lines of equal columns."""
    lines = [HEAD, *map(cells, found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
