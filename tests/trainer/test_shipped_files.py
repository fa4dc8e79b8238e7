"""Files of a recipe are found where the user is, then beside the packages."""

from pathlib import Path

import pytest

from trainer.shipped_files import PACKAGES, find

MODEL = "emoji_world/models/diffusion"


def test_a_shipped_folder_is_found_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(MODEL) == PACKAGES / MODEL
    assert find("no/such") is None


def test_the_working_directory_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / MODEL).mkdir(parents=True)
    assert find(MODEL) == Path(MODEL)
    assert find(str(tmp_path / MODEL)) == tmp_path / MODEL
