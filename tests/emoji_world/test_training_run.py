"""Trainings that are stopped, continued, refused, and averaged."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from emoji_world.training_run import (
    VALIDATION_STEP,
    WARMUP_STEPS,
    TrainingPlan,
    keep_records,
    load_averages,
    run_training,
)


class Line:
    """Learns y = 3 x + 1 from points that the step determines."""

    def __init__(self, stop_at: int = -1) -> None:
        self.modules: dict[str, nn.Module] = {"line": nn.Linear(1, 1)}
        nn.init.zeros_(self.modules["line"].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.modules["line"].bias)  # type: ignore[arg-type]
        self.steps: list[int] = []
        self._stop_at = stop_at

    def loss(self, step: int) -> Tensor:
        if step == self._stop_at:
            raise InterruptedError
        self.steps.append(step)
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(step))
        loss: Tensor = (self.modules["line"](x) - 3 * x - 1).square().mean()
        return loss


def weights(line: Line) -> list[float]:
    return [float(p.detach()) for p in line.modules["line"].parameters()]


def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    plan = TrainingPlan(steps=9, batch_size=8)
    run_training(Line(), plan, tmp_path / "whole", save_every=3)
    with pytest.raises(InterruptedError):
        run_training(Line(stop_at=5), plan, tmp_path / "parts", save_every=3)
    second = Line()
    run_training(second, plan, tmp_path / "parts", save_every=3)
    assert second.steps == [3, 4, 5, VALIDATION_STEP, 6, 7, 8, VALIDATION_STEP]
    whole, parts = (
        (tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert whole == parts


def test_it_learns_and_keeps_an_average(tmp_path: Path) -> None:
    line, plan = Line(), TrainingPlan(steps=400, learning_rate=0.05)
    run_training(line, plan, tmp_path)
    assert weights(line) == pytest.approx([3, 1], abs=0.1)
    averaged = Line()
    load_averages(averaged.modules, tmp_path)
    assert weights(averaged) != weights(line)
    assert 0.5 < weights(averaged)[0] < 3.2


def test_the_log_tells_steps_pictures_and_the_loss_on_unseen_ones(tmp_path: Path) -> None:
    run_training(Line(), TrainingPlan(steps=5, batch_size=8), tmp_path / "run", save_every=2)
    keep_records(tmp_path / "run", tmp_path / "records")
    rows = [
        json.loads(row) for row in (tmp_path / "records" / "log.jsonl").read_text().splitlines()
    ]
    assert [(row["step"], row["pictures"]) for row in rows] == [(2, 16), (4, 32), (5, 40)]
    assert all(row["validation_loss"] > 0 and row["grad_norm"] > 0 for row in rows)
    assert json.loads((tmp_path / "records" / "plan.json").read_text())["batch_size"] == 8


def test_more_steps_are_fine_and_other_settings_are_not(tmp_path: Path) -> None:
    run_training(Line(), TrainingPlan(steps=1), tmp_path)
    run_training(Line(), TrainingPlan(steps=2), tmp_path)
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        run_training(Line(), TrainingPlan(steps=2, seed=1), tmp_path)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    plan = TrainingPlan(steps=10_000, learning_rate=2.0)
    assert plan.learning_rate_at(0) == pytest.approx(2.0 / WARMUP_STEPS)
    assert plan.learning_rate_at(WARMUP_STEPS) == plan.learning_rate_at(5_999) == 2.0
    assert plan.learning_rate_at(8_000) == pytest.approx(1.0)
    assert 0 < plan.learning_rate_at(9_999) < 0.001
