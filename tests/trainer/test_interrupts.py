"""Signals are noted and acted on at a safe point."""

import signal

import pytest

from trainer.interrupts import Interrupts
from trainer.stops import Interrupted


def test_nothing_happens_without_a_signal() -> None:
    with Interrupts() as interrupts:
        interrupts.check()
        assert not interrupts.requested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_safe_point(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(number)
        assert interrupts.requested
        with pytest.raises(Interrupted, match=f"stopped by {number.name}") as stop:
            interrupts.check()
        # The shell's convention for a process that a signal ended.
        assert stop.value.exit_code == 128 + number
    assert "safe point" in capsys.readouterr().err


def test_a_second_ctrl_c_quits_at_once() -> None:
    with Interrupts():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
