"""A person sees lines that stay; the log file keeps them."""

from pathlib import Path

import pytest

from trainer.terminal import Terminal


def test_lines_are_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    with Terminal(epochs=2, done=0) as terminal:
        terminal.say("before the folder is there")
        terminal.keep_log(log)
        long = "[bold]brackets stay[/bold] " + "and long lines are not folded " * 10
        terminal.say(long)
        with terminal.phase("sampling", 4) as phase:
            phase.advance(4)
        terminal.epoch_done("reward 1")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["before the folder is there", long]
    stamp, _, kept = log.read_text(encoding="utf-8").rstrip("\n").partition("  ")
    assert kept == long
    assert len(stamp) == len("2024-01-01 00:00:00")
