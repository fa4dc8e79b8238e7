"""The exponential moving average of the trained weights, which is what evaluations draw with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def decay_after(updates: int, decay: float, *, warmup: bool) -> float:
    """What an update keeps of the average: d, or min(d, (1 + n) / (10 + n)) while warming up.

    Without a warm-up the average is mostly the weights before training until some 1/(1 − d) updates
    are over. The formula is that of diffusers and, before it, of TensorFlow.

    Args:
        updates: n, those made before this one.
        decay: d, in [0, 1).
        warmup: whether the average follows faster at first.
    """
    return min(decay, (1 + updates) / (10 + updates)) if warmup else decay


class WeightAverage:
    """An average of parameters, in fp32 on their device, which can take their place for a while.

    Args:
        trained: the parameters by name; the average begins as what they are now.
        decay: d, in [0, 1).
        warmup: see `decay_after`.
    """

    def __init__(
        self, trained: Mapping[str, torch.nn.Parameter], decay: float, *, warmup: bool
    ) -> None:
        self._trained = trained
        self._average = {name: parameter.detach().clone() for name, parameter in trained.items()}
        self._decay = decay
        self._warmup = warmup
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the parameters, once per optimiser step: m ← d m + (1 − d) w."""
        weight = 1 - decay_after(self.updates, self._decay, warmup=self._warmup)
        for name, parameter in self._trained.items():
            self._average[name].lerp_(parameter, weight)
        self.updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters have the averaged values. Do not train or update there."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        # Storage changes hands, so this takes neither time nor memory, and gives back every bit.
        for name, parameter in self._trained.items():
            parameter.data, self._average[name] = self._average[name], parameter.data

    def state(self) -> dict[str, Tensor]:
        """Copies of the averaged weights by name, on the CPU."""
        return {
            name: tensor.to("cpu", copy=True).contiguous() for name, tensor in self._average.items()
        }

    def load_state(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Put back what `state` gave, and the number of updates behind it.

        Raises:
            KeyError: a parameter is missing in it.
        """
        for name, tensor in self._average.items():
            tensor.copy_(state[name])
        self.updates = updates
