"""What a process is seen to take is what it took."""

import sys

import numpy as np
import pytest
import torch

from trainer.memory_meter import MemoryMeter, available, taken_by_others

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_peaks_are_forgotten() -> None:
    meter = MemoryMeter(CPU)
    meter.restart()
    before = meter.peak()
    block = np.ones(40_000_000)  # 320 MB
    assert meter.peak() - before == pytest.approx(block.nbytes, rel=0.2)
    del block
    meter.restart()
    assert meter.peak() - before < 100_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says so")
def test_what_is_left() -> None:
    left = available(CPU)
    assert left is not None
    assert 0 < left < 2**50
    assert taken_by_others(CPU) == 0
