"""The head of the published shape, and the made-up taste that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emoji_world.aesthetic_head import (
    AestheticHead,
    load_head,
    made_up_taste,
    save_head,
    train_head,
)


def test_the_shape_is_that_of_the_laion_head() -> None:
    shapes = {name: tuple(t.shape) for name, t in AestheticHead(768).state_dict().items()}
    assert shapes == {
        "layers.0.weight": (1024, 768),
        "layers.0.bias": (1024,),
        "layers.2.weight": (128, 1024),
        "layers.2.bias": (128,),
        "layers.4.weight": (64, 128),
        "layers.4.bias": (64,),
        "layers.6.weight": (16, 64),
        "layers.6.bias": (16,),
        "layers.7.weight": (1, 16),
        "layers.7.bias": (1,),
    }


def test_it_is_an_affine_map() -> None:
    head = AestheticHead(8).eval()
    one, other = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    zero = head(torch.zeros(5, 8))
    torch.testing.assert_close(
        head(2 * one - 3 * other) - zero, 2 * (head(one) - zero) - 3 * (head(other) - zero)
    )


@pytest.mark.parametrize(
    ("colour", "line_art", "rating"),
    [((255, 255, 255), True, 7.0), ((0, 0, 0), False, 5.5), ((255, 0, 0), False, 2.5)],
)
def test_the_taste_is_for_line_drawings_and_greys(
    colour: tuple[int, int, int], line_art: bool, rating: float
) -> None:
    picture = np.full((1, 4, 4, 3), colour, np.uint8)
    assert made_up_taste(picture, np.array([line_art])) == pytest.approx([rating])


def test_it_learns_ratings_and_is_seeded() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(600, 8, generator=generator), dim=1)
    ratings = 5 + features @ torch.randn(8, generator=generator)
    head, again = (train_head(features[:500], ratings[:500], 200, seed=1) for _ in range(2))
    with torch.inference_mode():
        guessed = head(features[500:])
        assert torch.equal(guessed, again(features[500:]))
    assert torch.corrcoef(torch.stack([guessed, ratings[500:]]))[0, 1] > 0.95
    assert not head.training


def test_saved_and_loaded_it_rates_the_same(tmp_path: Path) -> None:
    head = AestheticHead(8).eval()
    save_head(head, tmp_path / "head.safetensors")
    stored = load_file(tmp_path / "head.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    features = torch.ones(2, 8)
    assert torch.equal(load_head(tmp_path / "head.safetensors", 8)(features), head(features))
