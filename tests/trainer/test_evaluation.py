"""An evaluation draws the same pictures every time, whatever the run is doing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trainer.config import Config, load_config
from trainer.evaluation import evaluate
from trainer.gallery import Evaluation, Spread
from trainer.picture_health import HEALTH, saturation
from trainer.policy import Policy
from trainer.reward_service import RewardSource
from trainer.rewards import RewardServices
from trainer.scores import Images
from trainer.stops import Interrupted, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess


DARKNESS = """
class Darkness:
    name, max_batch_size = "darkness", 64

    def score(self, items):
        return [255 - float(item.image.mean()) for item in items]
"""

NUMBER = """
class Number:
    name, max_batch_size = "number", 64

    def score(self, items):
        return [float(item.metadata.get("n", -1)) for item in items]
"""


@contextmanager
def connected(**urls: str) -> Iterator[RewardServices]:
    sources = [RewardSource(name, (url,)) for name, url in urls.items()]
    with RewardServices(sources, deadline_s=30, max_outage_s=30, notify=print) as services:
        services.connect()
        yield services


@pytest.fixture
def services(service: "ServiceProcess") -> Iterator[RewardServices]:
    with connected(jpeg=service.url) as services:
        yield services


def nothing(_: int = 0) -> None:
    """Go on."""


def measured(
    policy: Policy, services: RewardServices, config: Config, epoch: int = 0
) -> tuple[Evaluation, Images]:
    tables = policy.tables(config.sampling.steps, config.sampling.eta)
    with connected() as none:
        return evaluate(policy, tables, services, none, config, epoch, nothing, nothing)


def test_the_same_pictures_every_time(
    lora_policy: Policy, services: RewardServices, micro_recipe: Path
) -> None:
    config = load_config(micro_recipe)
    first, pictures = measured(lora_policy, services, config, epoch=0)
    second, again = measured(lora_policy, services, config, epoch=7)
    assert np.array_equal(pictures, again)
    assert (first.epoch, second.epoch) == (0, 7)
    assert first.rewards == second.rewards
    assert first.prompts == ["a cat", "a dog", "a horse"]
    # Another run seed trains on other noise; the evaluation stays comparable.
    other, unchanged = measured(
        lora_policy, services, load_config(micro_recipe, ["run.seed=99"]), epoch=0
    )
    assert np.array_equal(pictures, unchanged)
    assert other == first


def test_monitors_judge_the_same_pictures(
    lora_policy: Policy,
    services: RewardServices,
    micro_recipe: Path,
    start_service: Callable[..., "ServiceProcess"],
) -> None:
    config = load_config(micro_recipe)
    tables = lora_policy.tables(config.sampling.steps, config.sampling.eta)
    darkness = start_service("darkness:Darkness", DARKNESS)
    with connected(dark=darkness.url) as monitors:
        found, pictures = evaluate(
            lora_policy, tables, services, monitors, config, 0, nothing, nothing
        )
    levels = [255 - float(picture.mean()) for picture in pictures]
    assert found.monitors["dark"].scores == pytest.approx(levels)
    assert found.monitors["dark"].mean == pytest.approx(sum(levels) / 3)
    assert found.rewards == measured(lora_policy, services, config)[0].rewards
    assert list(found.judged) == ["jpeg", "dark"]


def test_every_reward_is_measured(
    lora_policy: Policy,
    services: RewardServices,
    service: "ServiceProcess",
    micro_recipe: Path,
    start_service: Callable[..., "ServiceProcess"],
) -> None:
    config = load_config(micro_recipe)
    darkness = start_service("darkness:Darkness", DARKNESS)
    with connected(dark=darkness.url, jpeg=service.url) as both:
        found, pictures = measured(lora_policy, both, config)
    assert list(found.rewards) == ["dark", "jpeg"]
    assert found.rewards["dark"].scores == pytest.approx([255 - p.mean() for p in pictures])
    alone, _ = measured(lora_policy, services, config)
    assert found.rewards["jpeg"] == alone.rewards["jpeg"]
    assert found.monitors == {}


def test_the_state_of_the_pictures_is_recorded(
    lora_policy: Policy, services: RewardServices, micro_recipe: Path
) -> None:
    found, pictures = measured(lora_policy, services, load_config(micro_recipe))
    each = saturation(pictures)
    assert found.health["saturation"] == Spread(mean=each.mean(), std=each.std())
    # Three prompts, a picture each: nothing to compare within a prompt.
    assert found.health.keys() == HEALTH.keys() - {"diversity"}
    twice = load_config(micro_recipe, ["evaluation.samples=46"])  # 45 animals, the first again
    assert measured(lora_policy, services, twice)[0].health["diversity"].mean > 0


def test_other_prompts_than_those_trained_on(
    lora_policy: Policy, services: RewardServices, micro_recipe: Path, tmp_path: Path
) -> None:
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("an owl\na crow\n")
    config = load_config(micro_recipe, [f"evaluation.prompts={held_out}"])
    found, _ = measured(lora_policy, services, config)
    assert found.prompts == ["an owl", "a crow", "an owl"]


def test_rewards_get_the_metadata_of_the_prompts(
    lora_policy: Policy,
    micro_recipe: Path,
    tmp_path: Path,
    start_service: Callable[..., "ServiceProcess"],
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a cat", "metadata": {"n": 7}}\n{"prompt": "a dog"}\n')
    config = load_config(micro_recipe, [f"evaluation.prompts={prompts}"])
    tables = lora_policy.tables(config.sampling.steps, config.sampling.eta)
    url = start_service("number:Number", NUMBER).url
    with connected(number=url) as services, connected(again=url) as monitors:
        found, _ = evaluate(lora_policy, tables, services, monitors, config, 0, nothing, nothing)
    assert found.prompts == ["a cat", "a dog", "a cat"]
    assert found.rewards["number"].scores == found.monitors["again"].scores == [7, -1, 7]


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
    with connected() as none, pytest.raises(Interrupted):
        evaluate(lora_policy, tables, services, none, config, 0, drawn.append, leave)
    assert drawn == [2]  # one batch of two, then out
