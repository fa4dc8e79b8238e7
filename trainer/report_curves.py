"""The parts of the report that hold curves: rewards, monitors, and how training went."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trainer.charts import Interval, Mark, curve_chart, short, small_chart
from trainer.gallery import Measured, Shots
from trainer.picture_health import HEALTH
from trainer.tracking import meaning, of_reward, rewards_in

_DIAGNOSTICS = ("approx_kl", "kl_to_base", "clip_fraction", "grad_norm", "loss")

Records = Sequence[Mapping[str, Any]]
"""Lines of `metrics.jsonl`, oldest first."""


def marks_of(records: Records, summary: Mapping[str, Any]) -> list[Mark]:
    """Where the guard ended the run, and which evaluation it found best."""
    stopped = summary.get("stopped_by_guard")
    if not stopped:
        return []
    queries = _queries(records)
    labels = {"best_epoch": "best for the monitors", "epoch": "stopped by the guard"}
    return [Mark(queries[stopped[key]], label) for key, label in labels.items()]


def curves(records: Records, shots: Shots, marks: Sequence[Mark]) -> str:
    """A curve per reward, each in its own units."""
    names = list(shots[0][0].rewards) if shots else rewards_in(records)
    charts = [_curve(records, shots, name, names, marks) for name in names]
    legend = (
        '<div class="legend"><span><i class="c0"></i>mean of each epoch, ± one standard deviation'
        '</span><span><i class="c1"></i>fixed evaluation seeds, 95 % interval</span></div>'
    )
    heading = "The reward" if len(names) == 1 else "The rewards"
    cards = "".join(f'<div class="card">{chart}{legend}</div>' for chart in charts)
    return f'<h2>{heading}</h2><div class="curves">{cards}</div>'


def _curve(
    records: Records, shots: Shots, name: str, names: Sequence[str], marks: Sequence[Mark]
) -> str:
    queries = _queries(records)
    points = [
        Interval(
            queries[shot.epoch],
            shot.rewards[name].mean,
            *shot.rewards[name].ci95,
            f"evaluation after epoch {shot.epoch}",
        )
        for shot, _ in shots
        if shot.epoch in queries
    ]
    mean, deviation = (of_reward(f"reward_{kind}", name, names) for kind in ("mean", "std"))
    usable = [r for r in records if r[mean] is not None]
    return curve_chart(
        [float(r["reward_queries"]) for r in usable],
        [r[mean] for r in usable],
        [r[deviation] for r in usable],
        points,
        marks,
        x_label="reward queries",
        y_label=name,
    )


def monitors(records: Records, shots: Shots, marks: Sequence[Mark]) -> str:
    """What the rewards say that were not trained on."""
    queries = _queries(records)
    cards = []
    for name in shots[-1][0].monitors if shots else ():
        watched = [
            (queries[evaluation.epoch], evaluation.monitors[name])
            for evaluation, _ in shots
            if name in evaluation.monitors and evaluation.epoch in queries
        ]
        if len(watched) > 1:
            (_, first), (_, last) = watched[0], watched[-1]
            points = [Interval(x, each.mean, *each.ci95, name) for x, each in watched]
            chart = curve_chart([], [], [], points, marks, x_label="reward queries", y_label=name)
            said = f"{short(first.mean)} → {short(last.mean)}; {intervals(first, last)}"
            cards.append(f'<div class="card"><h3>{escape(name)}</h3><p>{said}</p>{chart}</div>')
    if not cards:
        return ""
    return (
        "<h2>Rewards that only watch</h2><p class='soft'>They judge the same pictures, and nothing "
        f'was trained on them.</p><div class="diagnostics">{"".join(cards)}</div>'
    )


def diagnostics(records: Records) -> str:
    """What training itself measured, a small chart for each number; "" for a single epoch."""
    if len(records) < 2:
        return ""
    deviations = sorted({n for r in records for n in r if n.startswith("reward_std")})
    names = (*_DIAGNOSTICS, *deviations)
    lines = {
        name: [(float(r["epoch"]), r[name]) for r in records if r.get(name) is not None]
        for name in names
    }
    meanings = {name: meaning(name) for name in names}
    return f"<h2>How training went</h2>{_small_charts(lines, meanings)}"


def health(shots: Shots) -> str:
    """How the pictures changed by themselves, whatever any reward says of them."""
    lines = {
        name: [(float(s.epoch), s.health[name].mean) for s, _ in shots if name in s.health]
        for name in HEALTH
    }
    if max(map(len, lines.values())) < 2:
        return ""
    return (
        "<h2>The state of the pictures</h2><p class='soft'>Of the evaluations. What matters is how "
        f"far they go from the model as it was.</p>{_small_charts(lines, HEALTH)}"
    )


def _small_charts(
    lines: Mapping[str, Sequence[tuple[float, float]]], meanings: Mapping[str, str]
) -> str:
    """A card for each number that has a value at more than one epoch."""
    cards = []
    for name, points in lines.items():
        if len(points) > 1:
            xs, ys = zip(*points, strict=True)
            cards.append(
                f'<div class="card"><h3>{escape(name)}</h3><p>{escape(meanings[name])}</p>'
                f"{small_chart(xs, ys, name)}</div>"
            )
    return f'<div class="diagnostics">{"".join(cards)}</div>'


def intervals(before: Measured, after: Measured) -> str:
    """The 95 % intervals of two means, in words."""
    texts = (" to ".join(short(end) for end in shot.ci95) for shot in (before, after))
    return "mean on the same seeds; 95 % intervals " + " and ".join(texts)


def _queries(records: Records) -> dict[int, float]:
    """Epoch → reward queries by its end."""
    return {0: 0.0} | {r["epoch"]: float(r["reward_queries"]) for r in records}
