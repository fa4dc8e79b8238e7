"""The autoencoder between latents and pictures: fp32, as some decode to NaN in half precision."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """What the encoder says of N pictures: x_0 ~ N(mean, deviation²), each (N, C, h, w) fp32."""

    mean: Tensor
    deviation: Tensor

    def draw(self, rows: Tensor, noise: Tensor) -> Tensor:
        """x_0 of some of the pictures, (B, C, h, w).

        Args:
            rows: (B,) int64, which pictures.
            noise: (B, C, h, w), standard normal.
        """
        return self.mean[rows] + self.deviation[rows] * noise


class PictureCodec:
    """Decodes latents and encodes pictures with a diffusers `AutoencoderKL`."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of final latents: (B, C, h, w) → (B, 3, H, W) fp32, black 0 and white 1.

        Not clamped, which would turn an infinite value into a white pixel: see
        `sampling.finite_images`.
        """
        scaled = latents.float() / self._vae.config.scaling_factor
        decoded: Tensor = self._vae.decode(scaled).sample
        return decoded / 2 + 0.5

    @torch.no_grad()
    def encode(self, images: npt.NDArray[np.uint8], batch_size: int) -> Posterior:
        """The latents of pictures, in the sampler's scale.

        Args:
            images: uint8 (N, H, W, 3).
            batch_size: pictures per pass. Affects speed and memory only.
        """
        scale = self._vae.config.scaling_factor
        means, deviations = [], []
        for first in range(0, len(images), batch_size):
            pixels = torch.from_numpy(images[first : first + batch_size]).to(self._vae.device)
            encoded = self._vae.encode(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
            means.append(encoded.mean * scale)
            deviations.append(encoded.std * scale)
        return Posterior(torch.cat(means), torch.cat(deviations))
