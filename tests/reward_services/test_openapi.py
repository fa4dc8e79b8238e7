"""What the OpenAPI document promises, held against running services by generated requests."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from shared.images import encode_png

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# Per operation. Twenty times as many have been tried without another finding.
EXAMPLES = 30

REWARD = """
class Level:
    name = "level"
    version = "1"
    max_batch_size = 4

    def score(self, items):
        return [float(item.image.mean()) for item in items]
"""
KEY = "key-of-the-service"


@pytest.fixture(scope="module")
def open_service(start_service: Callable[..., Any]) -> Any:
    return start_service("level:Level", REWARD, REWARD_MAX_ITEMS="8")


@pytest.fixture(scope="module")
def locked_service(start_service: Callable[..., Any]) -> Any:
    return start_service("level:Level", REWARD, REWARD_MAX_ITEMS="8", REWARD_API_KEYS=KEY)


def schemathesis(service: Any, tmp_path: Path) -> None:
    """Run the tool against a service, and fail with what it found."""
    document = tmp_path / "openapi.json"
    headers = {"authorization": f"Bearer {KEY}"}
    document.write_bytes(httpx.get(f"{service.url}/openapi.json", headers=headers).content)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={HERE / 'schemathesis.toml'}",
            "run",
            str(document),
            f"--url={service.url}",
            f"--max-examples={EXAMPLES}",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.reward_services.schemathesis_hooks",
            "PYTHONPATH": str(ROOT),
            # Read by schemathesis.toml.
            "TEST_KEY": KEY,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (cases,) = re.findall(r"(\d+) generated", done.stdout)
    assert int(cases) > EXAMPLES


def score(service: Any, **headers: str) -> object:
    picture = encode_png(np.full((2, 2, 3), 9, np.uint8))
    with httpx.Client(base_url=service.url, headers=headers) as client:
        answer = client.post("/score", files={"images": picture}, data={"prompts": "p"})
        (result,) = answer.json()["results"]
    return result["score"]


def test_every_answer_is_one_that_the_document_describes(open_service: Any, tmp_path: Path) -> None:
    schemathesis(open_service, tmp_path)
    metrics = httpx.get(f"{open_service.url}/metrics").text
    for codec in ("json", "multipart", "safetensors"):
        answered = re.findall(f'requests_total{{code="(\\d+)",codec="{codec}"', metrics)
        assert {"200", "202"} & set(answered), f"nothing in {codec} was accepted"
        assert {"400", "422"} & set(answered), f"nothing in {codec} was refused"
    assert score(open_service) == 9.0, "the service is as well as before"


def test_with_keys_too(locked_service: Any, tmp_path: Path) -> None:
    """The tool also leaves the key out, and sends wrong ones, where the document asks for one."""
    schemathesis(locked_service, tmp_path)
    assert score(locked_service, authorization=f"Bearer {KEY}") == 9.0
