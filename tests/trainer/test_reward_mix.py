"""The mean of several rewards: what it comes to, and what must not change it."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainer.advantages import PerPromptTracker, global_advantages
from trainer.reward_mix import Float64s, mixed, shares
from trainer.rwr import standardized

PICTURES = 8
PROMPTS = ["a cat", "a dog"] * (PICTURES // 2)
values = st.lists(st.integers(-100, 100), min_size=PICTURES, max_size=PICTURES).map(
    lambda numbers: np.array(numbers, np.float64) / 10
)
several = st.dictionaries(st.sampled_from("abcd"), values, min_size=2)
weights = st.floats(1e-3, 1e3)


def of_epoch(_: str, rewards: Float64s) -> Float64s:
    return global_advantages(rewards)


def of_prompt(_: str, rewards: Float64s) -> Float64s:
    """As an epoch of the policy gradient does, with a tracker for each reward."""
    return PerPromptTracker(buffer_size=PICTURES, min_count=1).update(PROMPTS, rewards)


def of_group(_: str, rewards: Float64s) -> Float64s:
    """As RWR does."""
    return standardized(rewards, PROMPTS)


def equal(rewards: Mapping[str, Float64s]) -> dict[str, float]:
    return dict.fromkeys(rewards, 1.0)


def spread(rewards: Float64s) -> float:
    """The smaller deviation of the two prompts and the whole; beside ε it must be large."""
    return float(min(rewards[::2].std(), rewards[1::2].std(), rewards.std()))


def test_an_example() -> None:
    # a: mean 2, deviation 1 → −1, 1; b: mean 500, deviation 100 → 1, −1. (2·(−1) + 1·1)/3 = −1/3.
    rewards = {"a": np.array([1.0, 3.0]), "b": np.array([600.0, 400.0])}
    found = mixed(rewards, {"a": 2.0, "b": 1.0}, of_epoch)
    assert found == pytest.approx([-1 / 3, 1 / 3], abs=1e-6)


def test_rewards_of_large_units_do_not_drown_the_others() -> None:
    # Raw, b alone would decide. Each picture is best by one and worst by the other: a draw.
    rewards = {"a": np.array([0.0, 0.5, 1.0]), "b": np.array([9000.0, 5000.0, 1000.0])}
    assert mixed(rewards, equal(rewards), of_epoch) == pytest.approx([0, 0, 0], abs=1e-6)


def test_what_all_are_agreed_on_has_the_size_it_has_with_one() -> None:
    one = np.array([1.0, 2.0, 6.0])
    rewards = {"a": one, "b": 10 * one, "c": one - 5}
    alone = global_advantages(one)
    assert mixed(rewards, {"a": 0.2, "b": 3.0, "c": 7.0}, of_epoch) == pytest.approx(alone)


def test_shares() -> None:
    assert shares({"b": 3.0, "a": 1.0}) == {"a": 0.25, "b": 0.75}
    assert list(shares({"b": 3.0, "a": 1.0})) == ["a", "b"]
    assert shares({"a": 1e308, "b": 1e308}) == {"a": 0.5, "b": 0.5}
    assert shares({"a": 0.3}) == {"a": 1.0}


def test_a_reward_without_a_weight_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"rewards \['a', 'b'\] but weights of \['a'\]"):
        mixed({"a": np.zeros(1), "b": np.zeros(1)}, {"a": 1.0}, of_epoch)


@given(rewards=values, weight=weights)
def test_one_reward_is_itself_to_the_bit(rewards: Float64s, weight: float) -> None:
    for normalised in (of_epoch, of_prompt, of_group):
        found = mixed({"a": rewards}, {"a": weight}, normalised)
        assert found.tobytes() == normalised("a", rewards).tobytes()
    raw = mixed({"a": rewards}, {"a": weight}, lambda _, each: each)
    assert raw.tobytes() == rewards.tobytes()


@given(rewards=several, factor=st.floats(0.01, 1e4), shift=st.floats(-1e3, 1e3))
def test_the_unit_of_a_reward_does_not_matter(
    rewards: dict[str, Float64s], factor: float, shift: float
) -> None:
    assume(all(min(1.0, factor) * spread(each) > 1e-2 for each in rewards.values()))
    name = min(rewards)
    other = rewards | {name: factor * rewards[name] + shift}
    given_weights = {each: 1.0 + place for place, each in enumerate(rewards)}
    for normalised in (of_epoch, of_prompt, of_group):
        expected = mixed(rewards, given_weights, normalised)
        # ε = 1e-6 beside a deviation of 1e-2 shows in the fourth digit.
        assert mixed(other, given_weights, normalised) == pytest.approx(expected, abs=1e-3)


@given(rewards=several, weight=weights)
def test_a_weight_that_vanishes_takes_its_reward_along(
    rewards: dict[str, Float64s], weight: float
) -> None:
    name = min(rewards)
    rest = {each: rewards[each] for each in rewards if each != name}
    expected = mixed(rest, dict.fromkeys(rest, weight), of_prompt)
    found = mixed(rewards, dict.fromkeys(rest, weight) | {name: 1e-9 * weight}, of_prompt)
    assert found == pytest.approx(expected, abs=1e-6)


@given(rewards=several, order=st.randoms(use_true_random=False), scale=st.floats(1e-3, 1e3))
def test_neither_the_order_nor_the_size_of_all_weights_matters(
    rewards: dict[str, Float64s], order: object, scale: float
) -> None:
    names = list(rewards)
    given_weights = {name: 0.1 + place for place, name in enumerate(names)}
    expected = mixed(rewards, given_weights, of_epoch)
    order.shuffle(names)  # type: ignore[attr-defined]
    again = {name: rewards[name] for name in names}
    assert mixed(again, given_weights, of_epoch).tobytes() == expected.tobytes()
    larger = {name: scale * given_weights[name] for name in names}
    assert mixed(again, larger, of_epoch) == pytest.approx(expected, abs=1e-9)


@given(rewards=several, data=st.data())
def test_no_advantage_is_larger_than_with_one_reward(
    rewards: dict[str, Float64s], data: st.DataObject
) -> None:
    given_weights = {name: data.draw(weights) for name in rewards}
    largest = np.max([np.abs(of_epoch(name, each)) for name, each in rewards.items()], axis=0)
    assert (np.abs(mixed(rewards, given_weights, of_epoch)) <= largest + 1e-9).all()
