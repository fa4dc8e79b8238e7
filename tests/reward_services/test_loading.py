"""Scorers by name, and what is said when there is none."""

import sys
from pathlib import Path

import numpy as np
import pytest

from reward_services.loading import ScorerLoadError, load_scorer
from reward_services.scorer import ScoreItem, describe

WITHOUT_WEIGHTS = ["jpeg_compressibility", "jpeg_incompressibility"]

SCORER = """
from reward_services.options import RewardOptions

class Wishes(RewardOptions):
    side: int
    "How long."
    shape: str = "round"

class Choosy:
    name = "choosy"
    max_batch_size = 2
    def __init__(self, options: Wishes):
        self.wishes = options
    def score(self, items):
        return [self.wishes.side for _ in items]

class Vague(Choosy):
    def __init__(self, options):
        super().__init__(options)

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


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
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


def test_options_reach_the_scorer_as_their_own_types(module: str) -> None:
    scorer = load_scorer(f"{module}:Choosy", {"side": "3", "shape": "flat"})
    assert list(scorer.score([ScoreItem(np.zeros((1, 1, 3), np.uint8))])) == [3]


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("Choosy", {}, "it needs the option side (--set side=…): How long."),
        ("Choosy", {"side": "three"}, "--set side: Input should be a valid integer"),
        ("Choosy", {"side": "3", "shap": "x"}, "'shap' (did you mean shape?): use shape, side"),
        ("Good", {"side": "3"}, "there is no option 'side': this reward takes none"),
        ("Vague", {"side": "3"}, "must be annotated with a subclass of RewardOptions"),
    ],
)
def test_options_that_do_not_fit(
    module: str, name: str, options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ScorerLoadError) as caught:
        load_scorer(f"{module}:{name}", options)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reward_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "reward_services.scorers.aesthetic", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ScorerLoadError, match=r"'torch'.+ddpo-reward-services\[aesthetic\]"):
        load_scorer("aesthetic")
