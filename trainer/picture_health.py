"""Numbers in which pictures show that they fall apart, whatever the reward says of them.

    saturation      mean HSV saturation of the pixels, 0 grey to 1: over-trained guidance is gaudy
    high_frequency  share of the spectrum's energy in fine detail, 0 to 1: noise rises, blur falls
    diversity       mean RMS distance of two pictures of one prompt, 0 to 1: the same picture is 0
    latent_rms      root mean square of the final latent: guidance learned on guidance drives it up

None of them is good or bad in itself. What tells is how far they went from the model as it was.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

HEALTH: Mapping[str, str] = {
    "saturation": "Mean HSV saturation of the pictures' pixels, from 0 (grey) to 1.",
    "high_frequency": "Share of the pictures' energy above a quarter cycle per pixel, 0 to 1.",
    "diversity": "Mean RMS distance of two pictures of one prompt, 0 to 1, where there are two.",
    "latent_rms": "Root mean square of the final latents.",
}
"""Name of each number and what it means."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_FINE = 0.25  # cycles per pixel; 0.5 is the finest that a picture can hold
_SIDE = 16  # pixels to which pictures are averaged before they are compared


def picture_health(images: Images, latent_rms: Floats, prompts: Sequence[str]) -> dict[str, Floats]:
    """All the numbers that these pictures have.

    Args:
        images: (N, H, W, 3) uint8.
        latent_rms: (N,), see `latent_rms`; NaN where the picture is broken, and it is left out.
            Empty where the latents are not known.
        prompts: N prompts.

    Returns:
        Name from `HEALTH` → a finite value per picture, for `diversity` one per prompt. A name
        without a value is absent.
    """
    known = np.isfinite(latent_rms) if len(latent_rms) else np.ones(len(images), np.bool_)
    kept = images[known]
    values = {
        "saturation": saturation(kept),
        "high_frequency": high_frequency(kept),
        "diversity": diversity(
            kept, [prompt for prompt, flag in zip(prompts, known, strict=True) if flag]
        ),
        "latent_rms": latent_rms[known] if len(latent_rms) else latent_rms,
    }
    return {name: each for name, each in values.items() if len(each)}


def saturation(images: Images) -> Floats:
    """HSV saturation, (max − min) / max of a pixel's channels and 0 for black, over each picture.

    Args:
        images: (N, H, W, 3) uint8.

    Returns:
        (N,), each the mean of a picture's pixels, in [0, 1].
    """
    largest = images.max(axis=3).astype(np.float32)
    smallest = images.min(axis=3)
    shares = (largest - smallest) / np.maximum(largest, 1)
    means: Floats = shares.mean(axis=(1, 2), dtype=np.float64)
    return means


def high_frequency(images: Images) -> Floats:
    """Share of each picture's energy that is in detail finer than four pixels.

    The energy is |DFT|² of the luma without its mean, and fine is a radial frequency of at least
    0.25 cycles per pixel. White noise has 1 − π/16 ≈ 0.80, a photograph a few per cent.

    Args:
        images: (N, H, W, 3) uint8.

    Returns:
        (N,) in [0, 1]; 0 for a picture of one colour.
    """
    height, width = images.shape[1:3]
    rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
    fine = np.hypot(rows[:, None], columns[None, :]) >= _FINE
    shares = np.zeros(len(images))
    for place, image in enumerate(images):  # one by one: the spectra of all would be many times it
        luma = image @ _LUMA
        energy = np.abs(np.fft.fft2(luma - luma.mean())) ** 2
        total = energy.sum()
        # What rounding leaves of a flat picture is no energy.
        shares[place] = energy[fine].sum() / total if total > 1e-6 * luma.size else 0.0
    return shares


def diversity(images: Images, prompts: Sequence[str]) -> Floats:
    """How far apart the pictures of one prompt are: a model that collapsed draws the same one.

    The distance is the root mean square difference of RGB in [0, 1], of the pictures averaged to
    about 16×16 pixels, so that it is composition and colour that count and not noise.

    Args:
        images: (N, H, W, 3) uint8.
        prompts: N prompts.

    Returns:
        (P,) in [0, 1], the mean over the pairs of each of the P prompts with two or more pictures,
        in the order of their first pictures.
    """
    small = _averaged(images)
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    found = []
    for group in rows.values():
        pairs = combinations(group, 2)
        distances = [np.sqrt(np.mean((small[a] - small[b]) ** 2)) for a, b in pairs]
        if distances:
            found.append(float(np.mean(distances)))
    return np.array(found)


def latent_rms(latents: "Tensor") -> Floats:
    """Root mean square of each latent.

    Args:
        latents: (B, C, h, w), on any device.

    Returns:
        (B,); not finite where a latent is not.
    """
    squares = latents.detach().double().square().flatten(1).mean(1)
    values: Floats = squares.sqrt().cpu().numpy()
    return values


def _averaged(images: Images) -> Floats:
    """(N, h, w, 3) in [0, 1]: means of square blocks; what is left at the edges is cut off."""
    count, height, width = images.shape[:3]
    block = max(1, min(height, width) // _SIDE)
    rows, columns = height // block, width // block
    cut = images[:, : rows * block, : columns * block]
    blocks = cut.reshape(count, rows, block, columns, block, 3)
    means: Floats = blocks.mean(axis=(2, 4), dtype=np.float64) / 255
    return means
