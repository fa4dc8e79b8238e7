"""The chart of a study, as a file that can be looked at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.studies.test_results import row
from trainer.studies.figure import write_figure


@pytest.mark.parametrize("rewards", [1, 2, 3])
def test_every_reward_has_a_panel(tmp_path: Path, rewards: int) -> None:
    rows = [
        row(arm, f"reward{i}", seed, 5.0 + i + seed / 9, "minimize" if i else "maximize")
        for i in range(rewards)
        for arm in ("a", "b")
        for seed in (1, 2)
    ]
    path = tmp_path / "chart.svg"
    write_figure(rows, path, {"reward0": "the first"})
    text = path.read_text()
    assert text.count('<g id="axes_') == -(-rewards // 2) * min(2, rewards)
    write_figure(rows, tmp_path / "again.svg", {"reward0": "the first"})
    assert (tmp_path / "again.svg").read_text() == text


def test_a_png_has_both_colours(tmp_path: Path) -> None:
    rows = [row(arm, "r", 1, after) for arm, after in (("a", 6.0), ("b", 4.0))]
    write_figure(rows, tmp_path / "chart.png")
    pixels = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(axis=1).any()


def test_a_run_that_stopped_still_has_its_curve(tmp_path: Path) -> None:
    write_figure([row("a", "r", 1, None), row("a", "r", 2, 6.0)], tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").stat().st_size > 1000
