"""The examples do what their first lines say, against real processes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.brightness import Brightness
from reward_services import ScoreItem

ROOT = Path(__file__).parent.parent
REWARD = "examples.brightness:Brightness"


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def service() -> Iterator[str]:
    """The example reward as a service of its own; its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "reward_services", "serve", REWARD, "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if '"ready"' in line:
                url = json.loads(line)["url"]
                break
        assert url, "the service ended before it was ready"
        yield url
        process.terminate()
        process.stderr.read()


@pytest.mark.parametrize(("grey", "score"), [(0, 0.0), (51, 0.2), (255, 1.0)])
def test_brightness(grey: int, score: float) -> None:
    picture = np.full((5, 7, 3), grey, dtype=np.uint8)
    assert Brightness().score([ScoreItem(picture)]) == [pytest.approx(score)]


def test_brightness_keeps_the_contract() -> None:
    assert "FAIL" not in run(sys.executable, "-m", "reward_services", "check", REWARD)


def test_a_folder_is_scored_best_first(service: str, tmp_path: Path) -> None:
    for name, grey in (("dark", 0), ("bright", 255), ("middle", 51)):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    printed = run(sys.executable, "examples/score_a_folder.py", service, str(tmp_path))
    assert printed.splitlines() == [
        "1.000 score  bright.png",
        "0.200 score  middle.png",
        "0.000 score  dark.png",
    ]
