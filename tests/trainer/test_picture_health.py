"""What pictures show of themselves: known pictures have known numbers."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.picture_health import (
    HEALTH,
    Images,
    diversity,
    high_frequency,
    latent_rms,
    picture_health,
    saturation,
)

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 40)


def noise(seed: int, count: int, height: int, width: int) -> Images:
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def flat(*colours: tuple[int, int, int]) -> Images:
    return np.stack([np.full((32, 32, 3), colour, np.uint8) for colour in colours])


@given(seeds, sides, sides)
def test_every_number_is_in_its_range(seed: int, height: int, width: int) -> None:
    images = noise(seed, 4, height, width)
    found = picture_health(images, np.ones(4), ["a", "b", "a", "b"])
    assert found.keys() == HEALTH.keys()
    for values in found.values():
        assert np.all((values >= 0) & (values <= 1 + 1e-12))
    assert [len(found[name]) for name in HEALTH] == [4, 4, 2, 4]


@given(seeds)
def test_saturation_is_that_of_hsv(seed: int) -> None:
    (image,) = noise(seed, 1, 5, 3)
    expected = [colorsys.rgb_to_hsv(*map(float, pixel))[1] for pixel in image.reshape(-1, 3)]
    assert saturation(image[None]) == pytest.approx([np.mean(expected)], abs=1e-6)


def test_saturation_of_plain_colours() -> None:
    colours = flat((0, 0, 0), (90, 90, 90), (255, 0, 0), (0, 7, 0), (200, 100, 100))
    assert saturation(colours) == pytest.approx([0, 0, 1, 1, 0.5])


def waves(period: int) -> Images:
    row = 128 + 100 * np.cos(2 * np.pi * np.arange(32) / period)
    return np.broadcast_to(row[None, None, :, None], (1, 32, 32, 3)).round().astype(np.uint8)


def test_fine_detail_is_what_is_finer_than_four_pixels() -> None:
    assert high_frequency(flat((9, 99, 199))) == [0]
    assert high_frequency(waves(2)) == pytest.approx([1], abs=1e-3)
    assert high_frequency(waves(4)) == pytest.approx([1], abs=1e-3)
    assert high_frequency(waves(8)) == pytest.approx([0], abs=1e-3)
    # Of the square of all frequencies, the disc below a quarter cycle is π/16.
    assert high_frequency(noise(0, 50, 64, 64)).mean() == pytest.approx(1 - np.pi / 16, abs=0.01)


def test_diversity_is_within_prompts() -> None:
    images = flat((0, 0, 0), (255, 255, 255), (51, 51, 51), (7, 7, 7), (255, 0, 0))
    # Black, a fifth and red under one prompt: √(1/3) from black, and √((0.8² + 2·0.2²)/3) apart.
    apart = (0.2 + np.sqrt(1 / 3) + np.sqrt((0.8**2 + 2 * 0.2**2) / 3)) / 3
    prompts = ["a cat", "a dog", "a cat", "an ant", "a cat"]
    assert diversity(images, prompts) == pytest.approx([apart])
    assert len(diversity(images, list("abcde"))) == 0


@given(seeds)
def test_the_same_picture_has_no_diversity_and_noise_has_little(seed: int) -> None:
    (image,) = noise(seed, 1, 64, 64)
    assert diversity(np.stack([image, image]), ["a", "a"]) == [0]
    # Averaged over 16 pixels, what is left of uniform noise is a quarter of √(1/6) ≈ 0.41.
    assert diversity(noise(seed, 2, 64, 64), ["a", "a"])[0] == pytest.approx(0.102, abs=0.02)


def test_latents() -> None:
    latents = torch.tensor([3.0, -4.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    assert latent_rms(torch.cat([latents, 2 * latents])) == pytest.approx([2.5, 5.0])
    assert np.isnan(latent_rms(torch.full((1, 1, 2, 2), torch.nan)))


def test_broken_pictures_are_left_out() -> None:
    images = flat((255, 0, 0), (0, 0, 0), (255, 0, 0))
    found = picture_health(images, np.array([1.0, np.nan, 3.0]), ["a", "a", "a"])
    assert {name: values.tolist() for name, values in found.items()} == {
        "saturation": [1, 1],
        "high_frequency": [0, 0],
        "diversity": [0],
        "latent_rms": [1, 3],
    }
    assert picture_health(images, np.full(3, np.nan), ["a", "a", "a"]) == {}


def test_what_is_not_known_is_absent() -> None:
    found = picture_health(flat((1, 2, 3)), np.array([]), ["a"])
    assert found.keys() == {"saturation", "high_frequency"}
