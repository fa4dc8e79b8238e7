"""Draw the pictures of docs/results.md from the runs of the studies.

python -m experiments.figures          whatever the folder runs/ has
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from trainer import gallery
from trainer.config import Config
from trainer.guard_replay import replay
from trainer.recipe_files import read_recipe
from trainer.run_folder import RunFolder
from trainer.studies.rows import Row, RowsFile

RUNS = Path("runs")
RESULTS = Path("docs/results")
_CELL = 1.15  # inches
_MOMENTS = 6  # columns at most
_ALIGNMENT = ("a fox riding a motorcycle", "a zebra playing chess", "a spider washing dishes")
_COUNTING = ("six fish", "five birds", "three pigs", "six horses")


def write_matrix(
    path: Path, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Path]]]
) -> None:
    """Pictures in rows and columns, with a word over each column and beside each row."""
    with mpl.rc_context({"font.size": 9}):
        size = (_CELL * len(heads) + 1.3, (_CELL + 0.04) * len(rows) + 0.3)
        figure = Figure(size, dpi=130, layout="constrained")
        axes = figure.subplots(len(rows), len(heads), squeeze=False)
        for line, (label, pictures) in zip(axes, rows, strict=True):
            for cell, picture in zip(line, pictures, strict=True):
                with Image.open(picture) as image:
                    cell.imshow(image, interpolation="lanczos")
                cell.set_xticks([])
                cell.set_yticks([])
                cell.spines[:].set_visible(False)
            line[0].set_ylabel(fill(label, 14), rotation=0, ha="right", va="center")
        for cell, head in zip(axes[0], heads, strict=True):
            cell.set_title(head, fontsize=9)
        figure.savefig(path)


def _last(run: Path) -> tuple[gallery.Evaluation, list[Path]]:
    return gallery.load_all(RunFolder(run).evaluation)[-1]


def draw_rewards(path: Path, prompts: Sequence[str], arm: str = "ddpo_is", seed: int = 1) -> None:
    """The same prompt and noise under each reward of the comparison."""
    rewards = ("jpeg_compressibility", "jpeg_incompressibility", "aesthetic")
    runs = [RUNS / "comparison" / f"{arm}-{reward}-{seed}" for reward in rewards]
    known, before = gallery.load_all(RunFolder(runs[0]).evaluation)[0]
    after = [_last(run)[1] for run in runs]
    places = [known.prompts.index(prompt) for prompt in prompts]
    rows = [
        (known.prompts[place], [before[place], *(pictures[place] for pictures in after)])
        for place in places
    ]
    write_matrix(path, ["before", "compressibility", "incompressibility", "aesthetic"], rows)


def draw_over_time(path: Path, run: Path, prompts: Sequence[str]) -> None:
    """The same prompt and noise in the course of a run, after so many reward queries."""
    folder = RunFolder(run)
    shots = gallery.load_all(folder.evaluation)
    shots = shots[:: -(-(len(shots) - 1) // (_MOMENTS - 1))]
    known = shots[0][0].prompts
    per_epoch = Config.model_validate(read_recipe(folder.config)).sizes.samples_per_epoch
    heads = [f"{shot.epoch * per_epoch}" for shot, _ in shots]
    rows = [
        (prompt, [pictures[known.index(prompt)] for _, pictures in shots]) for prompt in prompts
    ]
    write_matrix(path, heads, rows)


def draw_gap(path: Path, row: Row, monitor: str, labels: tuple[str, str]) -> None:
    """A reward and a monitor that measures what was meant, over the reward queries."""
    queries = [point.reward_queries for point in row.curve]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure((5.2, 3.4), dpi=130, layout="constrained")
        panel = figure.subplots()
        panel.plot(
            queries,
            [point.mean for point in row.curve],
            color="#0072B2",
            marker="o",
            label=labels[0],
        )
        panel.plot(
            queries,
            [point.monitors[monitor] for point in row.curve],
            color="#D55E00",
            marker="o",
            label=labels[1],
        )
        panel.set_xlabel("reward queries")
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
        figure.savefig(path)


def draw_guard(path: Path, run: Path) -> None:
    """How the monitors of a run rose and fell, and where the guard ended it."""
    found = replay(run)
    epochs, levels = [each.epoch for each in found], [each.level for each in found]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure((5.2, 3.2), dpi=130, layout="constrained")
        panel = figure.subplots()
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.plot(epochs, levels, color="#0072B2", marker="o")
        marks = [(found[-1].best_epoch, "weights of this moment", "#009E73")]
        marks += [(each.epoch, "stopped", "#D55E00") for each in found if each.over][:1]
        for epoch, label, colour in marks:
            panel.axvline(epoch, color=colour, linestyle="--", label=label)
        panel.set_xlabel("rounds")
        panel.set_ylabel("monitors, deviations above the base model")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
        figure.savefig(path)


def main() -> None:
    """Draw what can be drawn, and say what cannot."""
    try:
        draw_rewards(RESULTS / "rewards.png", ("a cat", "a lion", "a turtle"))
    except IndexError:
        print("no pictures of the comparison in runs/comparison")
    over_time = {
        "alignment": (RUNS / "demo-alignment", _ALIGNMENT),
        "counting": (RUNS / "counting" / "ddpo_is-llava_vqa-1", _COUNTING),
        "from_scratch": (
            RUNS / "from_scratch" / "ddpo_is-jpeg_compressibility-1",
            ("a cat", "a dog"),
        ),
    }
    for name, (run, prompts) in over_time.items():
        if run.is_dir():
            draw_over_time(RESULTS / f"{name}-pictures.png", run, prompts)
        else:
            print(f"no run in {run}")
    for row in RowsFile(RESULTS / "counting.json").read():
        labels = ("reward: the question answered as hoped", "classifier: the picture is right")
        draw_gap(RESULTS / "counting-gap.png", row, "emoji_judge", labels)
    for run in sorted(RUNS.glob("guarded-*")):
        draw_guard(RESULTS / f"{run.name}.png", run)


if __name__ == "__main__":
    main()
