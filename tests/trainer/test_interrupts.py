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


def signalled_twice() -> None:
    with Interrupts(launched=True) as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # passed on by the launcher
        interrupts.check()


def test_of_several_processes_none_quits_before_it_has_told_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(Interrupted):
            signalled_twice()
        signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err.count("received") == 1


def test_one_process_says_that_a_signal_came(capsys: pytest.CaptureFixture[str]) -> None:
    with Interrupts(launched=True, silent=True) as interrupts:
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.requested
    assert capsys.readouterr().err == ""
