"""Ctrl-C and SIGTERM end a run after a checkpoint; a second Ctrl-C ends it at once."""

import signal
import sys
from types import FrameType, TracebackType
from typing import Self

from trainer.stops import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, turns the first signal into a request that `check` raises at a safe point.

    A handler that raised by itself could leave an optimiser step half done, so the handler only
    notes the signal. After the first one the previous handlers are back, hence a second Ctrl-C
    quits at once. Must be entered on the main thread.

    Args:
        launched: this process is one of several. Its launcher, and whoever stops the launcher, may
            each send a signal, so a second one is nothing new; nor does one end the process after
            the block has ended with an error, which is yet to be told.
        silent: another process says that the signal was received.
    """

    def __init__(self, *, launched: bool = False, silent: bool = False) -> None:
        self._launched = launched
        self._silent = silent
        self._signal_number: int | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    @property
    def requested(self) -> bool:
        """True once a signal has arrived."""
        return self._signal_number is not None

    def check(self) -> None:
        """Call where the run can be left.

        Raises:
            Interrupted: when a signal has arrived.
        """
        if self._signal_number is not None:
            name = signal.Signals(self._signal_number).name
            raise Interrupted(f"stopped by {name}", self._signal_number)

    def __enter__(self) -> Self:
        for signal_number in _SIGNALS:
            self._previous[signal_number] = signal.signal(signal_number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        if self._launched and error is not None:
            for signal_number in _SIGNALS:
                signal.signal(signal_number, signal.SIG_IGN)

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal_number is not None:
            return
        self._signal_number = signal_number
        if not self._launched:
            self._restore()
        if self._silent:
            return
        hint = "" if self._launched else " (press Ctrl-C to quit at once without one)"
        print(
            f"\n{signal.Signals(signal_number).name} received: stopping at the next safe point "
            f"with a checkpoint{hint}",
            file=sys.stderr,
            flush=True,
        )

    def _restore(self) -> None:
        for signal_number, handler in self._previous.items():
            signal.signal(signal_number, handler)
        self._previous.clear()
