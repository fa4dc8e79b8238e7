"""Is a run past its best? Decided from its evaluations alone, so there is no state to keep.

Every reward, optimised long enough, destroys the pictures (Black et al. 2023, section 6.2), and the
reward itself does not show it. The monitors do: rewards that nothing was trained on. Evaluations
draw the same prompts from the same noise, so they are compared picture by picture.

    unit    a monitor's standard deviation over the pictures of the first evaluation in which they
            differ, which is the base model's unless it gives all pictures the same; positive is
            better, whatever the monitor's direction
    level   mean over pictures and monitors of the difference from the base model, in units
    best    the evaluation so far with the highest level
    drop    mean over pictures of how far they lie below those of the best, with its interval

A drop counts that is larger than `guard.tolerance` and has an interval above 0. It warns. The run
is over when `guard.patience` evaluations in a row have one, or at once when the drop is as certain
as two in a row would be and another step like the last would leave nothing of what was gained.

The best is the luckiest of all evaluations so far, so a run that stays where it is seems to drop
from it. The interval allows for that as for k comparisons (Bonferroni): at the k-th evaluation
after the base model's, one of confidence c has the coverage 1 − (1 − c) / k.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from trainer.gallery import Evaluation, Measured
from trainer.scores import Floats
from trainer.sections import GuardSection


@dataclass(frozen=True)
class Verdict:
    """What the guard says of one evaluation. Levels and drops are in units, see above.

    Attributes:
        epoch: of the evaluation.
        level: of its monitors; 0 for the base model.
        best_epoch: of the best evaluation up to this one.
        best_level: its level.
        drop: how far the pictures lie below those of the best evaluation; 0 for the best.
        drop_low: lower end of its one-sided interval.
        falling: the drop counts.
        over: the run should end here.
        unhealthy: one sentence per number of the pictures' health that went too far from the base
            model's.
    """

    epoch: int
    level: float
    best_epoch: int
    best_level: float
    drop: float
    drop_low: float
    falling: bool
    over: bool
    unhealthy: tuple[str, ...] = ()


def verdicts(
    evaluations: Sequence[Evaluation], directions: Mapping[str, str], guard: GuardSection
) -> list[Verdict]:
    """Judge every evaluation of a run, each by itself and those before it.

    Args:
        evaluations: oldest first; the first is the base model's.
        directions: name of each monitor → `maximize` or `minimize`.
        guard: the rule's numbers.

    Returns:
        One verdict per evaluation; none of one that shares fewer than two scored pictures with
        those before, and none at all when no monitor is in every evaluation and tells pictures
        apart.
    """
    units = _units(evaluations, directions)
    if not units:
        return []
    found: list[Verdict] = []
    best, best_level, before, in_a_row = evaluations[0], 0.0, 0.0, 0
    for place, evaluation in enumerate(evaluations):
        gained = _differences(evaluation, evaluations[0], units)
        lost = _differences(best, evaluation, units)
        if min(len(gained), len(lost)) < 2:
            continue
        level = float(gained.mean())
        if level > best_level:
            best, best_level, lost = evaluation, level, np.zeros(2)
        doubt = (1 - guard.confidence) / max(1, place)
        drop, low = _with_lower_end(lost, doubt)
        falling = drop > guard.tolerance and low > 0
        in_a_row = in_a_row + 1 if falling else 0
        at_once = 2 * level < before and _with_lower_end(lost, doubt**2)[1] > 0
        over = falling and (in_a_row >= guard.patience or at_once)
        before = level
        unhealthy = tuple(_unhealthy(evaluation, evaluations[0], guard.health_deviations))
        found.append(
            Verdict(
                evaluation.epoch, level, best.epoch, best_level, drop, low, falling, over, unhealthy
            )
        )
    return found


def _units(evaluations: Sequence[Evaluation], directions: Mapping[str, str]) -> dict[str, float]:
    """Monitor in every evaluation → its unit, negative where lower is better."""
    everywhere = [name for name in directions if all(name in each.monitors for each in evaluations)]
    units = {}
    for name in everywhere:
        spreads = (float(np.nanstd(_scores(each.monitors[name]))) for each in evaluations)
        spread = next((spread for spread in spreads if spread > 0), None)
        if spread is not None:
            units[name] = spread if directions[name] == "maximize" else -spread
    return units


def _differences(this: Evaluation, other: Evaluation, units: Mapping[str, float]) -> Floats:
    """`this` − `other` of each picture, in units, the mean of the monitors that scored it in both.

    Returns:
        (M,): pictures that no monitor scored in both are left out.
    """
    each = np.array(
        [
            (_scores(this.monitors[name]) - _scores(other.monitors[name])) / unit
            for name, unit in units.items()
        ]
    )
    known = np.isfinite(each)
    count = known.sum(axis=0)
    total: Floats = np.where(known, each, 0).sum(axis=0)
    means: Floats = total[count > 0] / count[count > 0]
    return means


def _with_lower_end(values: Floats, doubt: float) -> tuple[float, float]:
    """Mean of two or more values, and the lower end of its one-sided interval (normal approx.).

    Args:
        values: (M,).
        doubt: probability that the true mean lies below that end, below 0.5.
    """
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean + NormalDist().inv_cdf(doubt) * error


def _unhealthy(evaluation: Evaluation, base: Evaluation, deviations: float) -> list[str]:
    """What to say of the numbers that went further from the base model's than they vary in it."""
    said = []
    for name, now in evaluation.health.items():
        before = base.health.get(name)
        if before is not None and abs(now.mean - before.mean) > deviations * before.std > 0:
            away = (now.mean - before.mean) / before.std
            said.append(
                f"{name} {before.mean:.3g} → {now.mean:.3g}, {away:+.1f} deviations of the base "
                "model's pictures"
            )
    return said


def _scores(measured: Measured) -> Floats:
    """(N,), NaN where there is no score."""
    return np.array([math.nan if score is None else score for score in measured.scores])
