"""The losses: the reference's numbers, hand-computed ones, and where its gradient is zero."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.loss import ppo_loss, score_function_loss

CLIP = 1e-4


def test_golden(golden: Path) -> None:
    cases = json.loads((golden / "ppo_loss.json").read_text(encoding="utf-8"))["cases"]
    assert cases
    for case in cases:
        check_golden(case)


def check_golden(case: dict[str, Any]) -> None:
    log_prob = torch.tensor(case["log_prob"], requires_grad=True)
    advantages = torch.tensor(case["advantages"], dtype=getattr(torch, case["advantages_dtype"]))
    outcome = ppo_loss(
        log_prob,
        torch.tensor(case["old_log_prob"]),
        advantages,
        case["clip_range"],
        case["adv_clip_max"],
    )
    loss = outcome.loss.mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert outcome.ratio.tolist() == pytest.approx(case["ratio"], abs=2e-6)
    assert loss.item() == pytest.approx(case["loss"], abs=2e-6)
    assert outcome.approx_kl.mean().item() == pytest.approx(case["approx_kl"], abs=2e-6)
    assert outcome.clipped.mean().item() == case["clipfrac"]
    assert log_prob.grad.tolist() == pytest.approx(case["grad_loss_wrt_log_prob"], abs=2e-6)


def test_golden_with_advantages_clipped_at_ten(golden: Path) -> None:
    data = json.loads((golden / "advantages_jannerm.json").read_text(encoding="utf-8"))
    case = data["ppo"]
    outcome = ppo_loss(
        torch.tensor(case["log_prob"], dtype=torch.float64),
        torch.tensor(case["old_log_prob"], dtype=torch.float64),
        torch.tensor(case["advantages"], dtype=torch.float64),
        case["clip_range"],
        10.0,
    )
    assert outcome.loss.mean().item() == pytest.approx(case["loss"], abs=1e-9)


# (A, log-prob difference) → loss with clip range 1e-4 and advantages clipped at 5.
@pytest.mark.parametrize(
    ("advantage", "difference", "loss"),
    [
        (2, 0, -2),
        (2, 1e-3, -2.0002),
        (2, -1e-3, -1.998001),
        (-2, 1e-3, 2.002001),
        (-2, -1e-3, 1.9998),
        (7, 0, -5),
    ],
)
def test_worked_numbers(advantage: float, difference: float, loss: float) -> None:
    one = torch.ones(1, dtype=torch.float64)
    outcome = ppo_loss(difference * one, 0 * one, advantage * one, CLIP, 5.0)
    assert outcome.loss.item() == pytest.approx(loss, abs=1e-6)


@given(
    advantage=st.floats(-4, 4).filter(lambda a: abs(a) > 1e-3),
    difference=st.floats(-0.01, 0.01).filter(lambda d: abs(abs(d) - CLIP) > 1e-6),
)
def test_the_gradient_is_zero_exactly_where_moving_on_would_not_count(
    advantage: float, difference: float
) -> None:
    log_prob = torch.tensor([difference], dtype=torch.float64, requires_grad=True)
    outcome = ppo_loss(
        log_prob, torch.zeros(1).double(), torch.tensor([advantage]).double(), CLIP, 5.0
    )
    outcome.loss.sum().backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    ratio = math.exp(difference)
    beyond = ratio > 1 + CLIP if advantage > 0 else ratio < 1 - CLIP
    if beyond:
        assert log_prob.grad.item() == 0
    else:
        assert log_prob.grad.item() == pytest.approx(-advantage * ratio)


@given(advantages=st.lists(st.floats(-8, 8), min_size=1, max_size=8))
def test_at_the_old_policy_it_is_the_score_function_gradient(advantages: list[float]) -> None:
    log_prob = torch.zeros(len(advantages), dtype=torch.float64, requires_grad=True)
    a = torch.tensor(advantages, dtype=torch.float64)
    ppo_loss(log_prob, log_prob.detach(), a, CLIP, 5.0).loss.sum().backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert np.allclose(log_prob.grad.numpy(), -np.clip(advantages, -5, 5))


@given(
    advantages=st.lists(st.floats(-8, 8), min_size=1, max_size=8),
    difference=st.floats(-0.1, 0.1),
)
def test_the_score_function_loss_is_reinforce_wherever_the_policy_is(
    advantages: list[float], difference: float
) -> None:
    a = torch.tensor(advantages, dtype=torch.float64)
    log_prob = torch.full_like(a, difference, requires_grad=True)
    outcome = score_function_loss(log_prob, torch.zeros_like(a), a, CLIP, 5.0)
    outcome.loss.sum().backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert np.allclose(log_prob.grad.numpy(), -np.clip(advantages, -5, 5))
    # What is measured is that of the ratio all the same.
    assert outcome.ratio.tolist() == pytest.approx([math.exp(difference)] * len(advantages))
