"""Where a run's settings come from, and that a wrong one is told in one line."""

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from trainer.config import Config, load_config
from trainer.recipe_files import read_recipe, recipe_names, recipe_path
from trainer.stops import ConfigError

RECIPE = """
[model]
path = "some/model"
[training]
epochs = 3
learning_rate = 0.001
[rewards]
jpeg_compressibility = "http://localhost:8001"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_stronger_sources_win(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(recipe)
    assert (config.training.epochs, config.training.learning_rate) == (3, 0.001)
    assert config.training.batch_size == 64
    monkeypatch.setenv("DDPO_TRAINING__EPOCHS", "4")
    monkeypatch.setenv("DDPO_TRAINING__BATCH_SIZE", "32")
    config = load_config(recipe, ["training.epochs = 5"])
    assert (config.training.epochs, config.training.batch_size) == (5, 32)
    assert config.training.learning_rate == 0.001


def test_nested_values_from_the_environment(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPO_MODEL__LORA__RANK", "9")
    monkeypatch.setenv("DDPO_TRAINING__BETAS", "[0.1, 0.2]")
    monkeypatch.setenv("DDPO_REWARDS__JPEG_COMPRESSIBILITY", "http://other:1")
    config = load_config(recipe)
    assert config.model.lora.rank == 9
    assert config.training.betas == (0.1, 0.2)
    assert config.rewards["jpeg_compressibility"].urls == ("http://other:1",)


def test_overrides_of_every_kind(recipe: Path) -> None:
    config = load_config(
        recipe,
        [
            "training.betas=[0.5, 0.6]",
            "model.lora.target_modules=['to_q']",
            'run.name="2"',
            "tracking.tensorboard=false",
            "sampling.eta=5e-1",
        ],
    )
    assert config.training.betas == (0.5, 0.6)
    assert config.model.lora.target_modules == ("to_q",)
    assert (config.run.name, config.tracking.tensorboard) == ("2", False)
    assert config.sampling.eta == 0.5


def test_rewards_of_the_command_line_replace_all_others(recipe: Path) -> None:
    config = load_config(recipe, rewards={"brightness": "https://host/x"})
    assert {name: section.urls for name, section in config.rewards.items()} == {
        "brightness": ("https://host/x",)
    }


@pytest.mark.parametrize("given", [{"a": "http://a", "b": "http://b"}, None])
def test_several_rewards_with_weights(recipe: Path, given: dict[str, str] | None) -> None:
    recipe.write_text(RECIPE.partition("[rewards]")[0] + '[rewards]\na = "http://a"\n')
    more = ["rewards.b=http://b", "rewards.b.weight=0.5", "rewards.a.api_key_env=KEY"]
    config = load_config(recipe, more, given)
    assert config.weights == {"a": 1.0, "b": 0.5}
    # Changing one setting of a reward leaves it its others, however they were written.
    assert [section.urls for section in config.rewards.values()] == [("http://a",), ("http://b",)]
    assert config.rewards["a"].api_key_env == "KEY"


def test_a_weight_written_before_its_url_survives_it(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(RECIPE.replace("[rewards]", "[rewards.a]\nurls = 'http://a'\nweight = 3\n"
                                     "[rewards]"))  # fmt: skip
    monkeypatch.setenv("DDPO_REWARDS__JPEG_COMPRESSIBILITY__WEIGHT", "0.25")
    changes = ["rewards.a.weight=4", "rewards.a=http://other"]
    config = load_config(recipe, changes)
    assert config.weights == {"a": 4, "jpeg_compressibility": 0.25}
    assert config.rewards["a"].urls == ("http://other",)
    assert config.rewards["jpeg_compressibility"].urls == ("http://localhost:8001",)


@pytest.mark.parametrize(("section", "option"), [("rewards", "reward"), ("monitors", "monitor")])
def test_a_setting_of_a_reward_that_is_left_out_is_not_lost(
    recipe: Path, section: str, option: str
) -> None:
    given = {section: {"clip": "http://c"}}
    with pytest.raises(
        ConfigError, match=rf"^--set {section}\.clpi…: --{option} names clip and no clpi; correct"
    ):
        load_config(recipe, [f"{section}.clpi.api_key_env=KEY"], **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.algorithm=rwr"], r"^2 rewards \(a, b\) .*set rwr\.standardize to true"),
        (["training.algorithm=rwr_sparse", "rwr.keep=threshold"], r"^2 rewards .*set rwr\.keep to"),
        (["training.algorithm=rwr", "rwr.standardize=true"], None),
        (["training.algorithm=rwr_sparse"], None),
        (["training.algorithm=ddpo_sf", "training.batch_size=256"], None),
    ],
)
def test_several_rewards_have_no_common_unit(
    recipe: Path, settings: list[str], message: str | None
) -> None:
    two = {"a": "http://a", "b": "http://b"}
    if message is None:
        load_config(recipe, settings, two)
    else:
        with pytest.raises(ConfigError, match=message):
            load_config(recipe, settings, two)
        load_config(recipe, settings, {"a": "http://a"})


def test_monitors_of_the_command_line(recipe: Path) -> None:
    config = load_config(recipe, monitors={"judge": "http://a:1,http://b:2", "clip": "http://c:3"})
    urls = {name: section.urls for name, section in config.monitors.items()}
    assert urls == {"judge": ("http://a:1", "http://b:2"), "clip": ("http://c:3",)}
    assert list(config.rewards) == ["jpeg_compressibility"]


def test_evaluation_prompts_are_those_of_training_unless_others_are_named(recipe: Path) -> None:
    assert load_config(recipe).evaluation_source == load_config(recipe).prompts.source
    other = load_config(recipe, ["evaluation.prompts=animal_activities"])
    assert other.evaluation_source == "animal_activities"


@pytest.mark.parametrize(
    "override",
    [
        "rewards.jpeg_compressibility=http://a:1,http://b:2",
        "rewards.jpeg_compressibility.urls=http://a:1, http://b:2",
        "rewards.jpeg_compressibility=['http://a:1', 'http://b:2']",
        "rewards.jpeg_compressibility.urls=['http://a:1', 'http://b:2']",
    ],
)
def test_a_reward_may_have_replicas(recipe: Path, override: str, tmp_path: Path) -> None:
    config = load_config(recipe, [override])
    assert config.rewards["jpeg_compressibility"].urls == ("http://a:1", "http://b:2")
    written = tmp_path / "config.toml"
    written.write_text(config.to_toml(), encoding="utf-8")
    assert load_config(written) == config


def test_replicas_from_command_line_and_environment(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = ("http://a:1", "http://b:2")
    assert load_config(recipe, rewards={"r": "http://a:1,http://b:2"}).rewards["r"].urls == two
    monkeypatch.setenv("DDPO_REWARDS__JPEG_COMPRESSIBILITY", "http://a:1,http://b:2")
    assert load_config(recipe).rewards["jpeg_compressibility"].urls == two


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.learing_rate=1"], r"^unknown setting training.learing_rate .*learning_rate"),
        (["trainig.epochs=1"], r"^unknown setting trainig \(did you mean training\?\)$"),
        (["model.lora.rnk=1"], r"^unknown setting model.lora.rnk \(did you mean rank\?\)$"),
        (["sampling.eta=0"], r"^sampling.eta: input should be greater than 0 \(got '0'\)$"),
        (["training.epochs=many"], r"^training.epochs: .* valid integer.*\(got 'many'\)$"),
        (["training.learning_rate=nan"], r"^training.learning_rate: .*\(got 'nan'\)$"),
        (["sampling.guidance_scale=0.5"], r"^sampling.guidance_scale: .* than or equal to 1"),
        (["run.name=../x"], r"^run.name: "),
        (["training.algorithm=ppo"], r"^training.algorithm: .*'ddpo_is'.*\(got 'ppo'\)$"),
        (["monitors.jpeg_compressibility=http://x"], r"^jpeg_compressibility is both a reward and"),
        (["rewards.jpeg_compressibility.weight=0"], r"jpeg_compressibility.weight: .*than 0 "),
        (["rewards.jpeg_compressibility.weight=inf"], r"jpeg_compressibility.weight: .*finite"),
        (["rewards.other.weight=2"], r"^rewards.other.urls is not set"),
        (["monitors.j=http://x", "monitors.j.weight=2"], r"^unknown setting monitors.j.weight"),
        (
            ["guard.action=stop"],
            r"^guard.action is stop .*: add a monitor \(--monitor NAME=URL\) a",
        ),
        (
            ["guard.action=warn", "monitors.j=http://x"],
            r": add evaluations \(evaluation.every=1\),",
        ),
        (["guard.action=warn", "evaluation.every=1"], r"during training: add a monitor \(.*\), or"),
        (["rewards.jpeg_compressibility=localhost"], r"^rewards.jpeg_compressibility.urls.0: "),
        (["rewards.jpeg_compressibility=http://a,"], r"^rewards.jpeg_compressibility.urls.1: "),
        (["rewards.jpeg_compressibility=http://a,http://a/"], r"urls: a URL is given twice"),
        (["rewards.jpeg_compressibility=[]"], r"^rewards.jpeg_compressibility.urls: .*at least 1"),
        (["advantages.min_count=99"], r"^advantages: min_count 99 .* buffer_size 16: raise"),
        (["training.batch_size=60"], r"256 is not a multiple of training.batch_size 60: use 240"),
        (["epochs=3"], r"^--set 'epochs=3' is not of the form section.key=value$"),
        (["training.betas=[0.9"], r"^--set 'training.betas=\[0.9': "),
        (["training.timestep_window=[0.5, 0.5]"], r"timestep_window: the window ends at 0.5 and b"),
        (["kl.coefficient=-1"], r"^kl.coefficient: input should be greater than or equal to 0"),
        (["kl.use=both"], r"^kl.use: .*'loss' or 'reward'"),
        (
            ["kl.coefficient=0.1", "training.algorithm=rwr"],
            r"^kl.coefficient is 0.1, but rwr trains .* set kl.coefficient to 0, or training.algo",
        ),
        (["sampling.eta=0", "training.epochs=0"], r"^sampling.eta: .*; training.epochs: "),
    ],
)
def test_wrong_settings_are_told_in_one_line(
    recipe: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(recipe, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("DDPO_SEDE", r"DDPO_SEDE: no section 'sede' .* DDPO_SECTION__KEY"),
        ("DDPO_TRAINING_EPOCHS", r"did you mean training\?"),
        ("DDPO_TRAINING__EPOCH", r"unknown setting training.epoch \(did you mean epochs\?\)"),
        ("DDPO_TRAINING", r"^training: .*\(got 3\)$"),
        ("DDPO_REWARDS", r"^rewards: "),
    ],
)
def test_a_misspelt_variable_is_not_ignored(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "3")
    with pytest.raises(ConfigError, match=message):
        load_config(recipe)


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe named 'nope' and no such file; recipes: \w"):
        load_config("nope")
    with pytest.raises(ConfigError, match=r"^model.path is not set: name a recipe"):
        load_config()
    path = tmp_path / "broken.toml"
    path.write_text("[training\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken.toml is not valid TOML: .*line 1"):
        load_config(path)


def test_every_shipped_recipe_loads() -> None:
    names = recipe_names()
    assert "emoji_compressibility" in names
    for name in names:
        assert recipe_path(name).is_file()
        assert load_config(name).model_dump(exclude_unset=True).keys() == read_recipe(name).keys()


def test_constructing_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # A checkpoint's configuration is built so, and must be the one that was saved.
    monkeypatch.setenv("DDPO_TRAINING__EPOCHS", "4")
    assert Config.model_validate({"model": {"path": "x"}}).training.epochs == 100


def test_the_resolved_configuration_is_a_recipe(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe, ['run.name="a"', "training.betas=[0.5, 0.6]"])
    written = tmp_path / "config.toml"
    written.write_text(config.to_toml(), encoding="utf-8")
    assert load_config(written) == config
    assert tomllib.loads(config.to_toml())["model"]["path"] == "some/model"


def test_differences_name_setting_and_values(recipe: Path) -> None:
    config, other = load_config(recipe), load_config(recipe, ["training.epochs=9"])
    assert config.differences(config) == []
    assert config.differences(other) == ["training.epochs: 3 → 9"]
    without = config.model_copy(update={"rewards": {}})
    assert "rewards.jpeg_compressibility.urls" in " ".join(config.differences(without))


def test_a_run_needs_a_reward() -> None:
    with pytest.raises(ConfigError, match="no reward is named: add --reward NAME=URL"):
        Config.model_validate({"model": {"path": "x"}}).require_reward()


def test_the_folder_of_a_run(recipe: Path) -> None:
    assert load_config(recipe, ["run.dir=out", "run.name=a"]).folder == Path("out/a")


def test_the_configuration_is_frozen_and_documented(recipe: Path) -> None:
    config = load_config(recipe)
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 1
    for name, field in Config.model_fields.items():
        assert field.description, name
        section = getattr(config, name)
        if isinstance(section, BaseModel):
            assert all(f.description for f in type(section).model_fields.values()), name
