"""Measurements as text: throughput, ratio and CPU time per stage."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.measuring.rounds import Measured


def print_throughput(measured: Mapping[str, Measured], items: int, base: str) -> None:
    """Items per second of the median round, and against `base` as a ratio of the medians."""
    width = max(map(len, measured))
    for name, one in measured.items():
        ratio = measured[base].median / one.median
        print(f"  {name:<{width}}  {items / one.median:8.1f} images/s  {ratio:6.2f} of {base}")


def print_cpu(measured: Mapping[str, Measured], items: int, base: str) -> None:
    """CPU milliseconds per item on top of `base`, and of which stages the whole is made."""
    width = max(map(len, measured))
    scorer = sum(measured[base].cpu_ms(items).values())
    print(f"  CPU ms per image: {scorer:.2f} {base}, and on top of that:")
    for name, one in measured.items():
        if name != base:
            stages = one.cpu_ms(items)
            parts = " + ".join(f"{stage} {ms:.2f}" for stage, ms in stages.items())
            print(f"  {name:<{width}}  {sum(stages.values()) - scorer:6.2f}  (all: {parts})")


def verdict(what: str, value: float, goal: float) -> str:
    """One line: a number, its goal, and whether it is reached."""
    return f"  {what}: {value:.2f} (goal {goal:g}: {'reached' if value >= goal else 'MISSED'})"


def percentiles(seconds: Sequence[float]) -> str:
    """The median and the 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms"
