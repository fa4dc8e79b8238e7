"""What is measured in an optimiser step, collected on the device."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from trainer.loss import PairLoss
from trainer.processes import Processes


@dataclass(frozen=True)
class StepStats:
    """One optimiser step. Means are over the step's pairs that went through the network."""

    loss: float
    """Mean loss of the valid pairs. That of DDPO-IS falls below 0 as the policy improves."""
    approx_kl: float
    """Mean of ½ (log-prob − old log-prob)²; this and the ratios are NaN for RWR."""
    kl_to_base: float
    """Mean divergence from the base model; NaN unless it is part of the loss."""
    clip_fraction: float
    """Share of pairs whose ratio left 1 ± clip_range."""
    ratio_mean: float
    """Mean probability ratio."""
    ratio_min: float
    """Smallest probability ratio."""
    ratio_max: float
    """Largest probability ratio."""
    grad_norm: float
    """Global gradient norm before clipping."""
    pairs: int
    """Valid pairs: what the gradient is the mean over."""
    skipped: bool
    """The gradient was not finite, or no sample was valid, so no weight was changed."""


def regression_stats(loss: Tensor, grad_norm: Tensor, pictures: int) -> StepStats:
    """The numbers of a step of RWR, which has no ratios.

    Args:
        loss: mean weighted denoising loss of the step.
        grad_norm: before clipping; not finite if any gradient is not.
        pictures: what the gradient is the mean over.
    """
    value, norm = torch.stack([loss, grad_norm.float()]).tolist()
    nan = math.nan
    return StepStats(
        loss=value,
        approx_kl=nan,
        kl_to_base=nan,
        clip_fraction=nan,
        ratio_mean=nan,
        ratio_min=nan,
        ratio_max=nan,
        grad_norm=norm,
        pairs=pictures,
        skipped=not math.isfinite(norm),
    )


@dataclass(frozen=True)
class UpdateStats:
    """The optimiser steps of one epoch, in order."""

    steps: list[StepStats]
    kl_of_pictures: float = math.nan
    """Mean divergence from the base model when the pictures were drawn; NaN unless it was measured
    then."""

    @property
    def skipped(self) -> int:
        """Steps that changed no weight."""
        return sum(step.skipped for step in self.steps)

    def consecutive_skipped(self, before: int = 0) -> int:
        """Steps skipped in a row up to now, given how many were when the epoch began."""
        for step in self.steps:
            before = before + 1 if step.skipped else 0
        return before

    def metrics(self) -> dict[str, float]:
        """Name → value over the steps taken: extremes for ratio_min and ratio_max, else means.

        NaN where no step was taken.
        """
        taken = [step for step in self.steps if not step.skipped]
        result = {"skipped_steps": float(self.skipped)}
        for name in (f.name for f in fields(StepStats) if f.type is float):
            values = [v for v in (getattr(step, name) for step in taken) if not math.isnan(v)]
            reduce = {"ratio_min": min, "ratio_max": max}.get(name, np.mean)
            result[name] = float(reduce(values)) if values else float("nan")
        if not math.isnan(self.kl_of_pictures):
            result["kl_to_base"] = self.kl_of_pictures
        return result


class Totals:
    """Running sums over micro-batches, kept on the device so that adding never waits for it."""

    def __init__(self, device: torch.device) -> None:
        # Sums of loss, approx_kl, clipped, ratio and kl_to_base; then the ratio's extremes.
        self._sums = torch.zeros(5, device=device)
        self._low = torch.full((), math.inf, device=device)
        self._high = torch.full((), -math.inf, device=device)

    def add(self, outcome: PairLoss) -> None:
        """Take in one micro-batch."""
        parts = (
            outcome.loss.detach(),
            outcome.approx_kl,
            outcome.clipped,
            outcome.ratio,
            outcome.kl_to_base,
        )
        self._sums += torch.stack([part.sum() for part in parts])
        self._low = torch.minimum(self._low, outcome.ratio.min())
        self._high = torch.maximum(self._high, outcome.ratio.max())

    def share(self, processes: Processes) -> None:
        """Take in what the other processes have added up."""
        if processes.count == 1:
            return
        mine = torch.stack([*self._sums, self._low, self._high])
        rows = processes.gather(mine[None])
        self._sums = rows[:, :-2].sum(0)
        self._low, self._high = rows[:, -2].min(), rows[:, -1].max()

    def stats(self, grad_norm: Tensor, pairs: int, evaluated: int) -> StepStats:
        """Fetch the numbers: the one wait for the device in an optimiser step.

        Args:
            grad_norm: before clipping; not finite if any gradient is not.
            pairs: valid pairs, the divisor of the loss.
            evaluated: pairs that went through the network, the divisor of the other means.
        """
        gathered = torch.stack([*self._sums, self._low, self._high, grad_norm.float()])
        loss, kl, clipped, ratio, to_base, low, high, norm = gathered.tolist()
        if evaluated == 0:
            # No pair was looked at, so there is nothing to say about ratios.
            kl = clipped = ratio = to_base = low = high = math.nan
        seen = max(evaluated, 1)
        return StepStats(
            loss=loss / pairs if pairs else math.nan,
            approx_kl=kl / seen,
            kl_to_base=to_base / seen,
            clip_fraction=clipped / seen,
            ratio_mean=ratio / seen,
            ratio_min=low,
            ratio_max=high,
            grad_norm=norm,
            pairs=pairs,
            skipped=pairs == 0 or not math.isfinite(norm),
        )
