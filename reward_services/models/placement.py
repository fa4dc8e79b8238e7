"""Where a model computes and in which precision."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reward_services.models.model_options import ModelOptions
from reward_services.options import SetupError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Placement:
    """A device, the dtype of the weights there, and whether they are quantised."""

    device: torch.device
    dtype: torch.dtype
    quantized: Literal["8bit", "4bit"] | None = None

    @property
    def exact(self) -> bool:
        """Whether the score of a picture must be the same bits in every batch.

        It is on a CPU, where a matrix product of another height is summed in another order.
        """
        return self.device.type == "cpu"

    @property
    def precision(self) -> str:
        """The name of the precision, as part of a reward's version."""
        return self.quantized or next(n for n, dtype in _DTYPES.items() if dtype is self.dtype)

    def load_arguments(self) -> dict[str, Any]:
        """Arguments of a transformers `from_pretrained`."""
        if self.quantized is None:
            return {"dtype": self.dtype}
        from transformers import BitsAndBytesConfig

        four = self.quantized == "4bit"
        config = BitsAndBytesConfig(
            load_in_4bit=four, load_in_8bit=not four, bnb_4bit_compute_dtype=self.dtype
        )
        return {
            "dtype": self.dtype,
            "quantization_config": config,
            "device_map": {"": self.device},
        }

    def place(self, model: nn.Module) -> nn.Module:
        """`model` for inference, on the device."""
        model.requires_grad_(False).eval()
        return model if self.quantized else model.to(self.device)

    def send(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device; to a GPU through pinned memory, without waiting."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        if self.device.type == "cpu":
            # Into memory of torch's own, which is aligned. Arrays of numpy lie anywhere, and the
            # last bits of a matrix product may depend on where.
            return tensor.clone()
        return tensor.to(self.device)


def place(options: ModelOptions, half_on_gpu: bool = False) -> Placement:
    """The placement that `options` ask for.

    Args:
        options: device and dtype.
        half_on_gpu: what `dtype=auto` is on a GPU: fp16, or like everywhere else fp32.

    Raises:
        SetupError: no such device here, or a dtype it does not have.
    """
    device = _device(options.device)
    if options.dtype in ("8bit", "4bit"):
        _require_quantisation(device, options)
        return Placement(device, torch.float16, options.dtype)
    if options.dtype == "auto":
        half = half_on_gpu and device.type != "cpu"
        return Placement(device, torch.float16 if half else torch.float32)
    return Placement(device, _DTYPES[options.dtype])


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise SetupError(
                f"device={name}: torch {torch.__version__} sees {count} CUDA devices here; "
                "set device=auto"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SetupError("device=mps: torch sees no Apple GPU here; set device=auto")
    return device


def _require_quantisation(device: torch.device, options: ModelOptions) -> None:
    if device.type != "cuda":
        raise SetupError(f"dtype={options.dtype} needs a CUDA device, not {device}")
    if options.idle_offload_s:
        raise SetupError(f"dtype={options.dtype} cannot be moved: set idle_offload_s=0")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise SetupError(
            f"dtype={options.dtype} needs bitsandbytes: pip install "
            "'ddpo-reward-services[quantized]'"
        ) from None
