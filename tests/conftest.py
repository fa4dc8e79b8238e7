"""What holds for every test: the same environment on every machine, and no clock in a verdict."""

import os

import pytest
from hypothesis import settings

# Threads fight over the cores when several test processes run; one each is the fastest, and
# summation order does not depend on the machine. Set before torch is first imported.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing in the tests may reach for a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the developer's shell must not decide a test."""
    for name in list(os.environ):
        if name.startswith(("DDPO_", "REWARD_")):
            monkeypatch.delenv(name)
