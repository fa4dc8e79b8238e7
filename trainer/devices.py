"""The device that a run computes on."""

import torch

from trainer.processes import ALONE, Processes
from trainer.stops import ConfigError


def device_named(name: str, processes: Processes = ALONE) -> torch.device:
    """The device that `run.device` names; each process of a machine has a GPU of its own.

    Raises:
        ConfigError: there is no such device here, or not one for each process.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes.count > 1 and name.startswith("cuda"):
        name = _own_gpu(name, processes.local_rank, torch.cuda.device_count())
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"run.device {name!r} cannot be used here: {str(error).splitlines()[0]}"
        ) from None
    return device


def _own_gpu(name: str, local_rank: int, known: int) -> str:
    """The GPU of one process among several on its machine, of which `known` are there."""
    if name != "cuda":
        raise ConfigError(
            f"run.device {name!r} would be the GPU of every process; set it to auto, and choose "
            "GPUs with CUDA_VISIBLE_DEVICES"
        )
    if local_rank >= known:
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own: there are {known}; "
            "start as many processes as there are GPUs, or set run.device to cpu"
        )
    return f"cuda:{local_rank}"
