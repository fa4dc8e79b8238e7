"""The device that a setting names."""

import pytest

from trainer.devices import device_named
from trainer.stops import ConfigError


def test_devices() -> None:
    assert device_named("cpu").type == "cpu"
    assert device_named("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match=r"run\.device 'abacus' cannot be used here"):
        device_named("abacus")
