"""What a run may be resumed with, told before anything heavy is done."""

import os
from pathlib import Path

import pytest

from trainer.config import load_config
from trainer.loop import train
from trainer.run_folder import RunFolder
from trainer.stops import ConfigError, RunStopped

REWARD = {"jpeg": "http://127.0.0.1:9"}
TWO = {"jpeg": "http://127.0.0.1:9", "clip": "http://127.0.0.1:9"}


def start(recipe: Path, rewards: dict[str, str] = REWARD) -> RunFolder:
    """A folder as a run leaves it that was killed before its first checkpoint."""
    config = load_config(recipe, [], rewards)
    folder = RunFolder(config.folder)
    os.close(folder.claim(config.to_toml()))
    return folder


def resume(recipe: Path, *overrides: str) -> None:
    train(load_config(recipe, overrides, REWARD), resume=True)


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("run.seed=4", "run.seed: 0 → 4"),
        ("run.threads=2", "run.threads: 1 → 2"),
        ("training.epochs=9", "training.epochs: 1 → 9"),
        ("model.lora.rank=8", "model.lora.rank: 4 → 8"),
        ("prompts.source=animal_activities", 'prompts.source: "animals" → "animal_activities"'),
        ("rewards.jpeg.weight=2", "rewards.jpeg.weight: 1.0 → 2.0"),
    ],
)
def test_what_changes_the_result_is_refused(
    micro_recipe: Path, override: str, difference: str
) -> None:
    start(micro_recipe)
    with pytest.raises(ConfigError) as refused:
        resume(micro_recipe, override)
    assert f"another configuration ({difference})" in str(refused.value)


def test_the_environment_counts_as_a_change(
    micro_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(micro_recipe)
    monkeypatch.setenv("DDPO_TRAINING__LEARNING_RATE", "0.5")
    with pytest.raises(ConfigError, match=r"training\.learning_rate: 0\.05 → 0\.5"):
        resume(micro_recipe)


@pytest.mark.parametrize(
    "override",
    [
        "scoring.max_outage_s=7",
        "checkpoints.keep=9",
        "tracking.tensorboard=true",
        "monitors.judge=http://127.0.0.1:10",
    ],
)
def test_what_does_not_is_taken(micro_recipe: Path, override: str) -> None:
    start(micro_recipe)
    # It gets as far as the service, which is not there.
    with pytest.raises(RunStopped, match="cannot be reached"):
        resume(micro_recipe, override)


def test_a_service_may_have_moved(micro_recipe: Path) -> None:
    start(micro_recipe, TWO)
    moved = {"clip": "http://127.0.0.1:10", "jpeg": "http://127.0.0.1:11"}
    with pytest.raises(RunStopped, match=r"clip at http://127\.0\.0\.1:10 cannot be reached"):
        train(load_config(micro_recipe, [], moved), resume=True)


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        (REWARD, TWO, "rewards.clip.weight: null → 1.0"),
        (TWO, REWARD, "rewards.clip.weight: 1.0 → null"),
        (REWARD, {"png": REWARD["jpeg"]}, "rewards.jpeg.weight: 1.0 → null"),
    ],
)
def test_the_rewards_of_a_run_stay_the_same(
    micro_recipe: Path, before: dict[str, str], after: dict[str, str], difference: str
) -> None:
    start(micro_recipe, before)
    with pytest.raises(ConfigError) as refused:
        train(load_config(micro_recipe, [], after), resume=True)
    assert difference in str(refused.value)


def test_a_configuration_of_when_rewards_had_no_weights(micro_recipe: Path) -> None:
    folder = start(micro_recipe)
    text = folder.config.read_text()
    assert "weight = 1.0\n" in text
    folder.config.write_text(text.replace("weight = 1.0\n", ""))
    with pytest.raises(RunStopped, match="cannot be reached"):
        resume(micro_recipe)


def test_a_configuration_of_another_version(micro_recipe: Path) -> None:
    folder = start(micro_recipe)
    folder.config.write_text(folder.config.read_text() + "[future]\nsetting = 1\n")
    with pytest.raises(RunStopped, match="not a configuration of this version"):
        resume(micro_recipe)
