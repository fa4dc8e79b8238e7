"""Training of the judge, on discs in place of icons."""

import pytest
import torch

from emoji_world.classifier import PictureClassifier
from emoji_world.classifier_training import (
    FAMILY_SHARES,
    held_out_accuracy,
    train_classifier,
)
from emoji_world.icons import IconSet


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
