"""A GPU shared by models that take turns: one that is not used goes to main memory."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

logger = logging.getLogger(__name__)


class Residency:
    """Where `models` are: on `device` while used, in main memory `idle_s` seconds after.

    With `idle_s` 0 they stay on the device.
    """

    def __init__(self, models: list[nn.Module], device: torch.device, idle_s: float) -> None:
        self._models = models
        self._device = device
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self.resident = True

    @contextmanager
    def use(self) -> Iterator[None]:
        """Have the models on the device."""
        with self._lock:
            self._cancel()
            if not self.resident:
                self._move(self._device)
                self.resident = True
            try:
                yield
            finally:
                self._start_timer()

    def close(self) -> None:
        """End the timer."""
        with self._lock:
            self._cancel()

    def _start_timer(self) -> None:
        if self._idle_s:
            self._timer = threading.Timer(self._idle_s, self._leave)
            self._timer.daemon = True
            self._timer.start()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self) -> None:
        mine = threading.current_thread()
        with self._lock:
            # Used again while this thread waited for the lock.
            if self._timer is not mine or not self.resident:
                return
            self._timer = None
            self._move(torch.device("cpu"))
            self.resident = False
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        logger.info("idle: moved the models to main memory")

    def _move(self, device: torch.device) -> None:
        for model in self._models:
            model.to(device)
