"""The latent space of the generator: whitened principal components of 4×4 patches.

The autoencoder's encoder is set to this linear map exactly (`emoji_world.autoencoder`), so the
latents of a picture are known before anything is trained, and the UNet and the decoder can learn
at the same time.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

PATCH: Final = 4
"""Pixels per side of a patch: one latent position."""

CHANNELS: Final = 8
"""Latent channels: the principal components that are kept, of 48."""

WHITENING: Final = 0.5
"""0 keeps the components' own scale, 1 gives each unit variance; between, the large ones lead."""


def to_patches(pixels: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] as patch vectors [N, 3·PATCH², H/PATCH, W/PATCH]."""
    return torch.nn.functional.pixel_unshuffle(pixels, PATCH)


@dataclass(frozen=True)
class PatchComponents:
    """A linear map from patches to latents.

    Attributes:
        mean: [3·PATCH²], the mean patch, for pixels in [-1, 1].
        basis: [CHANNELS, 3·PATCH²], latents per unit of centred patch.
    """

    mean: Tensor
    basis: Tensor

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents [N, CHANNELS, H/PATCH, W/PATCH] of pictures [N, 3, H, W] in [-1, 1]."""
        centred = to_patches(pixels) - self.mean[:, None, None]
        return torch.einsum("kp,nphw->nkhw", self.basis, centred)

    def tensors(self) -> dict[str, Tensor]:
        """The map as named tensors, for safetensors."""
        return {"mean": self.mean, "basis": self.basis}


def fit_components(pixels: Tensor) -> PatchComponents:
    """Principal components of the patches of ``pixels`` [N, 3, H, W] in [-1, 1].

    The latents have zero mean and, averaged over channels, unit variance.
    """
    patches = to_patches(pixels).movedim(1, -1).flatten(0, 2).double()
    mean = patches.mean(0)
    covariance = torch.cov((patches - mean).T)
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0)[:CHANNELS], directions.flip(1)[:, :CHANNELS]
    scale = variances.pow(-WHITENING / 2)
    spread = (variances * scale.square()).mean().sqrt()
    basis = directions.T * (scale / spread)[:, None]
    return PatchComponents(mean.float(), basis.float())
