"""The model that a run began with, as a policy to compare with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.conditioning import Conditioning
from trainer.policy import Policy


class BasePolicy:
    """The policy before training.

    Adapters are switched off for a moment, which costs no memory. Of a fully trained UNet a frozen
    copy is kept, in fp32 like the trained one, so that the divergence of equal weights is exactly 0
    in every precision of the forward pass: 3.4 GB for Stable Diffusion 1.4.

    Args:
        policy: as it was loaded. Make this before it is trained, or gets the weights of a
            checkpoint: those of now are the base of a full UNet.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._copy = policy.frozen_copy() if policy.model.train == "full" else None

    @torch.no_grad()
    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditional: Conditioning,
        unconditional: Conditioning,
        guidance_scale: float,
    ) -> Tensor:
        """What `Policy.predict_noise` gave before training, (P, C, h, w) fp32, without gradient."""
        with self._network() as policy:
            return policy.predict_noise(
                latents, timesteps, conditional, unconditional, guidance_scale
            )

    @contextmanager
    def _network(self) -> Iterator[Policy]:
        if self._copy is not None:
            yield self._copy
        else:
            with self._policy.without_adapters():
                yield self._policy
