"""The curves of a study: reward against reward queries, one panel per reward.

As figure 4 of Black et al. 2023, but measured on the same prompts and noise at every point.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.studies.results import seed_interval
from trainer.studies.rows import Row

# Okabe and Ito's colours, which colour-blind people can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")
_PANEL = (4.6, 3.2)  # inches
_LEGEND_LINE = 0.2


def write_figure(rows: Sequence[Row], path: Path, titles: Mapping[str, str] | None = None) -> None:
    """Draw the curves of all rows into a PNG or SVG file.

    A thick line is the mean over seeds, the band its 95 % interval (Student's t, where all seeds
    have a point); thin lines are the seeds. An axis is turned round where less is better, so that
    up is better everywhere.

    Args:
        rows: of one study.
        path: the file.
        titles: what a panel is called, by its reward; by default the reward's name.
    """
    rewards = list(dict.fromkeys(row.reward for row in rows))
    arms = list(dict.fromkeys(row.algorithm for row in rows))
    styles = {
        arm: (_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)])
        for i, arm in enumerate(sorted(arms))
    }
    across = min(2, len(rewards))
    down = -(-len(rewards) // across)
    columns = min(len(arms), 2 * across)
    legend = _LEGEND_LINE * -(-len(arms) // columns)
    with mpl.rc_context({"font.size": 9, "svg.hashsalt": "ddpo"}):
        size = (_PANEL[0] * across, _PANEL[1] * down + legend)
        figure = Figure(size, dpi=130, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flat
        for panel, reward in zip(panels, rewards, strict=False):
            mine = [row for row in rows if row.reward == reward]
            _draw(panel, mine, styles)
            panel.set_title((titles or {}).get(reward, reward))
        for panel in list(panels)[len(rewards) :]:
            panel.set_axis_off()
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(panel: Axes, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]]) -> None:
    for arm, (colour, dashes) in styles.items():
        curves = [row.curve for row in rows if row.algorithm == arm]
        if not curves:
            panel.plot([], [], color=colour, linestyle=dashes, linewidth=2, label=arm)
            continue
        for curve in curves:
            panel.plot(
                [point.reward_queries for point in curve],
                [point.mean for point in curve],
                color=colour,
                linewidth=0.7,
                alpha=0.4,
            )
        shared = [points for points in zip(*curves, strict=False)]
        queries = [points[0].reward_queries for points in shared]
        means = [statistics.fmean(point.mean for point in points) for points in shared]
        halves = [seed_interval([point.mean for point in points]) for points in shared]
        panel.plot(
            queries,
            means,
            color=colour,
            linestyle=dashes,
            linewidth=2,
            marker="o",
            markersize=4,
            label=arm,
        )
        low = [mean - half for mean, half in zip(means, halves, strict=True)]
        high = [mean + half for mean, half in zip(means, halves, strict=True)]
        panel.fill_between(queries, low, high, color=colour, alpha=0.12, linewidth=0)
    panel.set_xlabel("reward queries")
    panel.set_ylabel(
        f"{rows[0].units}, {'more' if rows[0].direction == 'maximize' else 'less'} is better"
    )
    if rows[0].direction == "minimize":
        panel.invert_yaxis()
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
