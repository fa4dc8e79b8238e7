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


@pytest.mark.parametrize(("epochs", "shown"), [(3, True), (None, False)])
def test_what_has_no_epochs_shows_no_bar_of_them(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    epochs: int | None,
    shown: bool,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured output for a terminal
    with Terminal(epochs) as terminal, terminal.phase("drawing", 4):
        pass
    said = capsys.readouterr().out
    assert "drawing" in said
    assert ("epochs" in said) is shown


def test_a_silent_one_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(2, silent=True) as terminal, terminal.phase("drawing", 4) as phase:
        phase.advance(1)
        terminal.say("unheard")
    assert capsys.readouterr().out == ""
