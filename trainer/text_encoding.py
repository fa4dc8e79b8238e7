"""Prompts as conditioning: one way for each family of models.

The embeddings of a prompt longer than the tokenizer's limit are those of its beginning, as in
diffusers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.conditioning import Conditioning


@dataclass(frozen=True)
class ClipText:
    """A CLIP text encoder with its tokenizer.

    Attributes:
        tokenizer: transformers.CLIPTokenizer
        model: transformers.CLIPTextModel, or CLIPTextModelWithProjection
    """

    tokenizer: Any
    model: Any

    def __call__(self, prompt: str) -> Any:
        """What the model says of one prompt, with the states of all its layers."""
        positions = self.model.config.max_position_embeddings
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=min(self.tokenizer.model_max_length, positions),
            truncation=True,
            return_tensors="pt",
        )
        return self.model(tokens.input_ids.to(self.model.device), output_hidden_states=True)


class TextEncoding(Protocol):
    """How a family's prompts become what its network is conditioned on."""

    @property
    def encoders(self) -> Sequence[ClipText]:
        """The models that it asks, in fp32."""

    def encode(self, prompt: str) -> Conditioning:
        """One row, fp32, on the encoders' device."""

    def unconditional(self) -> Conditioning:
        """The row that guidance leads away from."""


@dataclass(frozen=True)
class LastStates:
    """Stable Diffusion 1 and 2: the last states of one encoder."""

    encoders: Sequence[ClipText]

    def encode(self, prompt: str) -> Conditioning:
        """Embeddings alone."""
        (encoder,) = self.encoders
        return Conditioning(encoder(prompt)[0])

    def unconditional(self) -> Conditioning:
        """The empty prompt."""
        return self.encode("")


@dataclass(frozen=True)
class PenultimateStates:
    """Stable Diffusion XL: the last states but one of two encoders, side by side.

    Podell et al. 2023, section 2.1 and 2.2. The second encoder's projection of the whole prompt and
    the size of the picture go to the network beside them.

    Attributes:
        encoders: CLIPTextModel and CLIPTextModelWithProjection.
        zeros_for_empty: the unconditional row is all zeros, not the empty prompt:
            `force_zeros_for_empty_prompt` of the pipeline.
        size: height and width of the pictures in pixels. They are conditioned on as uncropped
            originals of that size, as in diffusers.
    """

    encoders: Sequence[ClipText]
    zeros_for_empty: bool
    size: tuple[int, int]

    def encode(self, prompt: str) -> Conditioning:
        """Embeddings of (1, L, D_1 + D_2), the projection and the sizes."""
        first, second = (encoder(prompt) for encoder in self.encoders)
        embeddings = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        pooled: Tensor = second.text_embeds
        sizes = torch.tensor([[*self.size, 0, 0, *self.size]], dtype=torch.float32)
        return Conditioning(embeddings, pooled, sizes.to(pooled.device))

    def unconditional(self) -> Conditioning:
        """Zeros or the empty prompt, with the sizes of any prompt."""
        empty = self.encode("")
        if not self.zeros_for_empty:
            return empty
        assert empty.pooled is not None
        return Conditioning(
            torch.zeros_like(empty.embeddings), torch.zeros_like(empty.pooled), empty.time_ids
        )
