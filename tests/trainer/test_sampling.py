"""Drawing pictures: independent of batch sizes, and nothing broken slips through as black."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.policy import Policy
from trainer.sampling import Rollout, finite_images, noise_seed, sample, trajectory_noise
from trainer.update import PairScorer


def draw(policy: Policy, prompts: list[str], first: int = 0, guidance: float = 5.0) -> Rollout:
    tables = policy.tables(3, eta=1.0)
    seeds = [noise_seed(5, "test", 2, first + i) for i in range(len(prompts))]
    noise = trajectory_noise(seeds, 3, policy.latent_shape)
    return sample(policy, tables, prompts, noise, guidance)


def test_a_picture_does_not_depend_on_the_batch(lora_policy: Policy) -> None:
    prompts = ["cat", "dog", "bird", "fish"]
    whole = draw(lora_policy, prompts)
    parts = Rollout.cat([draw(lora_policy, prompts[:1]), draw(lora_policy, prompts[1:], first=1)])
    assert parts.prompts == whole.prompts == prompts
    assert len(parts) == 4
    # The last bits depend on how the libraries cut a batch of another size.
    assert torch.allclose(parts.latents, whole.latents, atol=1e-4)
    assert torch.allclose(parts.log_probs, whole.log_probs, atol=1e-4)
    assert np.abs(parts.images.astype(int) - whole.images).max() <= 1
    assert np.array_equal(draw(lora_policy, prompts).images, whole.images)


def test_shapes_and_types(lora_policy: Policy) -> None:
    rollout = draw(lora_policy, ["cat", "dog"])
    assert rollout.latents.shape == (2, 4, 4, 8, 8)
    assert rollout.log_probs.shape == (2, 3)
    assert rollout.latents.dtype == rollout.log_probs.dtype == torch.float32
    assert not rollout.latents.requires_grad
    assert rollout.images.shape == (2, 16, 16, 3)
    assert rollout.images.dtype == np.uint8
    assert rollout.valid.tolist() == [True, True]


def test_prompt_and_guidance_matter(lora_policy: Policy) -> None:
    cat = draw(lora_policy, ["cat"]).latents[:, -1]
    assert not torch.equal(draw(lora_policy, ["dog"]).latents[:, -1], cat)
    assert not torch.equal(draw(lora_policy, ["cat"], guidance=1.0).latents[:, -1], cat)


@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
    index=st.integers(0, 10**6),
)
def test_every_picture_has_noise_of_its_own(seed: int, epoch: int, index: int) -> None:
    mine = noise_seed(seed, "train", epoch, index)
    assert 0 <= mine < 2**63
    assert mine == noise_seed(seed, "train", epoch, index)
    others = {
        noise_seed(seed + 1, "train", epoch, index),
        noise_seed(seed, "evaluation", epoch, index),
        noise_seed(seed, "train", epoch + 1, index),
        noise_seed(seed, "train", epoch, index + 1),
    }
    assert mine not in others
    assert len(others) == 4


def test_noise_is_standard_normal_and_pinned() -> None:
    noise = trajectory_noise([1, 2], 9, (4, 16, 16))
    assert noise.shape == (2, 10, 4, 16, 16)
    assert noise.mean().abs() < 0.02
    assert (noise.std() - 1).abs() < 0.02
    assert torch.equal(trajectory_noise([2], 9, (4, 16, 16))[0], noise[1])
    # A run must be reproducible by a later version too.
    assert noise_seed(0, "train", 0, 0) == 6167545301236946813


def test_noise_that_does_not_fit_is_refused(lora_policy: Policy) -> None:
    tables = lora_policy.tables(3, eta=1.0)
    noise = trajectory_noise([1, 2], 4, lora_policy.latent_shape)
    with pytest.raises(ValueError, match=r"for 2 prompts and 3 steps: expected \(2, 4, …\)"):
        sample(lora_policy, tables, ["cat", "dog"], noise, 5.0)


def test_a_broken_trajectory_is_marked_and_its_neighbours_are_not(lora_policy: Policy) -> None:
    tables = lora_policy.tables(3, eta=1.0)
    noise = trajectory_noise([1, 2], 3, lora_policy.latent_shape)
    noise[1, 2, 0, 0, 0] = torch.nan
    rollout = sample(lora_policy, tables, ["cat", "dog"], noise, 5.0)
    assert rollout.valid.tolist() == [True, False]
    assert not rollout.images[1].any()
    assert rollout.images[0].any()


def test_a_step_without_a_probability_is_marked_though_its_picture_is_finite(
    lora_policy: Policy,
) -> None:
    tables = lora_policy.tables(3, eta=1.0)
    noise = trajectory_noise([1, 2], 3, lora_policy.latent_shape)
    noise[1, 3, 0, 0, 0] = 3e19  # finite, but its square is not
    rollout = sample(lora_policy, tables, ["cat", "dog"], noise, 5.0)
    assert lora_policy.codec.decode(rollout.latents[:, -1]).isfinite().all()
    assert rollout.valid.tolist() == [True, False]
    assert not rollout.images[1].any()


def test_weights_that_diverged_mark_every_picture(lora_policy: Policy) -> None:
    with torch.no_grad():
        lora_policy.trainable_parameters()[0].fill_(torch.nan)
    assert not draw(lora_policy, ["cat", "dog"]).valid.any()


def test_decoded_values_outside_the_range_are_clipped() -> None:
    decoded = torch.tensor([-0.5, 0.0, 1.0, 1.5]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    images, finite = finite_images(decoded)
    assert images[0, 0, :, 0].tolist() == [0, 0, 255, 255]
    assert finite.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_picture_is_checked_before_it_becomes_bytes(value: float) -> None:
    decoded = torch.full((2, 3, 4, 5), 0.5)
    decoded[1, 2, 3, 4] = value
    images, finite = finite_images(decoded)
    assert images.shape == (2, 4, 5, 3)
    assert finite.tolist() == [True, False]
    assert (images[0] == 128).all()
    assert not images[1].any()


def test_log_probabilities_belong_to_the_trajectory(
    lora_policy: Policy, scorer_of: Callable[[Policy, int], PairScorer]
) -> None:
    scorer = scorer_of(lora_policy, 2)
    with torch.no_grad():
        again = scorer.log_prob(torch.tensor([1, 0]), torch.tensor([0, 3]))
    expected = scorer.rollout.log_probs[[1, 0], [0, 3]]
    assert torch.allclose(again, expected, atol=2e-6)
    scorer.rollout.latents[0, 4] += 0.1
    with torch.no_grad():
        moved = scorer.log_prob(torch.tensor([0]), torch.tensor([3]))
    assert (moved - expected[1]).abs() > 1e-3
