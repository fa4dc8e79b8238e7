"""The divergence from the base model: torch's numbers, its gradient, and what a penalty does."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from trainer.ddim import DDIMTables
from trainer.kl import Divergence, drawn_kl, penalized, step_kl, with_kl
from trainer.loss import ppo_loss

STEPS = torch.tensor([0, 2, 3])


def tables() -> DDIMTables:
    alphas = torch.linspace(0.999, 0.01, 1000)
    return DDIMTables.build(alphas, 0.9995, torch.tensor([751, 501, 251, 1]), eta=1.0)


def means(spread: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(3, 4, 8, 8, generator=generator)
    return base + spread * torch.randn(base.shape, generator=generator), base


def test_it_is_what_torch_says_it_is() -> None:
    mean, base = means()
    sigma = tables().sigma[STEPS].view(-1, 1, 1, 1).expand_as(mean)
    ours: Any = Independent(Normal(mean, sigma), 3)
    theirs: Any = Independent(Normal(base, sigma), 3)
    expected = kl_divergence(ours, theirs) / base[0].numel()
    torch.testing.assert_close(step_kl(tables(), STEPS, mean, base), expected)
    drawn = ours.sample()
    expected = (ours.log_prob(drawn) - theirs.log_prob(drawn)) / base[0].numel()
    found = drawn_kl(tables(), STEPS, mean, base, drawn)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_equal_policies_are_at_no_distance() -> None:
    mean, _ = means()
    drawn = mean + 1
    assert not step_kl(tables(), STEPS, mean, mean).any()
    assert not drawn_kl(tables(), STEPS, mean, mean, drawn).any()


def test_the_gradient_is_the_shift_by_the_variance() -> None:
    mean, base = (each.requires_grad_() for each in means())
    step_kl(tables(), STEPS, mean, base).sum().backward()  # type: ignore[no-untyped-call]
    variance = tables().sigma[STEPS].square().view(-1, 1, 1, 1)
    assert mean.grad is not None
    torch.testing.assert_close(mean.grad, (mean - base) / variance / base[0].numel())
    assert base.grad is None


def test_as_a_reward_only_the_drawn_ratio_leads_back() -> None:
    """E[K ∇ log p] of one step is ∇ KL with the log-ratio, and 0 with the exact KL."""
    schedule, count = tables(), 200_000
    steps = torch.full((count,), 1)
    sigma, shift = float(schedule.sigma[1]), torch.tensor([0.3, -0.2])
    base = torch.zeros(count, 2, 1, 1)
    mean = base + sigma * shift.view(1, 2, 1, 1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    score = (noise / sigma).flatten(1)
    ratio = 2 * drawn_kl(schedule, steps, mean, base, mean + sigma * noise)
    exact = 2 * step_kl(schedule, steps, mean, base)
    torch.testing.assert_close(
        (ratio[:, None] * score).mean(0), shift / sigma, rtol=0, atol=0.02 / sigma
    )
    assert (exact[:, None] * score).mean(0).abs().max() < 0.01 / sigma
    assert ratio.mean().item() == pytest.approx(exact.mean().item(), abs=5e-3)


def test_it_is_added_to_the_loss_of_each_pair() -> None:
    log_prob = torch.tensor([0.0, 0.1])
    outcome = ppo_loss(log_prob, torch.zeros(2), torch.tensor([1.0, -1.0]), 1.0, 5.0)
    assert outcome.kl_to_base.isnan().all()
    kl = torch.tensor([0.5, 2.0], requires_grad=True)
    summed = with_kl(outcome, kl, 0.25)
    torch.testing.assert_close(summed.loss, outcome.loss + torch.tensor([0.125, 0.5]))
    assert summed.kl_to_base.tolist() == [0.5, 2.0]
    assert summed.loss.requires_grad
    assert not summed.kl_to_base.requires_grad


def test_a_trajectory_that_became_likelier_costs_advantage() -> None:
    drawn = torch.tensor([[0.1, 0.2], [0.0, 0.1], [math.nan, 0.0], [-0.1, 0.0]])
    advantages = np.array([1.0, -1.0, math.nan, 0.5])
    keep = np.array([True, True, False, True])
    # In nats: 3, 1 and −1, whose mean is 1.
    found = penalized(advantages, keep, drawn, 0.5, dimensions=10)
    assert found[keep].tolist() == pytest.approx([1.0 - 1.0, -1.0, 0.5 + 1.0], abs=1e-6)
    assert math.isnan(found[2])
    # What came in is what is recorded, and stays.
    assert advantages[keep].tolist() == [1.0, -1.0, 0.5]


def test_parts_are_put_together_only_when_all_are_known() -> None:
    part = Divergence(torch.ones(2, 3), torch.zeros(2, 3))
    whole = Divergence.cat([part, part])
    assert whole is not None
    assert whole.exact.shape == whole.drawn.shape == (4, 3)
    assert whole.exact.all()
    assert not whole.drawn.any()
    assert Divergence.cat([part, None]) is None
    assert Divergence.cat([]) is None
