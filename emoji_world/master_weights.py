"""float32 master weights behind low-precision modules, with their averages and their optimiser."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

EMA_DECAY: Final = 0.999
MAX_GRAD_NORM: Final = 1.0


@dataclass(frozen=True)
class _Weight:
    name: str
    working: nn.Parameter
    master: nn.Parameter
    average: Tensor


class MasterWeights:
    """The trainable parameters of some modules, kept and averaged in float32, under AdamW."""

    def __init__(self, modules: dict[str, nn.Module], learning_rate: float) -> None:
        self._weights: list[_Weight] = []
        for prefix, module in modules.items():
            for name, parameter in module.named_parameters():
                master = nn.Parameter(parameter.detach().float().contiguous().clone())
                average = master.detach().clone()
                self._weights.append(_Weight(f"{prefix}.{name}", parameter, master, average))
        self._optimizer = torch.optim.AdamW(
            [weight.master for weight in self._weights],
            lr=learning_rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
        )

    @torch.no_grad()
    def step(self, learning_rate: float, decay: float, world_size: int) -> Tensor:
        """Average gradients over processes, clip, update, copy back; the gradient norm.

        Raises:
            FloatingPointError: a gradient is not finite; no weight has been changed.
        """
        gradients = []
        for weight in self._weights:
            assert weight.working.grad is not None
            gradients.append(weight.working.grad.float().contiguous().flatten())
        flat = torch.cat(gradients)
        if world_size > 1:
            dist.all_reduce(flat)
            flat /= world_size
        norm: Tensor = flat.norm()
        if not torch.isfinite(norm):
            raise FloatingPointError("a gradient is not finite: take a lower learning rate")
        flat *= (MAX_GRAD_NORM / (norm + 1e-6)).clamp(max=1.0)
        offset = 0
        for weight in self._weights:
            size = weight.master.numel()
            weight.master.grad = flat[offset : offset + size].view_as(weight.master)
            weight.working.grad = None
            offset += size
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        masters: list[Tensor] = [weight.master for weight in self._weights]
        torch._foreach_lerp_([w.average for w in self._weights], masters, 1 - decay)
        self._copy_to_working(masters)
        return norm

    def _copy_to_working(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.working.copy_(value.view_as(weight.working))

    @torch.no_grad()
    def load_averages_into_modules(self) -> None:
        """Put the averaged weights into the modules, to sample from or to save them."""
        self._copy_to_working([weight.average for weight in self._weights])

    def state(self) -> dict[str, Tensor]:
        """Masters, averages and optimiser moments as named tensors."""
        named = {}
        for weight in self._weights:
            named[f"master/{weight.name}"] = weight.master.detach()
            named[f"average/{weight.name}"] = weight.average
        named.update(self._moments())
        return named

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for index, state in self._optimizer.state_dict()["state"].items():
            for key, value in state.items():
                yield f"optimizer/{index}/{key}", value

    @torch.no_grad()
    def load_state(self, named: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for weight in self._weights:
            weight.master.copy_(named[f"master/{weight.name}"])
            weight.average.copy_(named[f"average/{weight.name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in named.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                moments.setdefault(int(index), {})[key] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        self._copy_to_working([weight.master for weight in self._weights])
