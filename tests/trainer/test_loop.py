"""Runs in this process against a real service: what stops them, and how they go on."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from trainer import checkpoints, loop
from trainer.config import Config
from trainer.loop import train
from trainer.prompts import PromptSampler, load_prompts
from trainer.run import Moment, Run
from trainer.step_statistics import UpdateStats
from trainer.stops import ConfigError, Interrupted, Outage, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

EPOCHS = 3
InEpoch = Callable[[int, Callable[[Run], None]], None]
KILOBYTES = """
from reward_services.scorers.jpeg import jpeg_incompressibility

class Kilobytes:
    name, units, direction, max_batch_size = "kilobytes", "kB", "minimize", 64

    def score(self, items):
        return jpeg_incompressibility().score(items)
"""
TOLD = """
class Told:
    name, max_batch_size = "told", 64

    def score(self, items):
        return [item.metadata.get("n", 0) + float(item.image.mean()) / 255 for item in items]
"""


@pytest.fixture
def config_of(micro_sd: Path, tmp_path: Path) -> Callable[..., Config]:
    """A configuration of a few seconds; sections given by keyword are laid over it."""

    def build(url: str, name: str = "run", **sections: dict[str, Any]) -> Config:
        # Few prompts, so that each one's statistics reach over the epochs.
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a cat\nan ant\n")
        values: dict[str, dict[str, Any]] = {
            "run": {"dir": str(tmp_path), "name": name, "seed": 1, "threads": 1},
            "model": {"path": str(micro_sd), "train": "lora"},
            "prompts": {"source": str(prompts)},
            "sampling": {"steps": 3, "batch_size": 2, "samples_per_epoch": 4},
            "training": {
                "epochs": EPOCHS,
                "batch_size": 2,
                "micro_batch_size": 6,
                "learning_rate": 1e-2,
                "clip_range": 1e-3,
            },
            "advantages": {"buffer_size": 6, "min_count": 2},
            "evaluation": {"samples": 3},
            "tracking": {"tensorboard": False},
            "rewards": {"jpeg": {"urls": [url]}},
        }
        for section, changes in sections.items():
            values[section] = values.get(section, {}) | changes
        return Config.model_validate(values)

    return build


@pytest.fixture
def in_epoch(monkeypatch: pytest.MonkeyPatch) -> InEpoch:
    """Does something once, right before the update of an epoch, which is counted from 1."""

    def arrange(epoch: int, act: Callable[[Run], None]) -> None:
        update = loop._update

        def acting(run: Run, moment: Moment, *rest: Any) -> UpdateStats:
            if run.epoch == epoch - 1:
                monkeypatch.setattr(loop, "_update", update)
                act(run)
            return update(run, moment, *rest)

        monkeypatch.setattr(loop, "_update", acting)

    return arrange


def trained(folder: Path) -> bytes:
    return (folder / "pytorch_lora_weights.safetensors").read_bytes()


def newest_epoch(folder: Path) -> int:
    newest = checkpoints.newest(folder / "checkpoints")
    return checkpoints.load(newest).state.epoch if newest else -1


def test_a_lower_is_better_reward_trains_the_same_way(
    own_service: "ServiceProcess",
    service: "ServiceProcess",
    config_of: Callable[..., Config],
    tmp_path: Path,
) -> None:
    (tmp_path / "kilobytes.py").write_text(KILOBYTES)
    own_service.kill()
    own_service.start("kilobytes:Kilobytes")
    fewer = train(config_of(own_service.url, "fewer"))
    more = train(config_of(service.url, "more"))
    # Minimising kB and maximising −kB are one and the same.
    assert trained(fewer) == trained(more)
    lines = [(folder / "metrics.jsonl").read_text().splitlines()[0] for folder in (fewer, more)]
    assert json.loads(lines[0])["reward_mean"] == -json.loads(lines[1])["reward_mean"]


def test_rewards_that_agree_train_as_one_of_them(
    own_service: "ServiceProcess",
    service: "ServiceProcess",
    config_of: Callable[..., Config],
    tmp_path: Path,
) -> None:
    (tmp_path / "kilobytes.py").write_text(KILOBYTES)
    own_service.kill()
    own_service.start("kilobytes:Kilobytes")
    # Fewer kB and more −kB: were one of the directions lost, they would cancel.
    agree = {"jpeg": {"urls": [service.url], "weight": 0.3}}
    agree["kilobytes"] = {"urls": [own_service.url], "weight": 0.3}
    both = train(config_of(service.url, "both", rewards=agree))
    alone = train(config_of(service.url, "alone"))
    assert trained(both) == trained(alone)
    records = [
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        for folder in (both, alone)
    ]
    assert records[0]["reward_mean/jpeg"] == records[1]["reward_mean"]
    assert records[0]["reward_min/kilobytes"] == -records[1]["reward_max"]
    assert "reward_mean" not in records[0]
    said = (both / "log").read_text()
    assert "reward kilobytes: version" in said
    assert "kB, minimize, 50 % of the weight" in said
    assert f"epoch {EPOCHS}/{EPOCHS}: jpeg -0." in said
    assert said.count(f" after {4 * EPOCHS} reward queries in ") == 2


def test_rewards_that_are_at_odds_train_nothing(
    start_service: Callable[..., "ServiceProcess"],
    service: "ServiceProcess",
    config_of: Callable[..., Config],
) -> None:
    more = start_service("kilobytes:Kilobytes", KILOBYTES.replace("minimize", "maximize"))
    # With equal weights the advantages are 0; with others the heavier reward has its way.
    folders = []
    for weight in (1.0, 3.0):
        odds = {
            "jpeg": {"urls": [service.url], "weight": 3.0},
            "kilobytes": {"urls": [more.url], "weight": weight},
        }
        training = {"weight_decay": 0.0}
        config = config_of(service.url, f"w{weight:g}", rewards=odds, training=training)
        folders.append(train(config))
    records = [
        [json.loads(line)["grad_norm"] for line in path.read_text().splitlines()]
        for path in (folder / "metrics.jsonl" for folder in folders)
    ]
    assert min(records[0]) > 0
    assert records[1] == [0.0] * EPOCHS


def test_a_run_begun_when_it_had_one_reward_goes_on(
    service: "ServiceProcess", config_of: Callable[..., Config], in_epoch: InEpoch
) -> None:
    straight = train(config_of(service.url, "straight"))
    in_epoch(2, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(config_of(service.url))
    folder = straight.parent / "run"
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("weight = 1.0\n", ""))
    state_path = folder / "checkpoints" / "epoch-00001" / "state.json"
    state = json.loads(state_path.read_text())
    state["tracker"] = state.pop("trackers")["jpeg"]
    del state["config"]["rewards"]["jpeg"]["weight"]
    state_path.write_text(json.dumps(state))
    scores_path = folder / "evaluation" / "epoch-00000" / "scores.json"
    scores = json.loads(scores_path.read_text())
    scores |= {"reward": "jpeg", **scores.pop("rewards")["jpeg"]}
    scores_path.write_text(json.dumps(scores))
    train(config_of(service.url), resume=True)
    assert trained(folder) == trained(straight)


def test_a_prompt_may_be_sampled_several_times(
    service: "ServiceProcess", config_of: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    sample = loop._sample

    def noting(run: Run) -> Any:
        rollout, pending = sample(run)
        drawn.append(rollout.prompts)
        return rollout, pending

    monkeypatch.setattr(loop, "_sample", noting)
    train(config_of(service.url, sampling={"samples_per_prompt": 2}))
    assert len(drawn) == EPOCHS
    assert all(len(prompts) == 4 and prompts[::2] == prompts[1::2] for prompts in drawn)


def test_the_state_of_the_training_pictures_is_recorded(
    service: "ServiceProcess", config_of: Callable[..., Config]
) -> None:
    one = {"epochs": 1, "batch_size": 4}
    alone = train(config_of(service.url, "alone", training=one, prompts={"source": "animals"}))
    pairs = train(config_of(service.url, "pairs", training=one, sampling={"samples_per_prompt": 2}))
    records = [json.loads((path / "metrics.jsonl").read_text()) for path in (alone, pairs)]
    for record in records:
        assert 0 < record["saturation"] < 1
        assert 0 < record["high_frequency"] < 1
        assert 0.1 < record["latent_rms"] < 10
    assert records[0]["diversity"] is None
    assert records[1]["diversity"] > 0


def test_rewards_get_the_metadata_of_the_training_prompts(
    start_service: Callable[..., "ServiceProcess"],
    config_of: Callable[..., Config],
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "counted.jsonl"
    lines = [
        {"prompt": "two cats", "metadata": {"n": 100}},
        {"prompt": "six ants", "metadata": {"n": 300}},
    ]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    told = start_service("told:Told", TOLD)
    folder = train(
        config_of(
            told.url,
            training={"epochs": 1, "batch_size": 4},
            prompts={"source": str(prompts)},
        )
    )
    record = json.loads((folder / "metrics.jsonl").read_text())
    # The picture's mean, from 0 to 1, lies on top of the number that the prompt stands for.
    drawn = PromptSampler(load_prompts(str(prompts)), seed=1).draw(4)
    told_mean = sum(100 if prompt == "two cats" else 300 for prompt in drawn) / 4
    assert 0 < record["reward_mean"] - told_mean < 1


def test_an_outage_ends_the_run_and_resuming_gives_the_same_weights(
    own_service: "ServiceProcess",
    config_of: Callable[..., Config],
    in_epoch: InEpoch,
) -> None:
    straight = train(config_of(own_service.url, "straight"))
    in_epoch(1, lambda _: own_service.kill())
    never = {"every": 100}
    with pytest.raises(Outage, match="max_outage_s"):
        train(config_of(own_service.url, scoring={"max_outage_s": 0.5}, checkpoints=never))
    folder = straight.parent / "run"
    assert newest_epoch(folder) == 1
    own_service.start()
    # Another patience is no other run.
    train(config_of(own_service.url, scoring={"max_outage_s": 60}), resume=True)
    assert trained(folder) == trained(straight)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == EPOCHS


def test_an_outage_of_one_reward_of_two(
    own_service: "ServiceProcess",
    service: "ServiceProcess",
    config_of: Callable[..., Config],
    in_epoch: InEpoch,
    tmp_path: Path,
) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    own_service.kill()
    own_service.start("told:Told")
    two = {"jpeg": {"urls": [service.url]}, "told": {"urls": [own_service.url], "weight": 2.0}}
    straight = train(config_of(service.url, "straight", rewards=two))
    in_epoch(1, lambda _: own_service.kill())
    with pytest.raises(Outage, match="the reward service told has been away"):
        train(config_of(service.url, rewards=two, scoring={"max_outage_s": 0.5}))
    own_service.start("told:Told")
    folder = train(config_of(service.url, rewards=two), resume=True)
    assert trained(folder) == trained(straight)


def test_another_reward_stops_the_run_and_its_resumption(
    own_service: "ServiceProcess",
    config_of: Callable[..., Config],
    in_epoch: InEpoch,
    tmp_path: Path,
) -> None:
    def swap(_: Run) -> None:
        own_service.kill()
        own_service.start("jpeg_incompressibility")

    in_epoch(1, swap)
    config = config_of(own_service.url)
    with pytest.raises(RunStopped, match="no longer the reward this run started with"):
        train(config)
    assert newest_epoch(tmp_path / "run") == 1
    with pytest.raises(RunStopped, match="no longer the reward this run started with"):
        train(config, resume=True)


def test_an_interruption_in_the_update_is_acted_on_when_nothing_is_lost(
    service: "ServiceProcess",
    config_of: Callable[..., Config],
    in_epoch: InEpoch,
    tmp_path: Path,
) -> None:
    in_epoch(2, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        train(config_of(service.url, "saved"))
    # The beginning of epoch 2 was on the disk: the update was left at once.
    assert newest_epoch(tmp_path / "saved") == 1
    in_epoch(2, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(config_of(service.url, "unsaved", checkpoints={"every": 100}))
    # It was not, so the update was finished and its end was saved.
    assert newest_epoch(tmp_path / "unsaved") == 2


def test_resuming_with_another_configuration_is_refused(
    service: "ServiceProcess", config_of: Callable[..., Config]
) -> None:
    folder = train(config_of(service.url, training={"epochs": 1, "batch_size": 4}))
    before = trained(folder)
    with pytest.raises(
        ConfigError,
        match=r"has another configuration \(training\.learning_rate: 0\.01 → 0\.02\); resume it",
    ):
        train(
            config_of(
                service.url,
                training={"epochs": 1, "batch_size": 4, "learning_rate": 0.02},
            ),
            resume=True,
        )
    with pytest.raises(RunStopped, match="already used"):
        train(config_of(service.url))
    assert trained(folder) == before
    # With its own it is found to be finished.
    train(config_of(service.url, training={"epochs": 1, "batch_size": 4}), resume=True)
    assert trained(folder) == before


def test_evaluations_in_between(
    service: "ServiceProcess", config_of: Callable[..., Config]
) -> None:
    folder = train(config_of(service.url, evaluation={"samples": 3, "every": 1}))
    done = sorted(path.name for path in (folder / "evaluation").glob("epoch-*"))
    assert done == [f"epoch-{epoch:05d}" for epoch in range(EPOCHS + 1)]


def test_weights_that_diverge_stop_the_run(
    service: "ServiceProcess", config_of: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(
        RunStopped,
        match=r"4 of 4 pictures have no score \(4 non_finite_image\).*lower training.learning_rate",
    ):
        train(config_of(service.url, training={"learning_rate": 1e30}))
    assert not (tmp_path / "run" / "summary.json").exists()


def test_gradients_that_stay_broken_stop_the_run(
    service: "ServiceProcess",
    config_of: Callable[..., Config],
    in_epoch: InEpoch,
    tmp_path: Path,
) -> None:
    def break_weights(run: Run) -> None:
        with torch.no_grad():
            run.policy.trainable_parameters()[0].fill_(torch.nan)

    in_epoch(2, break_weights)
    with pytest.raises(
        RunStopped, match=r"2 optimiser steps in a row .*lower training\.learning_rate \(0\.01\)"
    ):
        train(config_of(service.url, training={"max_skipped_steps": 2}))
    # The weights of the epoch that failed are not what a resumed run would start from.
    assert newest_epoch(tmp_path / "run") == 1


def test_a_failed_start_leaves_no_folder(config_of: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="cannot be reached"):
        train(config_of("http://127.0.0.1:9"))
    assert not (tmp_path / "run").exists()
