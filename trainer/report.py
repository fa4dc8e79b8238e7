"""A run as one self-contained page: the curve, the pictures before and after, where time went.

Reads only the files of the run folder, so it can be written again at any time (`ddpo report RUN`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from trainer.bottleneck import Bottleneck
from trainer.charts import number, short
from trainer.gallery import Measured, Shots, load_all
from trainer.report_curves import (
    Records,
    curves,
    diagnostics,
    health,
    intervals,
    marks_of,
    monitors,
)
from trainer.report_pictures import comparison, rewards_of, strips
from trainer.run_folder import RunFolder, write_whole
from trainer.stops import RunStopped
from trainer.tracking import read_metrics

_PHASES = {
    "seconds_sampling": "sampling",
    "seconds_reward_wait": "waiting for scores",
    "seconds_update": "training",
}


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` from what the run folder holds, of a finished run or a running one.

    Returns:
        The path of the page.

    Raises:
        RunStopped: there is no run, or nothing in it to show yet.
    """
    folder.require_run()
    records = read_metrics(folder.metrics)
    shots = load_all(folder.evaluation)
    if not records and not shots:
        raise RunStopped(f"the run in {folder.path} has nothing to show yet: no epoch is finished")
    summary: dict[str, Any] = {}
    if folder.summary.exists():
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    marks = marks_of(records, summary)
    # What stands in the folder, which is not the end when the guard chose earlier weights.
    kept = [shot for shot in shots if shot[0].epoch <= summary.get("weights_epoch", math.inf)]
    sections = [
        curves(records, shots, marks),
        monitors(records, shots, marks),
        comparison(kept, summary),
        strips(shots),
        health(shots),
        _time(records, summary, list(shots[0][0].rewards) if shots else []),
        diagnostics(records),
        _facts(summary, shots, folder),
    ]
    template = files("trainer").joinpath("assets/report.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=escape(f"{folder.path.name} · DDPO run"),
        headline=_headline(folder, kept),
        subtitle=_subtitle(folder, records, shots, summary),
        tiles=_tiles(records, kept, summary),
        sections="\n".join(sections),
    )
    write_whole(folder.report, page)
    return folder.report


def _headline(folder: RunFolder, shots: Shots) -> str:
    if len(shots) < 2:
        return escape(folder.path.name)
    moved = (
        f"{name}: {short(before.mean)} → {short(after.mean)}"
        for name, (before, after) in _ends(shots).items()
    )
    return "<br>".join(map(escape, moved))


def _ends(shots: Shots) -> dict[str, tuple[Measured, Measured]]:
    """What every reward said first and last."""
    before, after = shots[0][0].rewards, shots[-1][0].rewards
    return {name: (before[name], after[name]) for name in before}


def _change(before: float, after: float) -> str:
    """How a reward moved, in per cent of its size before, or as a difference from zero."""
    if before == 0:
        return f"{after:+.3g}".replace("-", "−")
    return f"{100 * (after - before) / abs(before):+.0f} %".replace("-", "−")


def _subtitle(folder: RunFolder, records: Records, shots: Shots, summary: Mapping[str, Any]) -> str:
    rewards = rewards_of(summary, shots)
    parts = [f"run {folder.path.name}", f"{len(records)} epochs"]
    for place, (name, reward) in enumerate(rewards.items(), start=1):
        label = name if len(rewards) > 1 else "reward"
        parts.insert(place, f"{label} in {reward['units']}, to {reward['direction']}")
    parts.append(_ending(summary))
    return escape(" · ".join(parts))


def _ending(summary: Mapping[str, Any]) -> str:
    if not summary:
        return "not finished: the numbers are as of now"
    if stopped := summary.get("stopped_by_guard"):
        kept = summary["weights_epoch"]
        return f"stopped by the guard after epoch {stopped['epoch']}, weights after epoch {kept}"
    return "finished"


def _tiles(records: Records, shots: Shots, summary: Mapping[str, Any]) -> str:
    tiles = []
    ends = _ends(shots) if len(shots) >= 2 else {}
    for name, (before, after) in ends.items():
        about = f"{name}: " if len(ends) > 1 else ""
        change = _change(before.mean, after.mean)
        tiles.append(("lead", change, about + intervals(before, after)))
    queries = records[-1]["reward_queries"] if records else 0
    tiles.append(("", f"{queries:,}".replace(",", " "), "reward queries"))
    if "seconds" in summary:
        tiles.append(("", _duration(summary["seconds"]), "training and evaluation"))
    if records:
        rate = sum(r["images_per_second"] for r in records) / len(records)
        tiles.append(("", number(rate), "images per second, sampling"))
    if "trained_parameters" in summary:
        tiles.append(("", _compact(summary["trained_parameters"]), "trained parameters"))
    return "".join(
        f'<div class="card tile {kind}"><div class="value">{escape(value)}</div>'
        f'<div class="name">{escape(name)}</div></div>'
        for kind, value, name in tiles
    )


def _time(records: Records, summary: Mapping[str, Any], names: Sequence[str]) -> str:
    if not records:
        return ""
    seconds = {label: sum(r[name] for r in records) for name, label in _PHASES.items()}
    rest = summary.get("seconds", 0.0) - sum(seconds.values())
    if rest > 0:
        seconds["evaluation, checkpoints and the rest"] = rest
    total = sum(seconds.values()) or 1.0
    bars = "".join(
        f'<span class="c{i}" style="width:{100 * value / total:.2f}%" '
        f'title="{escape(label)}: {_duration(value)}"></span>'
        for i, (label, value) in enumerate(seconds.items())
    )
    legend = "".join(
        f'<span><i class="c{i}"></i>{escape(label)} {_duration(value)} '
        f"({100 * value / total:.0f} %)</span>"
        for i, (label, value) in enumerate(seconds.items())
    )
    scoring = _duration(sum(r["seconds_scoring"] for r in records))
    bottleneck = Bottleneck.of(records, names)
    tail = bottleneck.tail
    slowest = "" if tail is None else f" Its slowest request took {tail:.1f} times the median."
    return (
        f'<h2>Where the time went</h2><div class="card"><p class="verdict">'
        f'{escape(bottleneck.sentence())}</p><div class="split">{bars}</div>'
        f'<div class="legend">{legend}</div><p class="soft" style="margin:10px 0 0">Scoring runs '
        f"while the next batch is sampled; the service computed for {scoring}.{slowest}</p></div>"
    )


def _facts(summary: Mapping[str, Any], shots: Shots, folder: RunFolder) -> str:
    rows = [
        (key.replace("_", " "), value)
        for key, value in summary.items()
        if isinstance(value, str | int | float)
    ]
    rewards = rewards_of(summary, shots)
    rows += [
        (f"{name if len(rewards) > 1 else 'reward'} {key}", value)
        for name, reward in rewards.items()
        for key, value in reward.items()
        if isinstance(value, str) or (key == "weight" and len(rewards) > 1)
    ]
    table = "".join(
        f"<tr><td>{escape(key)}</td><td><code>{escape(_plain(value))}</code></td></tr>"
        for key, value in rows
    )
    config = escape(folder.config.read_text(encoding="utf-8"))
    return (
        f'<h2>What ran</h2><div class="card"><table class="facts">{table}</table>'
        f"<details><summary>The whole configuration</summary><pre>{config}</pre></details></div>"
    )


def _plain(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _compact(count: int) -> str:
    for size, suffix in ((1_000_000, " M"), (1_000, " k")):
        if count >= size:
            return f"{count / size:.3g}{suffix}"
    return str(count)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
