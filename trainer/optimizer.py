"""AdamW over the trained weights, with a warm-up of its learning rate."""

import torch

from trainer.policy import Policy
from trainer.sections import TrainingSection


def make_optimizer(policy: Policy, training: TrainingSection) -> torch.optim.AdamW:
    """AdamW over the trained weights."""
    return torch.optim.AdamW(
        policy.trainable_parameters(),
        lr=training.learning_rate,
        betas=training.betas,
        eps=training.adam_epsilon,
        weight_decay=training.weight_decay,
    )


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
