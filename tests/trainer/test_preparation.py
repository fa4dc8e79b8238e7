"""The commands that look before a run: what they print, and one clear line for every mistake."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainer import cli

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess


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
        (
            "--gpus 8 --set training.batch_size=4",
            "training.batch_size 4 cannot be shared equally by 8",
        ),
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


@pytest.mark.timeout(300)
def test_doctor_finds_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_recipe: Path,
    service: "ServiceProcess",
) -> None:
    options = ["--recipe", str(micro_recipe), "--reward", f"jpeg={service.url}", "--name", "mine"]
    assert ddpo(monkeypatch, "doctor", *options, "--memory", "50GB", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["level"] for each in said} <= {"ok", "warning"}
    checks = {each["check"] for each in said}
    assert {"run folder", "prompts", "device", "memory", "disk"} < checks
    assert f"reward jpeg at {service.url}" in checks
    assert not (micro_recipe.parent / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--memory 8", "--memory '8' is no amount of memory: write it like 24GB or 500MB"),
        ("--reward jpeg", "--reward 'jpeg' is not of the form NAME=URL"),
        ("--set sampling.batch_size=3", "use 3 or 6 samples per epoch, or sampling.batch_size 2"),
    ],
)
def test_doctor_mistakes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_recipe: Path,
    options: str,
    message: str,
) -> None:
    arguments = ["--recipe", str(micro_recipe), *options.split()]
    assert ddpo(monkeypatch, "doctor", *arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_doctor_finds_problems(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], micro_recipe: Path
) -> None:
    options = ["--recipe", str(micro_recipe), "--set", "prompts.source=nosuch"]
    assert ddpo(monkeypatch, "doctor", *options) == 1
    said = capsys.readouterr().out
    assert "\nproblem  prompts: prompts.source 'nosuch' is neither a prompt set" in said
    assert "\nproblem  rewards: no reward is named: add --reward NAME=URL" in said
