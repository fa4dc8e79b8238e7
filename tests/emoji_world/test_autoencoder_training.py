"""Training of the decoder, for a few steps on random pictures."""

import pytest
import torch

from emoji_world import autoencoder_training
from emoji_world.autoencoder import build_autoencoder
from emoji_world.autoencoder_training import decoder_psnr, train_decoder
from emoji_world.dataset import PictureDataset
from emoji_world.latents import PatchComponents


@pytest.fixture(autouse=True)
def few_to_validate_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder_training, "VALIDATION_PICTURES", 16)


def test_training_improves_the_decoder_and_leaves_the_encoder(
    pictures: PictureDataset, components: PatchComponents
) -> None:
    torch.manual_seed(0)
    untrained = build_autoencoder(components)
    before = decoder_psnr(untrained, pictures, components)
    vae, after = train_decoder(pictures, components, steps=12, seed=0)
    assert after > before + 1
    assert not vae.training
    for ours, theirs in zip(vae.encoder.parameters(), untrained.encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_is_seeded(pictures: PictureDataset, components: PatchComponents) -> None:
    (first, decibels), (again, same) = (
        train_decoder(pictures, components, steps=2, seed=3) for _ in range(2)
    )
    assert decibels == pytest.approx(same, abs=0)
    for ours, theirs in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
