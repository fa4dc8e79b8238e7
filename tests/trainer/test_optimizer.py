"""The optimiser: its settings, and the rise of its learning rate."""

import sys

import pytest
import torch

from trainer.optimizer import make_optimizer, take_step
from trainer.policy import Policy
from trainer.sections import TrainingSection
from trainer.stops import ConfigError
from trainer.unet_policy import UNetPolicy


def test_the_settings_reach_adamw(lora_policy: Policy) -> None:
    section = TrainingSection(
        learning_rate=0.5, betas=(0.1, 0.2), adam_epsilon=0.3, weight_decay=0.4
    )
    (group,) = make_optimizer(lora_policy, section).param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.1, 0.2), 0.3)
    assert group["weight_decay"] == 0.4
    assert len(group["params"]) == len(lora_policy.trainable_parameters())


@pytest.mark.parametrize("kind", ["adamw_fused", "adamw_8bit"])
def test_other_kinds_take_nearly_the_same_steps(full_policy: UNetPolicy, kind: str) -> None:
    """The micro model's weights have few numbers each, of which the 8-bit kind keeps 32 bits."""
    start = full_policy.state()

    def trained(section: TrainingSection) -> torch.Tensor:
        full_policy.load_state(start)
        optimizer = make_optimizer(full_policy, section)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in full_policy.trainable_parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            take_step(optimizer, section)
        rows = [each.detach().flatten() for each in full_policy.trainable_parameters()]
        return torch.cat(rows) - torch.cat([each.flatten() for each in start.values()])

    exact = trained(TrainingSection(learning_rate=0.01))
    other = trained(TrainingSection.model_validate({"learning_rate": 0.01, "optimizer": kind}))
    assert (other - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(other, exact)


def test_a_missing_library_is_named(
    full_policy: UNetPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"ddpo-reward-services\[adam8bit\]"):
        make_optimizer(full_policy, TrainingSection(optimizer="adamw_8bit"))


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
