"""Weights of RWR against the published code, and what must hold for any rewards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.rwr import (
    effective_sample_size,
    percentile_mask,
    softmax_weights,
    standardized,
    streaming_percentile_mask,
    weighted_denoising_loss,
)

REWARDS = st.lists(st.floats(-300, 300), min_size=1, max_size=40)


@pytest.fixture
def published(golden: Path) -> Any:
    return json.loads((golden / "rwr.json").read_text())


def test_weights_of_the_published_code(published: Any) -> None:
    weights = published["weights"]
    rewards, prompts = np.array(weights["rewards"]), weights["prompts"]
    assert len(weights["cases"]) == 6
    for case in weights["cases"]:
        groups = prompts if case["per_prompt"] else [""] * len(rewards)
        found = softmax_weights(rewards, groups, case["temperature_multiplier"])
        assert found == pytest.approx(case["weights"], abs=1e-9)


def test_the_example_of_the_notes() -> None:
    # β = 0.2, rewards 0, 5, 10: inverse temperature, not temperature.
    found = softmax_weights(np.array([0.0, 5.0, 10.0]), ["a"] * 3, 0.2)
    assert found == pytest.approx([0.270092, 0.734185, 1.995723], abs=1e-6)


def test_masks_of_the_published_code(published: Any) -> None:
    for case in published["filters"]:
        rewards = [np.array(batch["rewards"]) for batch in case["batches"]]
        masks = [batch["mask"] for batch in case["batches"]]
        if case["mode"] == "percentile":  # a batch is one prompt there
            groups = [str(i) for i, batch in enumerate(rewards) for _ in batch]
            found = percentile_mask(np.concatenate(rewards), groups, case["param"])
        elif case["mode"] == "streaming_percentile":
            found = streaming_percentile_mask(
                np.concatenate(rewards), len(rewards[0]), case["param"]
            )
        else:
            continue
        assert found.tolist() == [flag for mask in masks for flag in mask]
    ties = published["filter_ties"]
    found = percentile_mask(np.array(ties["rewards"]), ["a"] * len(ties["rewards"]), ties["q"])
    assert found.tolist() == ties["mask"]


@pytest.mark.parametrize(("count", "kept"), [(10, 1), (32, 4), (128, 13)])
def test_how_many_are_kept_of_a_hundred(count: int, kept: int) -> None:
    rewards = np.random.default_rng(0).permutation(2 * count).astype(float)
    groups = ["a", "b"] * count
    mask = percentile_mask(rewards, groups, 90)
    assert mask[::2].sum() == mask[1::2].sum() == kept


def test_the_loss_of_the_published_code(published: Any) -> None:
    case = published["weighted_loss"]
    noise, predicted = (torch.tensor(case[name]) for name in ("noise", "noise_pred"))
    weights = torch.tensor(case["dataset_weights"])
    loss = weighted_denoising_loss(noise, predicted, weights)
    assert loss.sum().item() / case["pod_batch_size"] == pytest.approx(case["loss_weighted"])
    plain = weighted_denoising_loss(noise, predicted, torch.ones(len(noise)))
    assert plain.mean().item() == pytest.approx(case["loss_unweighted"])


@given(
    rewards=REWARDS, beta=st.floats(0, 5), shift=st.floats(-1000, 1000), groups=st.integers(1, 4)
)
def test_the_mean_is_one_and_a_shift_changes_nothing(
    rewards: list[float], beta: float, shift: float, groups: int
) -> None:
    values = np.array(rewards)
    prompts = [str(i % groups) for i in range(len(rewards))]
    weights = softmax_weights(values, prompts, beta)
    for prompt in set(prompts):
        mine = [prompt == each for each in prompts]
        assert weights[mine].mean() == pytest.approx(1)
    assert softmax_weights(values + shift, prompts, beta) == pytest.approx(weights, rel=1e-6)
    assert 1 - 1e-9 <= effective_sample_size(weights) <= len(rewards) + 1e-9


def test_the_ends_of_the_temperature() -> None:
    rewards, groups = np.array([1.0, 3.0, 2.0, 5.0, 4.0]), ["a", "a", "a", "b", "b"]
    assert softmax_weights(rewards, groups, 0.0).tolist() == [1.0] * 5
    assert softmax_weights(rewards, groups, 1e4).tolist() == [0, 3, 0, 2, 0]
    assert effective_sample_size(np.array([0.0, 3.0, 0.0])) == 1
    assert effective_sample_size(np.zeros(3)) == 0


@given(rewards=st.lists(st.floats(-3, 3), min_size=2, max_size=20), scale=st.floats(0.5, 1000))
def test_standardised_weights_have_no_unit(rewards: list[float], scale: float) -> None:
    values = np.array(rewards)
    if values.std() < 1e-2:
        return
    groups = ["a"] * len(rewards)
    one = softmax_weights(standardized(values, groups), groups, 2.0)
    other = softmax_weights(standardized(scale * values + 7, groups), groups, 2.0)
    assert one == pytest.approx(other, rel=1e-2)


def test_each_group_is_standardised_by_itself() -> None:
    # Group a: mean 2, deviation 1; group b: mean 30, deviation 10.
    found = standardized(np.array([1.0, 20.0, 3.0, 40.0]), ["a", "b", "a", "b"])
    assert found == pytest.approx([-1, -1, 1, 1], abs=1e-5)


def test_rewards_that_are_all_the_same_weigh_alike() -> None:
    assert standardized(np.full(4, 2.5), ["a"] * 4).tolist() == [0.0] * 4
    assert softmax_weights(np.full(4, 2.5), ["a"] * 4, 2.0).tolist() == [1.0] * 4
    assert percentile_mask(np.full(4, 2.5), ["a"] * 4, 90).all()
