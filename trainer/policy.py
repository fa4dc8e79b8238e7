"""What is trained, as the rest of the trainer sees it: a policy, whatever the model behind it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trainer.conditioning import Conditioning
from trainer.ddim import DDIMTables
from trainer.picture_codec import PictureCodec
from trainer.sections import ModelSection


class Policy(Protocol):
    """A diffusion model seen as a policy: x_t, prompt → the noise it predicts.

    Trained weights are fp32 whatever the precision of the forward pass, and sampling and training
    compute the same function. `trainer.loading.load_policy` makes one.
    """

    device: torch.device
    codec: PictureCodec

    @property
    def model(self) -> ModelSection:
        """The settings this policy was made from."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""

    @property
    def loss_scale(self) -> float:
        """Factor on the loss while gradients are computed, to be divided out of them again."""

    @property
    def training_timesteps(self) -> int:
        """Timesteps that the model was trained on, 1000 for Stable Diffusion."""

    def tables(self, steps: int, eta: float) -> DDIMTables:
        """The model's DDIM schedule for a number of steps, on the policy's device.

        Raises:
            ConfigError: too many steps, or a step without noise.
        """

    def remember(self, prompts: Sequence[str]) -> None:
        """Encode prompts that will be asked for, all at once, which may spare time and memory."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each of B prompts, on the device in the forward pass's precision.

        A row never depends on its batch-mates. Any prompt may come at any time.
        """

    def unconditional(self) -> Conditioning:
        """The one row that guidance leads away from."""

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditional: Conditioning,
        unconditional: Conditioning,
        guidance_scale: float,
    ) -> Tensor:
        """The guided output of the network o_u + w (o_c − o_u), (P, C, h, w) fp32, differentiable.

        It may be noise or velocity; `target` is of the same kind. The gradient flows through both
        halves (Black et al. 2024, appendix E.1). With w = 1 the unconditional half is left out.

        Args:
            latents: x_t, (P, C, h, w) fp32.
            timesteps: t, (P,) int64.
            conditional: of the prompts, P rows.
            unconditional: see there, one row.
            guidance_scale: w ≥ 1.
        """

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditional: Conditioning,
        unconditional: Conditioning,
        guidance_scale: float,
    ) -> Tensor:
        """ε that `predict` of the same arguments stands for, (P, C, h, w) fp32, differentiable."""

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = √ᾱ_t x_0 + √(1−ᾱ_t) n, (B, C, h, w) fp32.

        Args:
            latents: x_0, (B, C, h, w).
            noise: n, (B, C, h, w).
            timesteps: t of training, (B,) int64.
        """

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `predict` should give at `noised` of the same arguments, (B, C, h, w) fp32."""

    def named_trained(self) -> dict[str, torch.nn.Parameter]:
        """The trained weights by name, fp32, in a fixed order."""

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """The trained weights, fp32, in a fixed order."""

    def state(self) -> dict[str, Tensor]:
        """Copies of the trained weights by name, on the CPU."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back the weights of `state`.

        Raises:
            ModelError: names or shapes are not those of this model.
        """

    def without_adapters(self) -> AbstractContextManager[None]:
        """Inside, predictions are those of the model that the adapters were put into."""

    def frozen_copy(self) -> "Policy":
        """A policy with the network as it is now, which cannot be trained; it shares all else."""

    def save_trained(self, folder: Path) -> Path:
        """Write what was trained in the form plain diffusers loads, see `trained_weights`."""
