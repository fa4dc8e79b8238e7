"""The file of a study: which cells it makes, with which settings, and what is wrong with it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.stops import ConfigError
from trainer.studies.study import Study

ROOT = Path(__file__).parents[3]
BASE = """
name = "small"
seeds = [1, 2]
[settings]
model = { path = "somewhere" }
training = { learning_rate = 1e-4, epochs = 2 }
[arms.ddpo_is]
training = { algorithm = "ddpo_is" }
[arms.ddpo_sf]
training = { algorithm = "ddpo_sf", batch_size = 256, learning_rate = 2e-4 }
[rewards.jpeg]
[rewards.taste]
training = { learning_rate = 3e-4, epochs = 3 }
"""

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str) -> Path:
        path = tmp_path / "study.toml"
        path.write_text(text)
        return path

    return write


def test_every_arm_meets_every_reward_and_seed_and_the_seeds_come_last(written: Written) -> None:
    study = Study.read(written(BASE))
    assert [cell.name for cell in study.cells] == [
        f"{arm}/{reward}/{seed}"
        for seed in (1, 2)
        for reward in ("jpeg", "taste")
        for arm in ("ddpo_is", "ddpo_sf")
    ]
    assert len({cell.folder for cell in study.cells}) == 8


def test_an_arm_is_stronger_than_a_reward_and_both_than_either(written: Written) -> None:
    extra = "[both.taste.ddpo_sf.training]\nepochs = 9\n"
    cells = {cell.name: cell.config() for cell in Study.read(written(BASE + extra)).cells}
    rates = {name: config.training.learning_rate for name, config in cells.items()}
    assert rates["ddpo_is/jpeg/1"] == 1e-4
    assert rates["ddpo_is/taste/1"] == 3e-4
    assert rates["ddpo_sf/taste/1"] == 2e-4
    assert cells["ddpo_sf/taste/2"].training.epochs == 9
    assert cells["ddpo_is/taste/2"].training.epochs == 3
    assert cells["ddpo_is/taste/2"].run.seed == 2


def test_the_hash_tells_settings_not_places(written: Written) -> None:
    first, second = Study.read(written(BASE)).cells[:2]
    elsewhere = BASE.replace("[arms.ddpo_is]", '[settings.run]\ndir = "there"\n[arms.ddpo_is]')
    default = BASE.replace("epochs = 2 }", "epochs = 2, inner_epochs = 1 }")
    other = BASE.replace("epochs = 2 }", "epochs = 2, weight_decay = 0 }")
    assert first.config_hash != second.config_hash
    for text, same in ((elsewhere, True), (default, True), (other, False)):
        changed = Study.read(written(text)).cells[0].config_hash
        assert (changed == first.config_hash) is same


def test_cells_are_chosen_by_their_names(written: Written) -> None:
    study = Study.read(written(BASE))
    assert study.chosen([]) == study.cells
    assert [cell.name for cell in study.chosen(["*/taste/2"])] == [
        "ddpo_is/taste/2",
        "ddpo_sf/taste/2",
    ]
    assert len(study.chosen(["ddpo_is", "ddpo_sf/jpeg/1"])) == 5
    with pytest.raises(ConfigError, match="'ppo': the study small has no such cell"):
        study.chosen(["ddpo_is", "ppo"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("seeds = [1, 2]", "seeds = [1, 1]"), "a seed is given twice"),
        (("seeds = [1, 2]", "seeds = []"), "seeds"),
        (("[rewards.taste]", "[both.smell.ddpo_is]\n[rewards.taste]"), "both.smell"),
        (("[rewards.taste]", "[both.taste.ppo]\n[rewards.taste]"), "both.taste.ppo"),
        (("seeds = [1, 2]", 'seeds = [1]\nmonitors = ["jpeg"]'), "reward and a monitor"),
        (("epochs = 2 }", "epoch = 2 }"), "cell ddpo_is/jpeg/1: training.epoch: Extra"),
        (("epochs = 2 }", "epochs = 2, batch_size = 3 }"), "batch_size"),
        (('name = "small"', "name = small"), "is not valid TOML"),
        (("arms.ddpo_is", 'arms."a/b"'), "arms"),
    ],
)
def test_what_is_wrong_is_told(written: Written, change: tuple[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        Study.read(written(BASE.replace(*change)))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Study.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda p: p.stem
)
def test_the_studies_of_this_repository_fit(path: Path) -> None:
    assert Study.read(path).cells
