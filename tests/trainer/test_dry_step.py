"""A dry step is a step of the run, of one batch and one micro-batch."""

from pathlib import Path

import pytest
import torch

from trainer.config import load_config
from trainer.dry_step import DryStep, measure
from trainer.loading import load_policy

CHANGES = [
    [],
    ["training.micro_batch_size=20"],  # more than the pairs of a batch
    ["kl.coefficient=0.1", "ema.decay=0.9"],
    ["kl.coefficient=0.1", "kl.use=reward", "model.train=full"],
    ["training.algorithm=rwr", "training.batch_size=2"],
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda each: " ".join(each) or "plain")
def test_every_kind_of_step(micro_recipe: Path, changes: list[str]) -> None:
    config = load_config(micro_recipe, changes)
    dry = DryStep(config)
    before = dry.policy.state()
    rollout = dry.sample()
    assert len(rollout) == config.sampling.batch_size
    dry.update(rollout)
    after = dry.policy.state()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_what_is_measured(micro_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(micro_recipe)
    found = measure(config)
    assert found.device == "cpu"
    assert found.picture == (16, 16)
    assert found.trajectories == 2 * 4 * (4 * 4 * 8 * 8 + 3)
    policy = load_policy(config.model)
    assert found.trained == sum(each.numel() for each in policy.trainable_parameters())
    assert set(found.peaks) == set(found.seconds) == {"loading", "sampling", "updating"}
    stages = [line.split('"')[3] for line in capsys.readouterr().out.splitlines()]
    assert stages == ["loading", "sampling", "updating"]
