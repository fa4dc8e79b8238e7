"""The audit of images finds every kind of fault, in an image that has them all."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.compose import missing
from tests.image_audit import audit

BASE = "python:3.11-slim"
IMAGE = "ddpo-audit-test"
FAULTY = f"""
FROM {BASE}
ENV MODEL_TOKEN=abc GPG_KEY=of-the-official-image
RUN mkdir -p /opt/app/tests /root/.cache/pip /srv \\
    && touch /opt/app/tests/conftest.py /root/.cache/pip/wheel /srv/.env
RUN rm /srv/.env
"""


def docker(*arguments: str, given: str | None = None) -> int:
    done = subprocess.run(["docker", *arguments], input=given, capture_output=True, text=True)
    return done.returncode


@pytest.fixture
def faulty() -> Iterator[str]:
    """An image with a secret, a cache, a test, pip, and root."""
    if reason := missing():
        pytest.skip(reason)
    if docker("image", "inspect", BASE):
        pytest.skip(f"{BASE} is not here, and the test fetches nothing")
    assert docker("build", "-t", IMAGE, "-", given=FAULTY) == 0
    yield IMAGE
    docker("rmi", "--force", IMAGE)


@pytest.mark.slow
def test_an_image_with_every_fault(faulty: str) -> None:
    faults = audit(faulty)
    for expected in (
        "it runs as root",
        "the label revision is missing",
        "the variable MODEL_TOKEN may be a secret",
        "python -m pip works in it",
        "a cache is left in it: root/.cache/pip/wheel",
        "a file that is no part of the product: opt/app/tests/conftest.py",
        "a file that may hold secrets: srv/.env",
    ):
        assert expected in faults
    assert not [fault for fault in faults if "GPG_KEY" in fault]
    assert any(fault.startswith("it has ") and "pip" in fault for fault in faults)
    assert any(fault.startswith("its user could change code in ") for fault in faults)
