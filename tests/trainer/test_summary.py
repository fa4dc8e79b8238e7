"""summary.json says what a program wants to know of a finished run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config import load_config
from trainer.loop import train
from trainer.summary import config_hash

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess


def test_a_finished_run_is_summed_up(service: "ServiceProcess", micro_recipe: Path) -> None:
    config = load_config(micro_recipe, [], {"jpeg": service.url}, {"size": service.url})
    folder = train(config)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    reward = summary["reward"]
    assert (reward["name"], reward["units"]) == ("jpeg_compressibility", "kB")
    for when in ("before", "after"):
        assert reward[when]["samples"] == 3
        low, high = reward[when]["ci95"]
        assert low <= reward[when]["mean"] <= high
    watched = summary["monitors"]["size"]
    assert watched["name"] == "jpeg_compressibility"
    for when in ("before", "after"):
        assert watched[when] == reward[when]
    change = reward["after"]["mean"] - reward["before"]["mean"]
    assert reward["change_percent"] == 100 * change / -reward["before"]["mean"]
    counts = ("reward_queries", "evaluation_queries", "epochs", "masked", "skipped_steps")
    assert [summary[name] for name in counts] == [4, 3, 1, 0, 0]
    parts = sum(summary[f"seconds_{part}"] for part in ("sampling", "reward_wait", "update"))
    assert 0 < parts < summary["seconds"]
    assert summary["config_hash"] == config_hash(config)
    assert summary["rewards"] == {"jpeg": reward}


def test_several_rewards_are_each_summed_up(service: "ServiceProcess", micro_recipe: Path) -> None:
    two = {"jpeg": service.url, "again": service.url}
    folder = train(load_config(micro_recipe, ["rewards.again.weight=2"], two))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert "reward" not in summary
    rewards = summary["rewards"]
    assert {name: said["weight"] for name, said in rewards.items()} == {"jpeg": 1, "again": 2}
    assert rewards["jpeg"] | {"weight": 2} == rewards["again"]
    # Every picture counts once, however many rewards are asked about it.
    assert (summary["reward_queries"], summary["evaluation_queries"]) == (4, 3)


def test_the_hash_changes_with_any_setting(micro_recipe: Path) -> None:
    one, same, other = (
        config_hash(load_config(micro_recipe, [f"run.seed={seed}"])) for seed in (1, 1, 2)
    )
    assert one == same != other
