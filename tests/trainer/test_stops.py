"""What stops one process of a run stops the others for the same reason."""

import json

import pytest

from trainer.stops import (
    ConfigError,
    Interrupted,
    ModelError,
    Outage,
    ProcessLost,
    RunStopped,
    Unusable,
    described,
    rebuilt,
    told_here,
)


@pytest.mark.parametrize(
    "stop",
    [
        RunStopped("a"),
        ConfigError("b"),
        ModelError("c"),
        Unusable("d"),
        Outage("e"),
        Interrupted("f", 15),
    ],
)
def test_a_stop_travels_as_json(stop: RunStopped) -> None:
    back = rebuilt(json.loads(json.dumps(described(stop, 1))))
    assert type(back) is type(stop)
    assert (str(back), back.exit_code) == (str(stop), stop.exit_code)


def test_other_errors_become_a_stop() -> None:
    assert described(None, 0) is None
    for error, words in (
        (OSError("no space"), "no space"),
        (KeyError("x"), "process 3 failed: KeyError: 'x'"),
    ):
        description = described(error, 3)
        assert description is not None
        back = rebuilt(description)
        assert type(back) is RunStopped
        assert str(back) == words


def test_one_process_of_a_machine_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told_here(RunStopped("a"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not told_here(RunStopped("a"))
    assert told_here(ProcessLost("each for itself, for it cannot know who else is left"))
