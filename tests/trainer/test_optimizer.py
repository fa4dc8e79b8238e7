"""The optimiser: its settings, and the rise of its learning rate."""

import pytest
import torch

from trainer.optimizer import make_optimizer, take_step
from trainer.policy import Policy
from trainer.sections import TrainingSection


def test_the_settings_reach_adamw(lora_policy: Policy) -> None:
    section = TrainingSection(
        learning_rate=0.5, betas=(0.1, 0.2), adam_epsilon=0.3, weight_decay=0.4
    )
    (group,) = make_optimizer(lora_policy, section).param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.1, 0.2), 0.3)
    assert group["weight_decay"] == 0.4
    assert len(group["params"]) == len(lora_policy.trainable_parameters())


def moved(section: TrainingSection, steps: int, cleared_after: int | None = None) -> list[float]:
    """How far each step moves a weight whose gradient is 1: Adam's step is the learning rate."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=section.learning_rate, weight_decay=0.0)
    found = []
    for step in range(steps):
        if step == cleared_after:
            optimizer.state.clear()
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        take_step(optimizer, section)
        found.append(before - weight.item())
    return found


def test_the_learning_rate_rises_to_its_value_and_stays() -> None:
    section = TrainingSection(learning_rate=0.1, warmup_steps=4)
    assert moved(section, 6) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rel=1e-6)


def test_without_a_warm_up_it_is_constant() -> None:
    assert moved(TrainingSection(learning_rate=0.1), 3) == pytest.approx([0.1] * 3, rel=1e-6)


def test_an_emptied_optimiser_warms_up_anew() -> None:
    section = TrainingSection(learning_rate=0.1, warmup_steps=2)
    assert moved(section, 5, cleared_after=3) == pytest.approx(
        [0.05, 0.1, 0.1, 0.05, 0.1], rel=1e-6
    )


def test_a_restored_optimiser_goes_on_with_its_warm_up() -> None:
    section = TrainingSection(learning_rate=0.1, warmup_steps=4)
    weight = torch.nn.Parameter(torch.zeros(1))
    first = torch.optim.AdamW([weight], lr=0.1)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        take_step(first, section)
    second = torch.optim.AdamW([weight], lr=0.1)
    second.load_state_dict(first.state_dict())
    weight.grad = torch.ones_like(weight)
    take_step(second, section)
    assert second.param_groups[0]["lr"] == pytest.approx(0.075)
