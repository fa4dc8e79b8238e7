"""Training of the judge, on discs in place of icons."""

import numpy as np
import pytest
import torch

from emoji_world.captions import all_captions
from emoji_world.classifier import PictureClassifier
from emoji_world.classifier_training import (
    FAMILY_SHARES,
    classifier_weights,
    degrade,
    held_out_accuracy,
    train_classifier,
)
from emoji_world.dataset import PictureDataset
from emoji_world.icons import IconSet

CAPTIONS = all_captions()


def test_the_judge_sees_rare_pairs_as_often_as_common_ones() -> None:
    weights = classifier_weights(CAPTIONS)
    assert weights.sum() == pytest.approx(1)
    for family in FAMILY_SHARES:
        mine = [w for w, c in zip(weights, CAPTIONS, strict=True) if c.family == family]
        assert max(mine) == pytest.approx(min(mine))
        assert sum(mine) == pytest.approx(FAMILY_SHARES[family])


def test_degraded_pictures_stay_pictures(pictures: PictureDataset) -> None:
    pixels = pictures.images(np.arange(64))
    first, again = (degrade(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == pixels.shape
    assert first.abs().max() <= 1
    distance = (first - pixels).square().mean((1, 2, 3)).sqrt()
    assert distance.max() > 0.03
    assert distance.max() < 0.3


def test_training_is_seeded_and_learns(discs: IconSet) -> None:
    first, again = (train_classifier(discs, steps=2, seed=1) for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    torch.manual_seed(1)
    untrained = PictureClassifier()
    assert not torch.equal(first.noun.weight, untrained.noun.weight)
    assert not first.training


def test_accuracy_is_measured_for_every_family_on_pictures_drawn_from_the_seed(
    discs: IconSet,
) -> None:
    model = PictureClassifier()
    for head in (model.noun, model.phrase, model.count):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    accuracy = held_out_accuracy(model, discs, count=60, seed=0)
    assert accuracy == held_out_accuracy(model, discs, count=60, seed=0)
    assert accuracy.keys() == FAMILY_SHARES.keys()
    # It always reads "a cat": right once in 45 single animals, never elsewhere.
    assert accuracy.pop("animal") == pytest.approx(1 / 45, abs=0.08)
    assert set(accuracy.values()) == {0.0}
