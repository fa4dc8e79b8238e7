"""A run folder belongs to one run and one process."""

import json
import math
import os
from pathlib import Path

import pytest

from trainer.run_folder import RunFolder, write_json, write_whole
from trainer.stops import RunStopped


def test_a_used_folder_is_refused_without_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.refuse_reuse(resume=False)
    os.close(folder.claim("seed = 1\n"))
    with pytest.raises(RunStopped, match="already used; continue it with --resume"):
        folder.refuse_reuse(resume=False)
    folder.refuse_reuse(resume=True)


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match=r"no run to resume .* leave --resume out"):
        RunFolder(tmp_path / "run").refuse_reuse(resume=True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_needed_must_be_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunStopped, match=r"there is no run in .*; give the folder that holds conf"):
        folder.require_run()
    os.close(folder.claim("seed = 1\n"))
    folder.require_run()


def test_a_claimed_folder_keeps_its_configuration(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    os.close(folder.claim("first"))
    os.close(folder.claim("second"))
    assert folder.config.read_text() == "first"


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    held = folder.claim("")
    with pytest.raises(RunStopped, match="another process is training"):
        folder.claim("")
    os.close(held)
    os.close(folder.claim(""))


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, "old")
    write_json(path, {"units": "kB → less"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"units": "kB → less"}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"mean": math.nan})
    assert json.loads(path.read_text(encoding="utf-8")) == {"units": "kB → less"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
