"""Scorers by name, and what is said when there is none."""

from pathlib import Path

import pytest

from reward_services.loading import SHORT_NAMES, ScorerLoadError, load_scorer
from reward_services.scorer import describe

SCORER = """
class Good:
    name = "good"
    max_batch_size = 2
    def score(self, items):
        return [1.0 for _ in items]

class Nameless:
    max_batch_size = 2
    def score(self, items):
        return []

class Broken:
    def __init__(self):
        raise RuntimeError("no weights")

constant = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, importable in no other way; gives its name."""
    name = f"reward_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SCORER)
    (tmp_path / f"{name}_incomplete.py").write_text("import a_package_nobody_has")
    (tmp_path / f"{name}_failing.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    return name


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_short_names(name: str) -> None:
    assert describe(load_scorer(name)).name == name


def test_an_import_string_from_the_working_directory(module: str) -> None:
    assert describe(load_scorer(f"{module}:Good")).name == "good"


def test_a_misspelt_short_name_is_corrected() -> None:
    with pytest.raises(ScorerLoadError, match=r"did you mean jpeg_compressibility\?"):
        load_scorer("jpeg_compresibility")


@pytest.mark.parametrize("name", ["", "brightness", "module:", ":Class"])
def test_neither_short_name_nor_import_string(name: str) -> None:
    with pytest.raises(ScorerLoadError, match="module:Class"):
        load_scorer(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("{}_elsewhere:Good", "there is no module '{}_elsewhere'"),
        ("{}:Better", "has no class 'Better'"),
        ("{}:constant", "has no class 'constant'"),
        ("{}:Nameless", "needs a `name`"),
        ("{}:Broken", "failed: no weights"),
        ("{}_incomplete:Good", "needs the package 'a_package_nobody_has'"),
        ("{}_failing:Good", "importing {}_failing failed: division by zero"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(module: str, name: str, complaint: str) -> None:
    with pytest.raises(ScorerLoadError) as caught:
        load_scorer(name.format(module))
    assert complaint.format(module) in str(caught.value)
    assert "\n" not in str(caught.value)
