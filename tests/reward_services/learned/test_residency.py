"""Models that leave the GPU when nobody uses them."""

import threading

import pytest
import torch
from torch import nn

from reward_services.models.residency import Residency

WAIT_S = 30


class Travelling(nn.Module):
    """Notes where it is told to go."""

    def __init__(self) -> None:
        super().__init__()
        self.journey: list[str] = []
        self.left = threading.Event()

    def to(self, device: torch.device) -> "Travelling":  # type: ignore[override]
        self.journey.append(device.type)
        if device.type == "cpu":
            self.left.set()
        return self


def test_an_idle_model_leaves_and_comes_back() -> None:
    model = Travelling()
    residency = Residency([model], torch.device("meta"), idle_s=0.01)
    with residency.use():
        pass
    assert model.left.wait(WAIT_S)
    with residency.use():
        assert model.journey == ["cpu", "meta"]
    residency.close()


def test_it_stays_when_idleness_does_not_count() -> None:
    model = Travelling()
    residency = Residency([model], torch.device("meta"), idle_s=0)
    with residency.use():
        pass
    assert not model.left.wait(0.1)
    assert model.journey == []
    residency.close()


def test_it_does_not_leave_while_in_use() -> None:
    model = Travelling()
    residency = Residency([model], torch.device("meta"), idle_s=0.01)
    with residency.use():
        pass
    with residency.use():
        before = list(model.journey)
        # The timer of the first use may have fired meanwhile; it must find itself outdated.
        assert not model.left.wait(0.1) or before
        assert model.journey == before
    residency.close()


def test_a_fault_in_use_still_starts_the_clock() -> None:
    model = Travelling()
    residency = Residency([model], torch.device("meta"), idle_s=0.01)
    with pytest.raises(ValueError, match="broken"), residency.use():
        raise ValueError("broken")
    assert model.left.wait(WAIT_S)
    residency.close()


@pytest.mark.gpu
def test_on_a_gpu_the_results_are_the_same_afterwards() -> None:
    model = nn.Linear(8, 8).to("cuda")
    left = threading.Event()
    data = torch.randn(4, 8, device="cuda")
    with torch.inference_mode():
        residency = Residency([model], torch.device("cuda"), idle_s=0.01)
        with residency.use():
            before = model(data).cpu()
        while residency.resident:
            left.wait(0.01)
        assert model.weight.device.type == "cpu"
        with residency.use():
            assert torch.equal(model(data).cpu(), before)
    residency.close()
