"""Rewards that only sleep: what a model on a device costs the CPU, which is nothing."""

import time
from collections.abc import Sequence

from reward_services.scorer import ScoreItem


class Sleeping:
    """Sleeps a time per batch and a time per item; the score is the first byte of the picture."""

    version = "1"
    needs_prompt = False

    def __init__(self, name: str, batch_s: float, item_s: float, max_batch_size: int = 64) -> None:
        self.name = name
        self.max_batch_size = max_batch_size
        self._batch_s = batch_s
        self._item_s = item_s

    def score(self, items: Sequence[ScoreItem]) -> list[float]:
        """The batch's time, then one score per item."""
        time.sleep(self._batch_s + self._item_s * len(items))
        return [float(item.image.flat[0]) for item in items]


def device() -> Sleeping:
    """20 ms per picture, as a large model that a batch does not make cheaper."""
    return Sleeping("device", 0.0, 0.02)


def batched_device() -> Sleeping:
    """50 ms per batch and 2 ms per picture, as a model that gains by batches."""
    return Sleeping("batched_device", 0.05, 0.002)


def small_batches() -> Sleeping:
    """10 ms per picture, eight at a time: enough batches to share among workers."""
    return Sleeping("small_batches", 0.0, 0.01, max_batch_size=8)
