"""All four algorithms in the one loop, against a real service: they learn, and resume exactly."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trainer import checkpoints, loop
from trainer.advantages import PerPromptTracker, global_advantages
from trainer.algorithms import ALGORITHMS
from trainer.base_policy import BasePolicy
from trainer.config import Config
from trainer.loop import train
from trainer.run import Run
from trainer.scores import Bools
from trainer.stops import ConfigError, Interrupted, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

BLUE = """
class Blue:
    name, max_batch_size = "blue", 64

    def score(self, items):
        return [float(item.image[..., 2].mean() - item.image[..., :2].mean()) for item in items]
"""
GREY = """
class Yellow:
    name, direction, max_batch_size = "yellow", "minimize", 64

    def score(self, items):
        return [float(item.image[..., :2].mean() - item.image[..., 2].mean()) for item in items]
"""
# What each of them learns the blue reward with, on a model with random weights.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "ddpo_is": {"training": {"learning_rate": 3e-2, "batch_size": 16, "epochs": 8}},
    "ddpo_sf": {"training": {"learning_rate": 5e-2, "batch_size": 64, "epochs": 16}},
    "rwr": {
        "training": {"learning_rate": 2e-3, "batch_size": 16, "epochs": 8},
        "rwr": {"inverse_temperature": 3.0, "updates": 16, "guided_loss": False},
        "sampling": {"guidance_scale": 1.0},
    },
    "rwr_sparse": {
        "training": {"learning_rate": 3e-3, "batch_size": 16, "epochs": 6},
        "rwr": {"updates": 12},
    },
}


@pytest.fixture(scope="module")
def blue(start_service: Callable[..., "ServiceProcess"]) -> "ServiceProcess":
    """Blueness of a picture: what is blue scores high."""
    return start_service("blue:Blue", BLUE)


@pytest.fixture
def config_of(micro_sd: Path, tmp_path: Path) -> Callable[..., Config]:
    """A short run of an algorithm; sections given by keyword are laid over it."""

    def build(algorithm: str, url: str, name: str = "run", **sections: dict[str, Any]) -> Config:
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a cat\nan ant\n")
        values: dict[str, dict[str, Any]] = {
            "run": {"dir": str(tmp_path), "name": name, "seed": 1, "threads": 1},
            "model": {"path": str(micro_sd), "train": "full"},
            "prompts": {"source": str(prompts)},
            "sampling": {
                "steps": 3,
                "batch_size": 16,
                "samples_per_epoch": 16,
                "samples_per_prompt": 8,
                "guidance_scale": 2.0,
            },
            "training": {"algorithm": algorithm, "epochs": 2, "clip_range": 0.1, "batch_size": 16},
            "rwr": {
                "standardize": True,
                "inverse_temperature": 2.0,
                "updates": 4,
                "data": "latents",
            },
            "advantages": {"buffer_size": 32, "min_count": 4},
            "evaluation": {"samples": 4},
            "tracking": {"tensorboard": False},
            "rewards": {"blue": {"urls": [url]}},
        }
        for section, changes in sections.items():
            values[section] = values.get(section, {}) | changes
        return Config.model_validate(values)

    return build


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> bytes:
    return (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_simple_reward_rises(
    blue: "ServiceProcess", config_of: Callable[..., Config], algorithm: str
) -> None:
    sections = {name: dict(section) for name, section in SETTINGS[algorithm].items()}
    more = {"samples_per_epoch": 64, "samples_per_prompt": 16}
    sections["sampling"] = more | sections.get("sampling", {})
    folder = train(config_of(algorithm, blue.url, evaluation={"samples": 32}, **sections))
    reward = json.loads((folder / "summary.json").read_text())["reward"]
    assert reward["after"]["ci95"][0] > reward["before"]["ci95"][1]
    effective = [record["effective_samples"] for record in records(folder)]
    if algorithm.startswith("rwr"):
        assert all(1 <= count < 64 for count in effective)
        assert records(folder)[0]["approx_kl"] is None
    else:
        assert set(effective) == {None}


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ("ddpo_sf", {}),
        ("rwr", {"ema": {"decay": 0.9}}),
        ("rwr_sparse", {}),
        ("ddpo_is", {"kl": {"coefficient": 0.1, "use": "loss"}, "ema": {"decay": 0.9}}),
        ("ddpo_is", {"kl": {"coefficient": 0.1, "use": "reward"}}),
    ],
)
def test_resuming_gives_the_same_weights(
    blue: "ServiceProcess",
    config_of: Callable[..., Config],
    algorithm: str,
    more: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = {"training": {"epochs": 3}, **more}
    straight = train(config_of(algorithm, blue.url, "straight", **other))
    signal = loop._signal

    def stopping(run: Run, *rest: Any) -> Any:
        if run.epoch == 1:
            monkeypatch.setattr(loop, "_signal", signal)
            raise Interrupted("stopped by SIGTERM", 15)
        return signal(run, *rest)

    monkeypatch.setattr(loop, "_signal", stopping)
    with pytest.raises(Interrupted):
        train(config_of(algorithm, blue.url, **other))
    folder = train(config_of(algorithm, blue.url, **other), resume=True)
    assert weights(folder) == weights(straight)
    if "ema" in more:
        # Those were the averaged ones.
        assert weights(folder / "raw") == weights(straight / "raw") != weights(straight)
    # The base is that of the beginning, not the weights that were resumed from.
    found = [[record["kl_to_base"] for record in records(each)] for each in (folder, straight)]
    assert found[0] == found[1]
    assert (found[0][-1] is None) == ("kl" not in more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "use", "kind", "rate"),
    [
        ("ddpo_is", "loss", "full", 3e-3),
        ("ddpo_sf", "loss", "lora", 3e-2),
        ("ddpo_is", "reward", "full", 1e-4),
        ("ddpo_sf", "reward", "lora", 1e-2),
    ],
)
def test_a_large_coefficient_keeps_the_policy_near_the_base(
    blue: "ServiceProcess",
    config_of: Callable[..., Config],
    algorithm: str,
    use: str,
    kind: str,
    rate: float,
) -> None:
    found = {}
    # One that is so small only measures.
    for name, coefficient in (("free", 1e-12), ("held", 1.0)):
        config = config_of(
            algorithm,
            blue.url,
            name,
            model={"train": kind},
            training={"epochs": 5, "learning_rate": rate},
            kl={"coefficient": coefficient, "use": use},
        )
        found[name] = [record["kl_to_base"] for record in records(train(config))]
    # The first epoch draws from the base model and first trains on its pictures.
    assert found["free"][0] == found["held"][0] == 0
    assert 0 < found["held"][-1] < 0.5 * found["free"][-1]


@pytest.mark.parametrize("use", ["loss", "reward"])
def test_without_a_coefficient_there_is_no_base_model(
    blue: "ServiceProcess",
    config_of: Callable[..., Config],
    use: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(BasePolicy, "__init__", lambda *given: asked.append(given))
    (record,) = records(
        train(config_of("ddpo_is", blue.url, training={"epochs": 1}, kl={"use": use}))
    )
    assert record["kl_to_base"] is None
    assert not asked


def test_at_the_old_policy_both_policy_gradients_are_one(
    blue: "ServiceProcess", config_of: Callable[..., Config]
) -> None:
    # One step from the same weights: at the policy that drew the samples the ratio is 1.
    one = {"epochs": 1, "batch_size": 16}
    found = [
        checkpoints.load(checkpoints.newest(train(config_of(name, blue.url, name, training=one))
                                            / "checkpoints") or Path()).weights
        for name in ("ddpo_is", "ddpo_sf")
    ]  # fmt: skip
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=0, atol=1e-3)
    flat = [torch.cat([w.flatten() for w in weights.values()]) for weights in found]
    assert (flat[0] - flat[1]).abs().mean() < 1e-5


def test_a_lower_is_better_reward_weighs_the_other_way(
    blue: "ServiceProcess",
    config_of: Callable[..., Config],
    start_service: Callable[..., "ServiceProcess"],
) -> None:
    yellow = start_service("yellow:Yellow", GREY)
    one = {"epochs": 1}
    more = train(config_of("rwr", blue.url, "more", training=one))
    less = train(config_of("rwr", yellow.url, "less", training=one))
    assert weights(more) == weights(less)


def kept_of(monkeypatch: pytest.MonkeyPatch, config: Config) -> tuple[list[list[float]], list[Any]]:
    """The weights and the rewards of every epoch of a run."""
    signals, given = [], []
    signal = loop._signal

    def noting(run: Run, prompts: list[str], rewards: Any, keep: Bools) -> Any:
        given.append(rewards["blue"])
        signals.append(signal(run, prompts, rewards, keep).tolist())
        return np.array(signals[-1])

    monkeypatch.setattr(loop, "_signal", noting)
    train(config)
    return signals, given


def test_sparse_weights_keep_the_best_of_each_prompt(
    blue: "ServiceProcess", config_of: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("rwr_sparse", blue.url, training={"epochs": 1}, rwr={"percentile": 75})
    (signal,), (rewards,) = kept_of(monkeypatch, config)
    for group in (slice(0, 8), slice(8, 16)):
        assert sum(signal[group]) == 2
        best = sorted(rewards[group])[-2:]
        assert sorted(rewards[group][np.array(signal[group]) == 1]) == best


def test_a_threshold_is_in_the_reward_s_own_units(
    blue: "ServiceProcess", config_of: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    rwr = {"keep": "streaming_percentile", "percentile": 50, "group": "epoch"}
    (signal,), (rewards,) = kept_of(
        monkeypatch, config_of("rwr_sparse", blue.url, training={"epochs": 1}, rwr=rwr)
    )
    limit = float(np.sort(rewards)[-3])
    rwr = {"keep": "threshold", "threshold": limit}
    again, _ = kept_of(
        monkeypatch, config_of("rwr_sparse", blue.url, "b", training={"epochs": 1}, rwr=rwr)
    )
    assert sum(again[0]) == 3
    assert 4 <= sum(signal) <= 12
    unreachable = {"keep": "threshold", "threshold": 300.0}
    with pytest.raises(RunStopped, match=r"no picture of epoch 1 reached rwr.threshold = 300 "):
        train(config_of("rwr_sparse", blue.url, "c", rwr=unreachable))


def fake_run(algorithm: str, weights: dict[str, float], **sections: dict[str, Any]) -> Any:
    """As much of a run as turns rewards into advantages or weights."""
    config = Config.model_validate(
        {
            "model": {"path": "none"},
            "training": {"algorithm": algorithm},
            "rewards": {
                name: {"urls": "http://a", "weight": weight} for name, weight in weights.items()
            },
            **sections,
        }
    )
    size = config.advantages.buffer_size, config.advantages.min_count
    trackers = {name: PerPromptTracker(*size) for name in weights}
    return SimpleNamespace(config=config, trackers=trackers, maximizes=lambda _: True, epoch=0)


def test_one_reward_gives_the_published_advantages_whatever_its_weight(golden: Path) -> None:
    for golden_run in json.loads((golden / "stat_tracker.json").read_text(encoding="utf-8")):
        size = {name: golden_run[name] for name in ("buffer_size", "min_count")}
        run = fake_run("ddpo_is", {"jpeg": 0.3}, advantages=size)
        alone = PerPromptTracker(**size)
        for update in golden_run["updates"]:
            values = np.array(update["rewards"], np.float64)
            found = ALGORITHMS["ddpo_is"].signal(run, update["prompts"], {"jpeg": values})
            assert found.tolist() == pytest.approx(update["advantages"], abs=2e-5)
            assert found.tobytes() == alone.update(update["prompts"], values).tobytes()


def test_one_reward_gives_the_published_weights_whatever_its_weight(golden: Path) -> None:
    published = json.loads((golden / "rwr.json").read_text())["weights"]
    rewards, prompts = {"jpeg": np.array(published["rewards"])}, published["prompts"]
    for case in published["cases"]:
        section = {
            "group": "prompt" if case["per_prompt"] else "epoch",
            "inverse_temperature": case["temperature_multiplier"],
        }
        run = fake_run("rwr", {"jpeg": 0.3}, rwr=section)
        found = ALGORITHMS["rwr"].signal(run, prompts, rewards)
        assert found == pytest.approx(case["weights"], abs=1e-9)


# Two prompts. By `a` pictures 3 and 4 are best; `b` has a unit a thousand times as large, and
# ranks picture 0 before 3 and picture 4 before 7.
PROMPTS = ["a cat"] * 4 + ["an ant"] * 4
TWO = {
    "a": np.array([0.0, 1.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0]),
    "b": np.array([9e3, 1e3, 1e3, 5e3, 9e3, 1e3, 1e3, 8e3]),
}


def test_each_reward_has_a_tracker_of_its_own() -> None:
    section = {"buffer_size": 8, "min_count": 2}
    run = fake_run("ddpo_is", {"a": 1.0, "b": 3.0}, advantages=section)
    first, second = (ALGORITHMS["ddpo_is"].signal(run, PROMPTS, TWO) for _ in range(2))
    expected = np.zeros(8)
    for name, share in (("a", 0.25), ("b", 0.75)):
        expected += share * PerPromptTracker(8, 2).update(PROMPTS, TWO[name])
    assert first == pytest.approx(expected)
    assert second == pytest.approx(expected)  # the same rewards again have the same statistics
    kept = run.trackers["b"].state_dict()["a cat"]
    assert kept == [9e3, 1e3, 1e3, 5e3] * 2
    of_epoch = fake_run("ddpo_sf", {"a": 1.0, "b": 3.0}, advantages={"per_prompt": False},
                        training={"algorithm": "ddpo_sf", "batch_size": 256})  # fmt: skip
    expected = 0.25 * global_advantages(TWO["a"]) + 0.75 * global_advantages(TWO["b"])
    assert ALGORITHMS["ddpo_sf"].signal(of_epoch, PROMPTS, TWO) == pytest.approx(expected)
    assert of_epoch.trackers["a"].state_dict() == {}


@pytest.mark.parametrize(
    ("weights", "rwr", "best"),
    [
        ({"a": 1.0, "b": 1e-6}, {}, [3, 4]),
        ({"a": 1e-6, "b": 1.0}, {}, [0, 4]),
        ({"a": 1.0, "b": 1.0}, {}, [3, 4]),
        ({"a": 1.0, "b": 1.0}, {"group": "epoch"}, [4]),
        # Batches of two, each against all that were drawn before: 3 is not as good as 0 was.
        ({"a": 1.0, "b": 1.0}, {"keep": "streaming_percentile"}, [0, 4]),
    ],
)
def test_sparse_weights_of_several_rewards(
    weights: dict[str, float], rwr: dict[str, Any], best: list[int]
) -> None:
    section = {"percentile": 99, **rwr}
    run = fake_run("rwr_sparse", weights, rwr=section, sampling={"batch_size": 2})
    found = ALGORITHMS["rwr_sparse"].signal(run, PROMPTS, TWO)
    assert np.flatnonzero(found).tolist() == best


def test_softmax_weights_of_several_rewards_have_no_unit() -> None:
    section = {"standardize": True, "inverse_temperature": 1.5}
    run = fake_run("rwr", {"a": 2.0, "b": 1.0}, rwr=section)
    found = ALGORITHMS["rwr"].signal(run, PROMPTS, TWO)
    scaled = ALGORITHMS["rwr"].signal(run, PROMPTS, TWO | {"b": 5 - 0.01 * (5 - TWO["b"])})
    assert scaled == pytest.approx(found, rel=1e-4)
    cat = (2 * (TWO["a"][:4] - 1.5) / np.std([0, 1, 2, 3])) / 3
    cat += (TWO["b"][:4] - 4e3) / np.std([9e3, 1e3, 1e3, 5e3]) / 3
    expected = 4 * np.exp(1.5 * cat) / np.exp(1.5 * cat).sum()
    assert found[:4] == pytest.approx(expected, rel=1e-4)


def test_one_update_per_collection(config_of: Callable[..., Config]) -> None:
    config = config_of("ddpo_sf", "http://127.0.0.1:9", training={"batch_size": 8})
    with pytest.raises(
        ConfigError, match=r"one update per epoch: set training.batch_size to .* 16"
    ):
        _ = config.sizes
