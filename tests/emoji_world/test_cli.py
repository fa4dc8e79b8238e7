"""The command line: documented, and in one line when something is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from emoji_world.cli import app, main

ROOT = Path(__file__).parents[2]
README = (ROOT / "emoji_world" / "README.md").read_text(encoding="utf-8")
GROUP = get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = {
    name: {option for each in command.params for option in each.opts}
    for name, command in GROUP.commands.items()
}


def failing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one line that a failing command prints."""
    monkeypatch.setattr(sys, "argv", ["emoji_world", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("emoji_world: ")
    assert not printed.out
    return line


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["icons", "--packages", "nowhere"], "npm ci"),
        (["build"], "python -m emoji_world icons"),
        (["pretrain"], "python -m emoji_world build"),
        (["decoder"], "python -m emoji_world build"),
        (["classifier", "--out", "made"], "python -m emoji_world icons"),
        (["export", "--out", "made", "--records", "made"], "python -m emoji_world pretrain"),
        (["evaluate", "--classifier", "nowhere", "--out", "made"], "no picture classifier"),
        (["captioner", "--out", "made", "--records", "made"], "python -m emoji_world icons"),
        (["clip", "--out", "made", "--records", "made"], "python -m emoji_world icons"),
        (["examine", "--models", "nowhere"], "python -m emoji_world icons"),
        (["card", "--models", "nowhere", "--out", "made"], "python -m emoji_world export"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_missing_is_told_in_one_line_and_nothing_is_made(
    arguments: list[str],
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert advice in failing(arguments, monkeypatch, capsys)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "arguments", [["build", "--count", "10"], ["pretrain", "--batch-size", "0"], ["paint"]]
)
def test_impossible_arguments_are_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["emoji_world", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert arguments[-2 if len(arguments) > 1 else -1] in capsys.readouterr().err


def test_the_readme_shows_every_command_and_only_options_that_exist() -> None:
    lines = re.findall(r"(?m)^python -m emoji_world (\w+)(.*)$", README)
    assert {command for command, _ in lines} == set(COMMANDS)
    for command, rest in lines:
        assert set(re.findall(r"--[a-z-]+", rest)) <= COMMANDS[command]


def test_help_needs_no_torch() -> None:
    code = "import sys, emoji_world.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emoji_world", "build"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "python -m emoji_world icons" in done.stderr
    assert "Traceback" not in done.stderr
