"""The device that a run computes on."""

import torch

from trainer.stops import ConfigError


def device_named(name: str) -> torch.device:
    """The device that `run.device` names.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"run.device {name!r} cannot be used here: {str(error).splitlines()[0]}"
        ) from None
    return device
