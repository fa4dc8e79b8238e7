"""The guard afterwards: on runs with and without one, finished or not, of this version or older."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainer import checkpoints, gallery
from trainer.checkpoints import Checkpoint, RunState
from trainer.gallery import Evaluation, Measured, Spread
from trainer.guard_replay import replay, told
from trainer.run_folder import RunFolder
from trainer.stops import ConfigError, RunStopped

IDENTITY = {"name": "errors", "version": "1", "units": "errors", "direction": "minimize"}
ERRORS = np.array([4.0, 6.0, 4.0, 6.0])


def run_of(path: Path, levels: list[float], health: dict[str, Spread] | None = None) -> RunFolder:
    """A run whose monitor counts errors: fewer are better."""
    folder = RunFolder(path)
    path.mkdir()
    folder.config.write_text('model.path = "anything"\n')
    for epoch, level in enumerate(levels):
        scores = (ERRORS - level).tolist()
        evaluation = Evaluation(
            epoch=epoch,
            prompts=["a cat"] * 4,
            rewards={"jpeg": Measured(scores=[0.0] * 4, mean=0.0, ci95=(0.0, 0.0))},
            monitors={"errors": Measured(scores=scores, mean=5 - level, ci95=(0, 9))},
            health=health or {},
        )
        pictures = np.full((4, 8, 8, 3), 100, np.uint8)
        if epoch < 3:  # of different reds; then grey
            pictures[..., 1:] = 10 * np.arange(4, dtype=np.uint8)[:, None, None, None]
        gallery.save(folder.evaluation, evaluation, pictures)
    return folder


def finished(folder: RunFolder) -> RunFolder:
    folder.summary.write_text(json.dumps({"monitors": {"errors": IDENTITY}}))
    return folder


def test_a_run_that_fell(tmp_path: Path) -> None:
    folder = finished(run_of(tmp_path / "run", [0, 3, 2, 1.8, 2.9]))
    found = replay(folder.path)
    assert [verdict.level for verdict in found] == pytest.approx([0, 3, 2, 1.8, 2.9])
    assert [verdict.over for verdict in found] == [False, False, False, True, False]
    lines = told(found).splitlines()
    assert lines[0].split() == ["epoch", "level", "drop", "at", "least", "best"]
    assert lines[3].split() == ["2", "+2.00", "1.00", "1.00", "1", "falling"]
    assert lines[-1] == (
        "stop after epoch 3, at a level of +1.80, with the weights after epoch 1, at +3.00"
    )
    assert told(replay(folder.path, ["guard.patience=3"])).endswith("no stop; best after epoch 1")
    with pytest.raises(ConfigError, match=r"unknown setting guard.patients .*patience"):
        replay(folder.path, ["guard.patients=3"])


def test_an_unfinished_run_is_judged_by_its_checkpoint(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", [0, 3])
    with pytest.raises(RunStopped, match="has no checkpoint yet"):
        replay(folder.path)
    state = RunState.model_validate(
        dict.fromkeys(("reward_queries", "masked", "skipped_steps", "skipped_in_a_row"), 0)
        | {key: {} for key in ("prompts", "trackers", "config")}
        | {"epoch": 1, "seconds": 0.0, "metrics_bytes": 0, "identities": {"errors": IDENTITY}}
    )
    checkpoints.save(folder.checkpoints, Checkpoint(state, {}, {}, {}), keep=1)
    assert [verdict.level for verdict in replay(folder.path)] == pytest.approx([0, 3])


def test_old_evaluations_get_their_health_from_the_pictures(tmp_path: Path) -> None:
    old = finished(run_of(tmp_path / "old", [0, 1, 2, 3]))
    found = replay(old.path)
    assert [verdict.unhealthy for verdict in found[:3]] == [(), (), ()]
    assert any(each.startswith("saturation 0.85 → 0,") for each in found[3].unhealthy)
    assert "saturation 0.85 → 0," in told(found)
    known = {"latent_rms": Spread(mean=1.0, std=0.1)}
    new = finished(run_of(tmp_path / "new", [0, 1, 2, 3], known))
    assert all(verdict.unhealthy == () for verdict in replay(new.path))


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="no run in"):
        replay(tmp_path)
    empty = finished(run_of(tmp_path / "empty", []))
    with pytest.raises(RunStopped, match=r"can be judged: .*train with --monitor NAME=URL"):
        replay(empty.path)
    blind = run_of(tmp_path / "blind", [0, 1])
    blind.summary.write_text(json.dumps({"monitors": {}}))
    with pytest.raises(RunStopped, match="can be judged"):
        replay(blind.path)
