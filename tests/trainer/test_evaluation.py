"""An evaluation draws the same pictures every time, whatever the run is doing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trainer.config import Config, load_config
from trainer.evaluation import evaluate
from trainer.gallery import Evaluation
from trainer.policy import Policy
from trainer.reward_service import RewardSource
from trainer.rewards import RewardServices
from trainer.scores import Images
from trainer.stops import Interrupted, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess


@pytest.fixture
def services(service: "ServiceProcess") -> Iterator[RewardServices]:
    sources = [RewardSource("jpeg", (service.url,))]
    with RewardServices(sources, deadline_s=30, max_outage_s=30, notify=print) as connected:
        connected.connect()
        yield connected


def measured(
    policy: Policy, services: RewardServices, config: Config, epoch: int = 0
) -> tuple[Evaluation, Images]:
    tables = policy.tables(config.sampling.steps, config.sampling.eta)
    return evaluate(policy, tables, services, config, epoch, lambda _: None, lambda: None)


def test_the_same_pictures_every_time(
    lora_policy: Policy, services: RewardServices, micro_recipe: Path
) -> None:
    config = load_config(micro_recipe)
    first, pictures = measured(lora_policy, services, config, epoch=0)
    second, again = measured(lora_policy, services, config, epoch=7)
    assert np.array_equal(pictures, again)
    assert (first.epoch, second.epoch) == (0, 7)
    assert first.scores == second.scores
    assert first.prompts == ["a cat", "a dog", "a horse"]
    # Another run seed trains on other noise; the evaluation stays comparable.
    other, unchanged = measured(
        lora_policy, services, load_config(micro_recipe, ["run.seed=99"]), epoch=0
    )
    assert np.array_equal(pictures, unchanged)
    assert other == first


def test_one_score_is_too_few(
    lora_policy: Policy, services: RewardServices, micro_recipe: Path
) -> None:
    config = load_config(micro_recipe, ["evaluation.samples=1"])
    with pytest.raises(RunStopped, match=r"only 1 of the 1 .*raise evaluation\.samples"):
        measured(lora_policy, services, config)


def test_an_evaluation_can_be_left(
    lora_policy: Policy, services: RewardServices, micro_recipe: Path
) -> None:
    def leave() -> None:
        raise Interrupted("stopped by SIGINT", 2)

    config = load_config(micro_recipe)
    tables = lora_policy.tables(config.sampling.steps, config.sampling.eta)
    drawn: list[int] = []
    with pytest.raises(Interrupted):
        evaluate(lora_policy, tables, services, config, 0, drawn.append, leave)
    assert drawn == [2]  # one batch of two, then out
