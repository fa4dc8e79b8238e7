"""What predictions are conditioned on, row by row, whatever the family of the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What B predictions are conditioned on.

    Only what encodes prompts and the network itself look inside. All others pick rows and put
    rows together, so a family may fill in what its network takes and leave out the rest.
    """

    embeddings: Tensor
    """Of each token, (B, L, D)."""
    pooled: Tensor | None = None
    """Of the whole prompt, (B, P)."""
    time_ids: Tensor | None = None
    """(B, 6) fp32, in pixels: height and width of the original, top and left of the crop, height
    and width aimed at (Podell et al. 2023, section 2.2)."""

    @classmethod
    def cat(cls, parts: Sequence["Conditioning"]) -> "Conditioning":
        """The rows of all parts, in order."""
        first, *others = parts
        return first._each(lambda *tensors: torch.cat(tensors), *others)

    def __len__(self) -> int:
        return len(self.embeddings)

    def select(self, rows: Tensor) -> "Conditioning":
        """Rows by index, (P,) int64 on the same device, or by a mask."""
        return self._each(lambda tensor: tensor[rows])

    def expand(self, count: int) -> "Conditioning":
        """The only row `count` times, without a copy."""
        return self._each(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def replaced(self, mask: Tensor, row: "Conditioning") -> "Conditioning":
        """The same with one `row` in place of those where `mask`, (B,) bool, is set."""

        def pick(tensor: Tensor, other: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (tensor.ndim - 1)), other, tensor)

        return self._each(pick, row)

    def to(self, device: torch.device | str) -> "Conditioning":
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def in_precision(self, dtype: torch.dtype) -> "Conditioning":
        """The same in another precision, but for the sizes: half precision rounds large ones."""
        rounded = self._each(lambda tensor: tensor.to(dtype))
        return replace(rounded, time_ids=self.time_ids)

    def _each(self, change: Callable[..., Tensor], *others: "Conditioning") -> "Conditioning":
        """`change` of every tensor that is there, and of its namesakes in `others`."""
        found: dict[str, Any] = {}
        for field in fields(self):
            tensors = [getattr(each, field.name) for each in (self, *others)]
            found[field.name] = None if tensors[0] is None else change(*tensors)
        return Conditioning(**found)
