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


def test_the_hash_changes_with_any_setting(micro_recipe: Path) -> None:
    one, same, other = (
        config_hash(load_config(micro_recipe, [f"run.seed={seed}"])) for seed in (1, 1, 2)
    )
    assert one == same != other
