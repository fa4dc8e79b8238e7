"""Pictures drawn anew for each step of a training, and worn as those of a generator are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from emoji_world.captions import Caption, all_captions
from emoji_world.composition import Painter, misleading_digit
from emoji_world.dataset import to_unit_range
from emoji_world.icons import IconSet

EVEN_SHARES: Final = {
    "animal": 0.20,
    "unseen_animal": 0.08,
    "object": 0.07,
    "activity": 0.19,
    "unseen_activity": 0.12,
    "unseen_animal_activity": 0.16,
    "count": 0.18,
}
"""Share of the pictures that each family gets; every pair of animal and activity is about equally
likely, the rare ones included."""

SIGN_SHARE: Final = 0.4
"""Share of the counting pictures that show a digit: more than the generator's training has."""

RIGHT_SIGN_SHARE: Final = 0.25
"""Share of those digits that say the right number, so that it does not pay to read them."""

ROUND_TRIP_SHARE: Final = 0.03
"""Share of the pictures that went through the autoencoder. It takes longer than a training step."""

LATENT_NOISE: Final = 0.15
"""At most this standard deviation of noise on their latents, as from an imperfect generator."""


@dataclass(frozen=True)
class Scenes:
    """Pictures with what is known of them.

    Attributes:
        captions: what each shows.
        pixels: uint8 [N, SIZE, SIZE, 3].
        styles: indices into `vocabulary.STYLES`.
        signs: the digit on a number sign, or 0.
    """

    captions: list[Caption]
    pixels: NDArray[np.uint8]
    styles: list[int]
    signs: list[int]


def even_weights(captions: tuple[Caption, ...], shares: Mapping[str, float]) -> NDArray[np.float64]:
    """Probability of each caption: each family's share, spread evenly over its captions."""
    sizes = {family: sum(c.family == family for c in captions) for family in shares}
    weights = np.array([shares[c.family] / sizes[c.family] for c in captions])
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def degrade(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and contrast changes, as in a generator's samples; [N, 3, H, W] in [-1, 1]."""
    count = len(pixels)
    small = functional.avg_pool2d(pixels, 2)
    blurred = functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    mix = torch.rand(count, 1, 1, 1, generator=generator).clamp(min=0.3) - 0.3
    pixels = torch.lerp(pixels, blurred, mix / 0.7)
    contrast = 1 + 0.2 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    noise = torch.randn(pixels.shape, generator=generator)
    strength = 0.12 * torch.rand(count, 1, 1, 1, generator=generator).square()
    return (pixels * contrast + strength * noise).clamp(-1, 1)


@torch.inference_mode()
def round_trip(vae: AutoencoderKL, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [N, 3, H, W] in [-1, 1] through the autoencoder, with a little latent noise."""
    latents = vae.encode(pixels).latent_dist.mode()
    strength = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    decoded: Tensor = vae.decode(latents + strength * noise).sample
    return decoded.clamp(-1, 1)


class FreshPictures:
    """An endless supply of pictures, all determined by (seed, step)."""

    def __init__(self, icons: IconSet, seed: int, vae: AutoencoderKL | None = None) -> None:
        self._icons = icons
        self._seed = seed
        self._vae = vae
        self._captions = all_captions()
        self._weights = even_weights(self._captions, EVEN_SHARES)

    def captions(self, step: int, count: int) -> list[Caption]:
        """What to draw at ``step``."""
        rng = np.random.default_rng([self._seed, step, 0])
        chosen = rng.choice(len(self._captions), count, p=self._weights)
        return [self._captions[index] for index in chosen]

    def draw(
        self, step: int, captions: list[Caption], line_art: Sequence[bool] | None = None
    ) -> Scenes:
        """One picture for each caption, in any style, or as a line drawing or not as told.

        A picture that only exists the other way is drawn the other way.
        """
        rng = np.random.default_rng([self._seed, step, 1])
        painter = Painter(self._icons, rng)
        pictures = []
        for index, caption in enumerate(captions):
            style = None if line_art is None else painter.style(caption, line_art[index])
            pictures.append(painter.draw(caption, style, _sign(caption, rng)))
        return Scenes(
            captions,
            np.stack([picture.pixels for picture in pictures]),
            [picture.style for picture in pictures],
            [picture.sign for picture in pictures],
        )

    def worn(self, step: int, scenes: Scenes) -> Tensor:
        """The pictures of ``scenes`` as float32 [N, 3, SIZE, SIZE] in [-1, 1], worn."""
        rng = np.random.default_rng([self._seed, step, 2])
        latent_noise, wear = (
            torch.Generator().manual_seed(int(seed)) for seed in rng.integers(2**62, size=2)
        )
        pixels = to_unit_range(scenes.pixels)
        through = np.flatnonzero(rng.random(len(pixels)) < ROUND_TRIP_SHARE)
        if self._vae is not None and len(through):
            pixels[through] = round_trip(self._vae, pixels[through], latent_noise)
        return degrade(pixels, wear)


def _sign(caption: Caption, rng: np.random.Generator) -> int:
    if caption.count == 1 or rng.random() >= SIGN_SHARE:
        return 0
    if rng.random() < RIGHT_SIGN_SHARE:
        return caption.count
    return misleading_digit(caption.count, rng)
