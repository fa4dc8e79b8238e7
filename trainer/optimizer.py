"""AdamW over the trained weights, with a warm-up of its learning rate."""

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from trainer.policy import Policy
from trainer.sections import TrainingSection
from trainer.stops import ConfigError


def make_optimizer(policy: Policy, training: TrainingSection) -> torch.optim.Optimizer:
    """AdamW over the trained weights; raises as `adamw`."""
    return adamw(policy.trainable_parameters(), training)


def adamw(
    parameters: Sequence[torch.nn.Parameter], training: TrainingSection
) -> torch.optim.Optimizer:
    """The AdamW that `training.optimizer` names.

    Raises:
        ConfigError: it needs a library that is not installed.
    """
    common: dict[str, Any] = {
        "params": parameters,
        "lr": training.learning_rate,
        "betas": training.betas,
        "eps": training.adam_epsilon,
        "weight_decay": training.weight_decay,
    }
    if training.optimizer == "adamw_8bit":
        optimizer: torch.optim.Optimizer = _bitsandbytes().optim.AdamW8bit(**common)
        return optimizer
    return torch.optim.AdamW(**common, fused=training.optimizer == "adamw_fused" or None)


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(
            f'training.optimizer "adamw_8bit" needs bitsandbytes, which cannot be imported '
            f"({error}): pip install 'ddpo-reward-services[adam8bit]', or choose adamw_fused"
        ) from None


def take_step(optimizer: torch.optim.Optimizer, training: TrainingSection) -> None:
    """Change the weights by their gradients, at the learning rate that is due.

    How many steps there were is read from the optimiser's own state, so the warm-up goes on where
    it was after a resume, and begins anew with an emptied optimiser.
    """
    if training.warmup_steps:
        rate = training.learning_rate * min(1.0, (_steps(optimizer) + 1) / training.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
    optimizer.step()


def _steps(optimizer: torch.optim.Optimizer) -> int:
    """Steps taken so far."""
    for state in optimizer.state.values():
        return int(state["step"])
    return 0
