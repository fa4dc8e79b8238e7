"""All that is wrong is told in one go, and what is right does not hide it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import free_port
from trainer.config import load_config
from trainer.doctor import examine, pace
from trainer.dry_measurement import Measured
from trainer.findings import Finding
from trainer.reward_service import RewardSource
from trainer.service_examination import ServiceExamination

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

CONSTANT = """
class Constant:
    name, max_batch_size = "constant", 64

    def score(self, items):
        return [0.5 for _ in items]


class Other(Constant):
    version = "2"

    def score(self, items):
        return [float(item.image.mean()) for item in items]
"""


def measured(drawing: float) -> Measured:
    return Measured(
        device="cpu",
        device_name="",
        device_memory=None,
        taken=0,
        peaks={"loading": 1, "sampling": 1, "updating": 1},
        kept=1,
        trajectories=1,
        seconds={"loading": 1.0, "sampling": drawing, "updating": 1.0},
        picture=(16, 16),
        trained=1,
    )


@pytest.mark.timeout(300)
def test_everything_at_once(
    service: "ServiceProcess",
    start_service: Callable[..., "ServiceProcess"],
    micro_recipe: Path,
) -> None:
    constant = start_service("constant:Constant", CONSTANT)
    other = start_service("constant:Other", CONSTANT)
    dead = f"http://127.0.0.1:{free_port()}"
    config = load_config(
        micro_recipe,
        ["checkpoints.keep=100000000000"],
        {"jpeg": service.url, "flat": f"{constant.url},{other.url}"},
        {"judge": dead},
    )
    found = list(examine(config, budget=10**8))
    problems = {each.check: each.message for each in found if each.level == "problem"}
    assert set(problems) == {
        "memory",
        "disk",
        f"monitor judge at {dead}",
        f"reward flat at {constant.url}",
        f"reward flat at {other.url}",
    }
    assert "there is nothing to learn from" in problems[f"reward flat at {constant.url}"]
    assert "it is another reward than" in problems[f"reward flat at {other.url}"]
    assert "version" in problems[f"reward flat at {other.url}"]
    warnings = [each.message for each in found if each.level == "warning"]
    assert any("flat, jpeg on this machine share its CPU" in each for each in warnings)
    fine = {each.check for each in found if each.level == "ok"}
    assert {"run folder", "prompts", "device", f"reward jpeg at {service.url}"} <= fine


def test_the_pace_of_scoring(micro_recipe: Path) -> None:
    """Two replicas may take twice as long as drawing; what did not score says nothing."""
    urls = ("http://a", "http://b")
    found: list[Finding] = []
    for seconds in (3.9, 4.1, None):
        service = ServiceExamination(RewardSource("slow", urls), urls[0], "reward")
        service.seconds = seconds
        found += pace(load_config(micro_recipe), [service], measured(drawing=2.0))
    assert [each.level for each in found] == ["ok", "warning"]
    assert found[1].message.startswith("a batch of 2 takes 2 s to draw and 4.1 s to score: the")
    assert found[1].message.endswith("add a worker or a replica")


def test_a_key_that_is_not_set(service: "ServiceProcess", micro_recipe: Path) -> None:
    changes = ["rewards.jpeg.api_key_env=NOT_SET", "prompts.source=nosuch"]
    config = load_config(micro_recipe, changes, {"jpeg": service.url})
    said = {each.check: each.message for each in examine(config) if each.level == "problem"}
    assert "rewards.jpeg.api_key_env names NOT_SET, which is not set" in said["rewards"]
    assert "prompts.source 'nosuch'" in said["prompts"]
