"""metrics.jsonl holds one line per epoch, and a resumed run goes on where the checkpoint was."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.scores import Scores
from trainer.scoring_pace import Pace
from trainer.stops import RunStopped
from trainer.tracking import (
    METRICS,
    MetricsLog,
    meaning,
    read_metrics,
    reward_metrics,
    rewards_in,
    service_metrics,
)


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, None, length=0, epoch=0) as log:
        log.append({"epoch": 1, "reward_mean": -2.5})
        log.append({"epoch": 2, "reward_mean": math.nan, "loss": -math.inf})
    assert read_metrics(path) == [
        {"epoch": 1, "reward_mean": -2.5},
        {"epoch": 2, "reward_mean": None, "loss": None},
    ]


def test_resuming_cuts_what_the_checkpoint_did_not_know(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, None, length=0, epoch=0) as log:
        log.append({"epoch": 1})
        length = log.length()
        log.append({"epoch": 2, "reward_mean": 9.0})
    with path.open("a") as file:
        file.write('{"epoch": 3, "rew')  # the process was killed while it wrote
    assert [record["epoch"] for record in read_metrics(path)] == [1, 2]
    with MetricsLog(path, None, length=length, epoch=1) as log:
        log.append({"epoch": 2})
        assert log.length() == path.stat().st_size
    assert read_metrics(path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_file_that_lost_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n')
    with pytest.raises(RunStopped, match="has 13 bytes but the checkpoint knew 99"):
        MetricsLog(path, None, length=99, epoch=3)


def test_an_undocumented_metric_is_refused(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl", None, length=0, epoch=0) as log, pytest.raises(KeyError):
        log.append({"epoch": 1, "reward_maen": 1.0})


def test_several_rewards_have_no_mean_in_common(tmp_path: Path) -> None:
    one = {"jpeg": np.array([-4.0, -2.0])}
    two = one | {"a/b": np.array([1.0, 1.0])}
    expected = {"reward_mean": -3, "reward_std": 1, "reward_min": -4, "reward_max": -2}
    assert reward_metrics(one) == expected
    several = reward_metrics(two)
    assert several == {f"{name}/jpeg": value for name, value in expected.items()} | {
        "reward_mean/a/b": 1,
        "reward_std/a/b": 0,
        "reward_min/a/b": 1,
        "reward_max/a/b": 1,
    }
    with MetricsLog(tmp_path / "m.jsonl", None, length=0, epoch=0) as log:
        log.append({"epoch": 1, **several})
        for mistake in ("loss/jpeg", "reward_mean/", "/reward_mean", "reward_sum/jpeg"):
            with pytest.raises(KeyError):
                log.append({"epoch": 2, mistake: 1.0})
    assert rewards_in(read_metrics(tmp_path / "m.jsonl")) == ["a/b", "jpeg"]
    assert rewards_in([{"epoch": 1, **expected}]) == rewards_in([]) == ["reward"]


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "absent") == []


def test_every_metric_says_what_it_is() -> None:
    assert all(text.endswith(".") for text in METRICS.values())


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = tmp_path / "tensorboard"
    with MetricsLog(tmp_path / "m.jsonl", board, length=0, epoch=0) as log:
        log.append({"epoch": 1, "reward_mean": -2.0})
        log.append({"epoch": 2, "reward_mean": -1.0})
    events = EventAccumulator(str(board))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("reward_mean")]
    assert points == [(1, -2.0), (2, -1.0)]


def test_what_is_recorded_of_services() -> None:
    late = {"a": Pace(1.0, 2.0), "b": Pace(3.0, 5.0)}
    rewards = {name: np.zeros(2) for name in late}
    both = Scores(rewards, np.ones(2, np.bool_), Counter(), "", 3.5, 0.0, late)
    assert service_metrics(both) == {
        "seconds_reward_wait": 3.5,
        "scoring_tail": 5.0,
        "seconds_reward_wait/a": 1.0,
        "scoring_tail/a": 2.0,
        "seconds_reward_wait/b": 3.0,
        "scoring_tail/b": 5.0,
    }
    assert all(meaning(name) for name in service_metrics(both))
    one = replace(both, by_reward={"a": np.zeros(2)}, paces={"a": Pace(1.0, 2.0)})
    assert service_metrics(one) == {"seconds_reward_wait": 3.5, "scoring_tail": 2.0}
    assert math.isnan(service_metrics(replace(one, paces={}))["scoring_tail"])
