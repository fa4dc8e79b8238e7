"""The device that a setting names."""

import pytest
import torch

from trainer.devices import device_named
from trainer.processes import Processes
from trainer.stops import ConfigError


def test_devices() -> None:
    assert device_named("cpu").type == "cpu"
    assert device_named("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match=r"run\.device 'abacus' cannot be used here"):
        device_named("abacus")


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no GPU where this is tested: they are counted, and a tensor is put nowhere.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    second = Processes(rank=5, count=8, local_rank=1)
    assert device_named("auto", second) == torch.device("cuda:1")
    assert device_named("cuda", second) == torch.device("cuda:1")
    assert device_named("cpu", second) == torch.device("cpu")
    with pytest.raises(ConfigError, match="would be the GPU of every process"):
        device_named("cuda:0", second)
    with pytest.raises(ConfigError, match="has no GPU of its own: there are 2"):
        device_named("auto", Processes(rank=2, count=3, local_rank=2))
