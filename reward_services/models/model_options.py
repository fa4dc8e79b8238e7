"""Options of every reward with a model of its own; without torch, which not all of them need."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from reward_services.options import RewardOptions

Dtype = Literal["auto", "fp32", "fp16", "bf16", "8bit", "4bit"]


class ModelOptions(RewardOptions):
    """Options of every reward that runs a model of its own."""

    revision: str | None = None
    """Branch, tag or commit of `model` on the hub. Name a commit to pin the weights."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: the first of cuda, mps and cpu there is."""
    dtype: Dtype = "auto"
    """`fp32`, `fp16`, `bf16`, or `8bit` and `4bit` (extra `quantized`). `auto` is described with \
each reward."""
    batch_size: PositiveInt | None = None
    """Pictures per pass through the model. Halved, and kept so, when a GPU runs out of memory."""
    torch_compile: bool = False
    """Compile the model: slow to start, faster afterwards."""
    idle_offload_s: NonNegativeFloat = 0.0
    """Move the model from the GPU to main memory after so many seconds without work; 0: never."""
    warm_up: bool = True
    """Score a picture while starting, so that the first request is not the slowest."""
