"""Weights counted from a configuration are those that are loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.loading import load_policy
from trainer.model_sizes import model_sizes
from trainer.pipeline import load_pipeline
from trainer.sections import LoraSection, ModelSection
from trainer.stops import ConfigError


@pytest.mark.parametrize("train", ["lora", "full"])
@pytest.mark.parametrize("kind", ["noise", "xl"])
def test_as_many_weights_as_are_loaded(tiny: Callable[[str], Path], kind: str, train: str) -> None:
    model = ModelSection.model_validate({"path": str(tiny(kind)), "train": train})
    pipeline, policy, sizes = load_pipeline(model), load_policy(model), model_sizes(model)
    assert sizes is not None
    texts = {
        name: each.model
        for name, each in zip(pipeline.family.text_encoders, pipeline.text_encoders, strict=True)
    }
    assert sizes.parts == {
        name: sum(each.numel() for each in part.parameters())
        for name, part in {"unet": pipeline.unet, "vae": pipeline.vae, **texts}.items()
    }
    assert sizes.trained == sum(each.numel() for each in policy.trainable_parameters())
    assert sizes.latent_shape == policy.latent_shape


def test_stable_diffusion_1_is_known_without_its_files() -> None:
    """The published numbers of weights: UNet, text encoder, VAE, and adapters of rank 4."""
    sizes = model_sizes(ModelSection(path="CompVis/stable-diffusion-v1-4"))
    assert sizes is not None
    assert sizes.parts == {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}
    assert sizes.trained == 797_184
    assert sizes.latent_shape == (4, 64, 64)


def test_another_model_is_unknown_without_its_files() -> None:
    assert model_sizes(ModelSection(path="someone/else")) is None


def test_adapters_that_fit_nothing(micro_sd: Path) -> None:
    model = ModelSection(path=str(micro_sd), lora=LoraSection(target_modules=("nosuch",)))
    with pytest.raises(ConfigError, match=r"model\.lora: "):
        model_sizes(model)
