"""What a run says of itself at the terminal."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from shared.schema import Identity
from trainer.config import Config
from trainer.policy import Policy
from trainer.processes import ALONE, Processes
from trainer.progress import announce, tell
from trainer.run import Run

RECORD = {
    "reward_mean": -2.5,
    "images_per_second": 12.34,
    "masked": 0,
    "approx_kl": 0.00123,
    "clip_fraction": 0.256,
    "loss": 0.5,
    "effective_samples": 31.6,
    "seconds_sampling": 1.0,
    "seconds_update": 2.0,
}

Said = list[str]


@pytest.fixture
def run_of(micro_policy: Callable[[], Policy]) -> Callable[..., tuple[Run, Said]]:
    """A run after its third epoch, and what it says; nothing else of it is there."""

    def build(processes: Processes = ALONE, **sections: object) -> tuple[Run, Said]:
        said: Said = []
        rewards = {"jpeg": "http://a"}
        config = Config.model_validate({"model": {"path": "m"}, "rewards": rewards} | sections)
        identity = Identity(name="jpeg", version="1", units="kB", direction="maximize")
        run = SimpleNamespace(
            config=config,
            processes=processes,
            epoch=3,
            policy=micro_policy(),
            services=SimpleNamespace(identities=dict.fromkeys(config.rewards, identity)),
            monitors=SimpleNamespace(identities={"judge": identity}),
            terminal=SimpleNamespace(say=said.append, epoch_done=lambda _: None),
        )
        return cast(Run, run), said

    return build


def test_the_beginning(run_of: Callable[..., tuple[Run, Said]]) -> None:
    run, said = run_of()
    announce(run)
    assert said[0] == "reward jpeg: version 1, kB, maximize"
    assert said[1] == "monitor judge: version 1, kB, maximize"
    assert said[2].startswith("training 5,504 parameters (lora) on cpu")
    assert said[3].startswith("sizes: samples_per_epoch 256")
    assert said[4] == "resumed after epoch 3"


def test_of_several_processes_it_says_how_many(run_of: Callable[..., tuple[Run, Said]]) -> None:
    run, said = run_of(Processes(count=4))
    announce(run)
    assert "4 processes; sizes are those of all together" in said


def test_the_weights_of_several_rewards(run_of: Callable[..., tuple[Run, Said]]) -> None:
    several = {"jpeg": "http://a", "taste": {"urls": "http://b", "weight": 3}}
    run, said = run_of(rewards=several)
    announce(run)
    assert said[0].endswith("maximize, 25 % of the weight")
    assert said[1].endswith("maximize, 75 % of the weight")
    tell(run, RECORD | {"reward_mean/jpeg": -2.5, "reward_mean/taste": 5.25})
    assert "jpeg -2.5, taste 5.25, 12.3 images/s" in said[-1]


def test_an_epoch_of_the_policy_gradient(run_of: Callable[..., tuple[Run, Said]]) -> None:
    run, said = run_of()
    tell(run, RECORD)
    assert said == ["epoch 3/100: reward -2.5, 12.3 images/s, kl 0.0012, clipped 26 %, 3.0 s"]


def test_an_epoch_of_regression_with_masked_pictures(
    run_of: Callable[..., tuple[Run, Said]],
) -> None:
    run, said = run_of(training={"algorithm": "rwr"})
    tell(run, RECORD | {"masked": 2})
    assert said[0].endswith("loss 0.5, effective samples 32, 3.0 s, 2 masked")
