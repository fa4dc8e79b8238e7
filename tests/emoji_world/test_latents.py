"""The algebra of the latent space: whitened principal components of patches."""

import numpy as np
import torch

from emoji_world.dataset import PictureDataset
from emoji_world.latents import (
    CHANNELS,
    PATCH,
    WHITENING,
    PatchComponents,
    fit_components,
    to_patches,
)


def test_a_patch_holds_its_pixels_colour_by_colour_row_by_row() -> None:
    pixels = torch.arange(3 * 8 * 8, dtype=torch.float32).view(1, 3, 8, 8)
    patches = to_patches(pixels)
    assert patches.shape == (1, 3 * PATCH**2, 2, 2)
    assert torch.equal(patches[0, :, 1, 0], pixels[0, :, 4:, :4].flatten())


def test_latents_have_no_mean_and_unit_variance_over_all_channels(
    pictures: PictureDataset, components: PatchComponents
) -> None:
    latents = components.encode(pictures.images(np.arange(len(pictures))))
    assert latents.shape == (len(pictures), CHANNELS, 16, 16)
    per_channel = latents.movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(per_channel.mean(0), torch.zeros(CHANNELS), atol=1e-4, rtol=0)
    variances = per_channel.var(0)
    torch.testing.assert_close(variances.mean(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert (variances.diff() < 0).all(), "the leading components are the large ones"


def test_whitening_brings_the_scales_of_the_components_half_way_together(
    pictures: PictureDataset, components: PatchComponents
) -> None:
    pixels = pictures.images(np.arange(len(pictures)))
    patches = to_patches(pixels).movedim(1, -1).flatten(0, 2).numpy()
    own = np.linalg.svd(np.cov(patches.T), compute_uv=False)[:CHANNELS]
    latents = components.encode(pixels).movedim(1, 0).flatten(1).var(1).numpy()
    expected = own ** (1 - WHITENING)
    np.testing.assert_allclose(latents / latents[0], expected / expected[0], rtol=2e-2)


def test_channels_are_uncorrelated(pictures: PictureDataset, components: PatchComponents) -> None:
    latents = components.encode(pictures.images(np.arange(len(pictures))))
    correlation = torch.corrcoef(latents.movedim(1, 0).flatten(1))
    torch.testing.assert_close(correlation, torch.eye(CHANNELS), atol=1e-3, rtol=0)


def test_pictures_of_as_many_dimensions_as_channels_are_kept_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(CHANNELS, 3 * PATCH**2, generator=generator)
    weights = torch.randn(20, CHANNELS, 4, 4, generator=generator)
    patches = torch.einsum("nkhw,kp->nphw", weights, directions) + 0.3
    pixels = torch.nn.functional.pixel_shuffle(patches, PATCH)
    components = fit_components(pixels)
    inverse = torch.linalg.pinv(components.basis)
    decoded = torch.einsum("pk,nkhw->nphw", inverse, components.encode(pixels))
    torch.testing.assert_close(
        decoded + components.mean[:, None, None], patches, atol=1e-3, rtol=1e-3
    )


def test_encoding_is_affine(components: PatchComponents, pictures: PictureDataset) -> None:
    first, second = (pictures.images(np.array([row])) for row in (0, 1))
    mixed = components.encode(0.3 * first + 0.7 * second)
    expected = 0.3 * components.encode(first) + 0.7 * components.encode(second)
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=1e-4)


def test_named_tensors_are_the_whole_map(components: PatchComponents) -> None:
    assert PatchComponents(**components.tensors()) == components
