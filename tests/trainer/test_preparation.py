"""The commands that look before a run: what they print, and one clear line for every mistake."""

import sys
from pathlib import Path

import pytest

from trainer import cli


def ddpo(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["ddpo", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], micro_recipe: Path
) -> None:
    options = ["--recipe", str(micro_recipe), "--samples", "8", "--set", "training.epochs=5"]
    assert ddpo(monkeypatch, "plan", "--gpus", "2", *options, "--algorithm", "ddpo_is") == 0
    said = capsys.readouterr().out
    assert "2 GPUs" in said
    rows = {line[:30].strip(): line.split() for line in said.splitlines()}
    assert rows["sampling batches per epoch"][4:6] == ["4", "2"]
    assert rows["optimiser steps"][2] == "10"
    assert not (micro_recipe.parent / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gpus 3", "use sampling.samples_per_epoch 192 or 384"),
        ("--samples 250", "use 248 or 256 samples per epoch, or sampling.batch_size 5"),
        ("--gpus 8 --set training.batch_size=4", "training.batch_size 4 cannot be shared by 8"),
        ("--recipe nosuch", "no recipe named 'nosuch'"),
    ],
)
def test_plan_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert ddpo(monkeypatch, "plan", *options.split()) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
