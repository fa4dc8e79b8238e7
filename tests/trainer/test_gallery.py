"""Evaluations on the disk come back, and pictures stand in the right place."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from trainer import gallery
from trainer.gallery import Evaluation, Measured, Spread, interval


def evaluation(epoch: int, scores: list[float | None] | None = None) -> Evaluation:
    return Evaluation(
        epoch=epoch,
        prompts=["a cat", "an ant", "a cat"],
        rewards={
            "jpeg": Measured(scores=scores or [-2.5, None, -1.5], mean=-2.0, ci95=(-2.98, -1.02)),
            "clip": Measured(scores=[30.0, 31.0, 32.0], mean=31.0, ci95=(29.9, 32.1)),
        },
        monitors={"judge": Measured(scores=[1.0, 0.0, None], mean=0.5, ci95=(-0.48, 1.48))},
        health={"saturation": Spread.of(np.array([0.2, 0.4]))},
    )


def pictures(level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([np.full((4, 6, 3), level + i, np.uint8) for i in range(3)])


def test_an_evaluation_comes_back(tmp_path: Path) -> None:
    gallery.save(tmp_path, evaluation(10), pictures(100))
    gallery.save(tmp_path, evaluation(2), pictures(50))
    (tmp_path / "grid.png").write_bytes(b"no evaluation")
    assert [found.epoch for found, _ in gallery.load_all(tmp_path)] == [2, 10]
    found = gallery.load(tmp_path, 10)
    assert found is not None
    assert found[0] == evaluation(10)
    assert found[0].monitors["judge"].scores == [1.0, 0.0, None]
    assert found[0].health["saturation"].mean == pytest.approx(0.3)
    assert found[0].health["saturation"].std == pytest.approx(0.1)
    with Image.open(found[1][2]) as image:
        assert np.array_equal(np.asarray(image), pictures(100)[2])


def test_an_evaluation_of_when_a_run_had_one_reward() -> None:
    judge = {"scores": [1.0, 0.0], "mean": 0.5, "ci95": [-0.48, 1.48]}
    said = {"scores": [-2.5, None], "mean": -2.5, "ci95": [-2.6, -2.4]}
    old = {"epoch": 3, "reward": "jpeg", "prompts": ["a", "b"], **said, "monitors": {"j": judge}}
    found = Evaluation.model_validate_json(json.dumps(old))
    assert (found.epoch, found.prompts) == (3, ["a", "b"])
    assert found.rewards == {"jpeg": Measured.model_validate(said)}
    assert found.judged == {**found.rewards, "j": Measured.model_validate(judge)}
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValidationError):
        Evaluation.model_validate({"epoch": 3, "prompts": [], "rewards": {}})
    with pytest.raises(ValidationError):
        Evaluation.model_validate(old | {"mispelt": 1})


def test_an_evaluation_of_an_older_version_is_read(tmp_path: Path) -> None:
    gallery.save(tmp_path, evaluation(1), pictures(0))
    scores = tmp_path / "epoch-00001" / "scores.json"
    written = json.loads(scores.read_text())
    del written["health"]
    scores.write_text(json.dumps(written))
    assert gallery.load_all(tmp_path)[0][0].health == {}


def test_pictures_come_back_in_their_order(tmp_path: Path) -> None:
    paths = gallery.save_pictures(tmp_path / "new" / "folder", pictures(7))
    assert [path.name for path in paths] == ["000.png", "001.png", "002.png"]
    for path, picture in zip(paths, pictures(7), strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), picture)


def test_an_evaluation_without_its_scores_is_not_there(tmp_path: Path) -> None:
    gallery.save(tmp_path, evaluation(1), pictures(0))
    (tmp_path / "epoch-00001" / "scores.json").unlink()
    assert gallery.load_all(tmp_path) == []
    assert gallery.load(tmp_path / "absent", 1) is None


def test_the_interval_of_a_mean() -> None:
    # Mean 3, sample variance 10/4 = 2.5, standard error sqrt(2.5/5) = 0.70711.
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3.0, 3 - 1.385904, 3 + 1.385904))
    assert interval([math.pi] * 7) == pytest.approx((math.pi, math.pi, math.pi))


def test_every_prompt_is_shown_once_and_not_too_many() -> None:
    assert gallery.shown(["a", "b", "a", "c", "b"], 9) == [0, 1, 3]
    assert gallery.shown(["a", "b", "a", "c", "b"], 2) == [0, 1]


@pytest.mark.parametrize("levels", [(10, 200), (10, 90, 200)])
def test_the_grid_goes_from_left_to_right(tmp_path: Path, levels: tuple[int, ...]) -> None:
    for epoch, level in enumerate(levels):
        gallery.save(tmp_path, evaluation(epoch), pictures(level))
    moments = [paths for _, paths in gallery.load_all(tmp_path)]
    gallery.write_grid(tmp_path / "grid.png", evaluation(0).prompts, moments)
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.asarray(image)
    # Two prompts are shown, each as squares of 128 pixels, 2 apart.
    pitch = 130 * len(levels) - 2 + 24
    for prompt in range(2):
        middles = [24 + prompt * pitch + 130 * moment + 64 for moment in range(len(levels))]
        assert [grid[24 + 64, x, 0] for x in middles] == [level + prompt for level in levels]


@pytest.mark.parametrize(
    ("epochs", "picked"),
    [([0], [0]), ([0, 9], [0, 9]), ([0, 2, 9], [0, 2, 9]), ([0, 2, 4, 6, 9], [0, 4, 9])],
)
def test_milestones(epochs: list[int], picked: list[int]) -> None:
    shots = [(evaluation(epoch), list[Path]()) for epoch in epochs]
    assert [shot.epoch for shot, _ in gallery.milestones(shots)] == picked


def test_a_sheet_is_filled_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    gallery.write_sheet(path, list(pictures(7)))
    with Image.open(path) as image:
        sheet = np.asarray(image)
    assert sheet.shape == (8, 12, 3)
    assert [sheet[0, 0, 0], sheet[0, 6, 0], sheet[4, 0, 0], sheet[4, 6, 0]] == [7, 8, 9, 255]
