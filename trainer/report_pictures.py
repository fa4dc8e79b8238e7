"""The parts of the report that hold pictures: the same prompt and noise over training."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from trainer.charts import short
from trainer.gallery import Evaluation, Shots, milestones, shown

_CARDS = 24
_STRIP_ROWS, _STRIP_COLUMNS = 6, 9


def comparison(shots: Shots, summary: Mapping[str, Any]) -> str:
    """A card per prompt: before and after, and halfway where there was an evaluation then."""
    if len(shots) < 2:
        return ""
    picked = milestones(shots)
    evaluations = [evaluation for evaluation, _ in picked]
    said = rewards_of(summary, shots)
    signs = {
        name: -1 if said.get(name, {}).get("direction") == "minimize" else 1
        for name in evaluations[0].rewards
    }
    cards = []
    for row in shown(evaluations[0].prompts, _CARDS):
        pictures = "".join(_image(paths[row]) for _, paths in picked)
        cards.append(
            f'<figure class="card pair"><div class="side n{len(picked)}">{pictures}</div>'
            f"<figcaption>{escape(evaluations[0].prompts[row])}"
            f"{_scores(evaluations, row, signs)}</figcaption></figure>"
        )
    middle = f"after epoch {evaluations[1].epoch} and " if len(picked) > 2 else ""
    return (
        "<h2>Before and after</h2><p class='soft'>The same prompt and the same noise: on the left "
        f"the model as it was, then {middle}as it is now. Training never used this noise."
        f'</p><div class="pairs n{len(picked)}">{"".join(cards)}</div>'
    )


def strips(shots: Shots) -> str:
    """The same pictures over the course of training, when there were evaluations in between."""
    if len(shots) < 4:
        return ""
    step = max(1, -(-(len(shots) - 1) // (_STRIP_COLUMNS - 1)))
    picked = [*shots[:-1:step], shots[-1]]
    head = "".join(f"<th>epoch {shot.epoch}</th>" for shot, _ in picked)
    rows = []
    for row in shown(shots[0][0].prompts, _STRIP_ROWS):
        cells = "".join(f"<td>{_image(pictures[row])}</td>" for _, pictures in picked)
        rows.append(f'<tr><th class="row">{escape(shots[0][0].prompts[row])}</th>{cells}</tr>')
    return (
        '<h2>Over the course of training</h2><div class="card strips strip"><table>'
        f"<tr><th></th>{head}</tr>{''.join(rows)}</table></div>"
    )


def rewards_of(summary: Mapping[str, Any], shots: Shots) -> dict[str, Any]:
    """Name of each reward and what `summary.json` says of it; nothing while there is none.

    A summary from when a run had one reward does not say the run's name for it.
    """
    if "rewards" not in summary and "reward" in summary and shots:
        return dict.fromkeys(shots[0][0].rewards, summary["reward"])
    return dict(summary.get("rewards", {}))


def _scores(evaluations: Sequence[Evaluation], row: int, signs: Mapping[str, int]) -> str:
    """A line per reward, with its name where there are several."""
    lines = []
    for name, sign in signs.items():
        values = [evaluation.rewards[name].scores[row] for evaluation in evaluations]
        label = f"<div>{escape(name)}</div>" if len(signs) > 1 else ""
        lines.append(f'{label}<div class="scores">{_cells(values, sign)}</div>')
    return "".join(lines)


def _cells(values: Sequence[float | None], sign: int) -> str:
    cells = []
    for place, value in enumerate(values):
        if value is None:
            cells.append("<span>not scored</span>")
        elif place < len(values) - 1:
            cells.append(f"<span>{short(value)}</span>")
        else:
            worse = values[0] is not None and sign * (value - values[0]) < 0
            kind = ' class="worse"' if worse else ""
            cells.append(f"<b{kind}>{short(value)}</b>")
    return "".join(cells)


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'
