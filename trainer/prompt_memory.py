"""Prompts encoded once, by encoders that stand on the device only while they work."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from trainer.conditioning import Conditioning
from trainer.text_encoding import TextEncoding


class PromptMemory:
    """The conditioning of every prompt met so far.

    It is kept in the host's memory, and so are the encoders while there is nothing to encode: those
    of Stable Diffusion XL are 3.3 GB in fp32.

    Args:
        encoding: of the family.
        device: of the network.
        dtype: precision of its forward pass. The encoders compute in fp32.
        resident: keep the encoders on the device.
    """

    def __init__(
        self,
        encoding: TextEncoding,
        device: torch.device,
        dtype: torch.dtype,
        *,
        resident: bool = False,
    ) -> None:
        self._encoding = encoding
        self._device = device
        self._dtype = dtype
        self._resident = resident
        self._known: dict[str, Conditioning] = {}
        self._unconditional: Conditioning | None = None
        for encoder in encoding.encoders:
            encoder.model.eval().requires_grad_(False)

    @torch.no_grad()
    def remember(self, prompts: Sequence[str]) -> None:
        """Encode what is new among the prompts, in one visit of the encoders to the device.

        Each prompt is encoded alone, so its embedding never depends on its batch-mates.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if not new and self._unconditional is not None:
            return
        with self._at_work() as encoding:
            if self._unconditional is None:
                self._unconditional = self._kept(encoding.unconditional())
            for prompt in new:
                self._known[prompt] = self._kept(encoding.encode(prompt))

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """The prompts' rows, on the device in the forward pass's precision."""
        self.remember(prompts)
        return Conditioning.cat([self._known[prompt] for prompt in prompts]).to(self._device)

    def unconditional(self) -> Conditioning:
        """The row that guidance leads away from."""
        self.remember([])
        assert self._unconditional is not None
        return self._unconditional.to(self._device)

    def _kept(self, row: Conditioning) -> Conditioning:
        return row.in_precision(self._dtype).to("cpu")

    @contextmanager
    def _at_work(self) -> Iterator[TextEncoding]:
        for encoder in self._encoding.encoders:
            encoder.model.to(self._device)
        try:
            yield self._encoding
        finally:
            if not self._resident:
                for encoder in self._encoding.encoders:
                    encoder.model.to("cpu")
