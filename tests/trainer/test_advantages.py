"""Advantages against the reference, and what its tracker promises."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.advantages import PerPromptTracker, global_advantages

rewards = st.floats(-300, 300, allow_subnormal=False)


def test_golden_tracker(golden: Path) -> None:
    runs = json.loads((golden / "stat_tracker.json").read_text(encoding="utf-8"))
    assert len(runs) == 3
    for run in runs:
        tolerance = 1e-9 if run["dtype"] == "float64" else 2e-5
        tracker = PerPromptTracker(run["buffer_size"], run["min_count"])
        for update in run["updates"]:
            values = np.array(update["rewards"], dtype=run["dtype"])
            advantages = tracker.update(update["prompts"], values)
            assert advantages.tolist() == pytest.approx(update["advantages"], abs=tolerance)
            statistics = tracker.statistics()
            assert statistics.keys() == update["stats"].keys()
            for prompt, expected in update["stats"].items():
                mean, deviation, count = statistics[prompt]
                assert count == expected["count"]
                assert (mean, deviation) == pytest.approx(
                    (expected["mean"], expected["std"]), abs=tolerance
                )


def test_golden_global(golden: Path) -> None:
    data = json.loads((golden / "advantages_jannerm.json").read_text(encoding="utf-8"))
    published = global_advantages(data["rewards"], epsilon=0.0)
    assert published.tolist() == pytest.approx(data["advantages_global_jannerm"], abs=1e-9)
    assert global_advantages(data["rewards"]).tolist() == pytest.approx(
        data["advantages_global_kvablack"], abs=1e-9
    )


def test_new_rewards_enter_before_they_are_normalised() -> None:
    tracker = PerPromptTracker(buffer_size=4, min_count=1)
    tracker.load_state_dict({"a cat": [0, 0, 0]})
    # Buffer [0, 0, 1, 2]: mean 0.75, population deviation 0.829156.
    advantages = tracker.update(["a cat", "a cat"], [1, 2])
    assert advantages.tolist() == pytest.approx([0.301511, 1.507555], abs=1e-5)
    assert tracker.state_dict() == {"a cat": [0, 0, 1, 2]}


def test_a_rare_prompt_uses_the_whole_epoch() -> None:
    tracker = PerPromptTracker(buffer_size=8, min_count=2)
    advantages = tracker.update(["a cat", "a cat", "a dog"], [1.0, 3.0, 8.0])
    assert advantages[:2].tolist() == pytest.approx([-1, 1], abs=1e-5)
    assert advantages[2] == pytest.approx((8 - 4) / np.std([1, 3, 8]), abs=1e-5)


def test_integer_rewards_are_not_truncated() -> None:
    assert global_advantages([1, 2, 4]).tolist() == pytest.approx(
        global_advantages([1.0, 2.0, 4.0]).tolist()
    )
    tracker = PerPromptTracker(4, 1)
    assert tracker.update(["a", "a", "a"], np.array([1, 2, 4]))[1] == pytest.approx(
        -0.267261, abs=1e-5
    )


@given(value=rewards, count=st.integers(1, 20), minimum=st.integers(1, 8))
def test_constant_rewards_have_no_advantage(value: float, count: int, minimum: int) -> None:
    assert not global_advantages([value] * count).any()
    tracker = PerPromptTracker(buffer_size=8, min_count=minimum)
    assert not tracker.update(["a"] * count, [value] * count).any()


@given(
    first=st.lists(st.tuples(st.sampled_from("abc"), rewards), min_size=1, max_size=12),
    second=st.lists(st.tuples(st.sampled_from("abc"), rewards), min_size=1, max_size=12),
)
def test_state_survives_json(
    first: list[tuple[str, float]], second: list[tuple[str, float]]
) -> None:
    tracker = PerPromptTracker(buffer_size=5, min_count=3)
    tracker.update(*zip(*first, strict=True))
    resumed = PerPromptTracker(buffer_size=5, min_count=3)
    resumed.load_state_dict(json.loads(json.dumps(tracker.state_dict())))
    expected = tracker.update(*zip(*second, strict=True))
    assert np.array_equal(resumed.update(*zip(*second, strict=True)), expected)
    assert all(len(buffer) <= 5 for buffer in resumed.state_dict().values())


@given(values=st.lists(rewards, min_size=2, max_size=30))
def test_advantages_are_centred_and_keep_the_order(values: list[float]) -> None:
    advantages = global_advantages(values)
    assert np.isfinite(advantages).all()
    assert abs(advantages.mean()) < 1e-3
    for i in range(1, len(values)):
        assert (values[i] >= values[0]) or advantages[i] <= advantages[0]


def test_rewards_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="reward 1 is not finite"):
        global_advantages([1.0, float("nan")])
    with pytest.raises(ValueError, match="2 prompts but 1 rewards"):
        PerPromptTracker(4, 1).update(["a", "b"], [1.0])
    with pytest.raises(ValueError, match="one-dimensional"):
        global_advantages([[1.0]])
