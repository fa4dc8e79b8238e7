"""The policy that a configuration asks for."""

import torch

from trainer.policy import Policy
from trainer.sections import ModelSection
from trainer.unet_policy import UNetPolicy


def load_policy(model: ModelSection, device: torch.device | str = "cpu", seed: int = 0) -> Policy:
    """Load a model and make its trained part trainable.

    Args:
        model: what to load and what to train.
        device: where it runs.
        seed: initialises the adapters, or the network with `model.from_scratch`.

    Raises:
        ModelError: the folder is not a pipeline, or it cannot be trained as asked.
    """
    return UNetPolicy.load(model, device, seed)
