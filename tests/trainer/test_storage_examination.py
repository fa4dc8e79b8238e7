"""The folder and the disk of a run, before it starts."""

import os
import re
from pathlib import Path

import pytest

from trainer.config import Config, load_config
from trainer.findings import Finding
from trainer.run_folder import RunFolder
from trainer.storage_examination import disk_space, run_folder


@pytest.fixture
def config(micro_recipe: Path) -> Config:
    return load_config(micro_recipe)


def only(config: Config) -> Finding:
    (found,) = run_folder(config)
    return found


def test_a_free_folder(config: Config) -> None:
    assert only(config).level == "ok"
    assert not config.folder.exists()


def test_a_folder_that_another_process_trains_in(config: Config) -> None:
    descriptor = RunFolder(config.folder).claim("model.path = 'x'\n")
    said = only(config)
    assert said.level == "problem"
    assert "another process is training in" in said.message
    os.close(descriptor)
    said = only(config)
    assert said.level == "warning"
    assert "holds a run already: go on with it by --resume" in said.message


def test_a_folder_that_cannot_be_written(micro_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    there = load_config(micro_recipe, [f"run.dir={tmp_path / 'file' / 'runs'}"])
    said = only(there)
    assert said.level == "problem"
    assert "set run.dir to another folder" in said.message


def test_room_for_the_checkpoints(config: Config) -> None:
    said = disk_space(config, trained=1_000_000)
    assert said.level == "ok"
    # Three of weights and two moments, and the weights at the end.
    assert "40 MB for 3 checkpoints of 12 MB (checkpoints.keep 2)" in said.message


def test_what_an_average_and_a_guard_add(micro_recipe: Path) -> None:
    more = ["ema.decay=0.9", "guard.action=stop", "evaluation.every=1", "monitors.a=http://a"]
    said = disk_space(load_config(micro_recipe, more), trained=1_000_000)
    assert "80 MB for 4 checkpoints of 16 MB" in said.message


def test_too_little_room_says_how_many_to_keep(micro_recipe: Path) -> None:
    config = load_config(micro_recipe, ["checkpoints.keep=1000000"])
    said = disk_space(config, trained=100_000_000)
    assert said.level == "problem"
    found = re.search(r"lower checkpoints\.keep to (\d+)", said.message)
    assert found is not None
    fitting = load_config(micro_recipe, [f"checkpoints.keep={int(found[1]) - 1}"])
    assert disk_space(fitting, trained=100_000_000).level == "ok"


def test_no_room_at_all(config: Config) -> None:
    assert "a larger disk, or make room" in disk_space(config, trained=10**15).message
