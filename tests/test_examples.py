"""The examples do what their first lines say, against real processes."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from emoji_world.captions import all_captions
from examples.brightness import Brightness
from examples.emoji_judge import EmojiJudge
from examples.sharpness import Sharpness
from reward_services import ItemError, Scored, ScoreItem
from shared.client import SyncRewardClient

ROOT = Path(__file__).parent.parent
REWARD = "examples.brightness:Brightness"
SHARPNESS = "examples.sharpness:Sharpness"


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def served(reward: str) -> Iterator[str]:
    """A reward as a service of its own; its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "reward_services", "serve", reward, "--port", "0"],
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


@pytest.mark.parametrize("reward", [REWARD, SHARPNESS])
def test_the_rewards_keep_the_contract(reward: str) -> None:
    assert "FAIL" not in run(sys.executable, "-m", "reward_services", "check", reward)


def test_sharpness_of_one_white_pixel() -> None:
    """Around a single pixel the Laplacian is known: -4 on it, 1 on its four neighbours."""
    picture = np.zeros((5, 5, 3), np.uint8)
    picture[2, 2] = 200
    (outcome,) = Sharpness().score([ScoreItem(picture)])
    assert isinstance(outcome, Scored)
    assert outcome.details == {"strongest_edge": pytest.approx(800), "pixels": 25}
    assert outcome.score == pytest.approx(200 * (20 / 9) ** 0.5)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 9, 3), (9, 2, 3)])
def test_sharpness_refuses_what_has_no_inside(shape: tuple[int, ...]) -> None:
    (outcome,) = Sharpness().score([ScoreItem(np.zeros(shape, np.uint8))])
    assert isinstance(outcome, ItemError)


def test_a_reward_of_ones_own_over_http() -> None:
    picture = np.zeros((6, 4, 3), np.uint8)
    with served(SHARPNESS) as url, SyncRewardClient(url) as client:
        info = client.info()
        (flat, refused) = client.score([picture, picture[:1]], ["", ""]).results
    assert (info.name, info.units, info.range) == ("sharpness", "grey levels", (0.0, None))
    assert info.needs_prompt is False
    assert (flat.score, flat.details["pixels"]) == (0.0, 24)
    assert refused.error is not None
    assert refused.error.code == "not_scorable"


def test_a_folder_is_scored_best_first(tmp_path: Path) -> None:
    for name, grey in (("dark", 0), ("bright", 255), ("middle", 51)):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    with served(REWARD) as url:
        printed = run(sys.executable, "examples/score_a_folder.py", url, str(tmp_path))
    assert printed.splitlines() == [
        "1.000 score  bright.png",
        "0.200 score  middle.png",
        "0.000 score  dark.png",
    ]


def shape(answer: Any) -> Any:
    """An answer without what differs from run to run: numbers and texts, but not codes."""
    if isinstance(answer, dict):
        fixed = {"code", "reward", "units", "direction", "retryable"}
        return {key: each if key in fixed else shape(each) for key, each in answer.items()}
    if isinstance(answer, list):
        return [shape(each) for each in answer]
    return type(answer).__name__


def test_the_answers_in_the_http_documentation() -> None:
    page = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    scored, refused = map(json.loads, re.findall(r"```json\n(.+?)```", page, re.DOTALL))
    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    good, bad = (("images", ("cat.png", each)) for each in (picture.getvalue(), b"x"))
    with served("jpeg_compressibility") as url, httpx.Client(base_url=url) as client:
        answer = client.post("/score", files=[good, bad], data={"prompts": "a cat"})
        refusal = client.post("/score", files=[good], data={"prompts": ["a cat", "a dog"]})
    assert (answer.status_code, shape(answer.json())) == (200, shape(scored))
    assert (refusal.status_code, refusal.json()["message"]) == (422, refused["message"])
    assert shape(refusal.json()) == shape(refused)


def test_the_emoji_judge_says_what_it_sees() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 4, 4, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    judge = EmojiJudge()
    seen = [
        str(outcome.details["seen"])
        for outcome in judge.score([ScoreItem(picture, "a cat") for picture in pictures])
        if isinstance(outcome, Scored)
    ]
    captions = {
        " ".join(filter(None, (str(c.count), c.noun, c.activity.phrase if c.activity else ""))): c
        for c in all_captions()
    }
    known = [
        (picture, said) for picture, said in zip(pictures, seen, strict=True) if said in captions
    ]
    assert known
    items = [ScoreItem(picture, captions[said].text) for picture, said in known]
    assert [o.score for o in judge.score(items) if isinstance(o, Scored)] == [1.0] * len(known)
    others = [
        ScoreItem(picture, "a ruler" if "ruler" not in said else "a key") for picture, said in known
    ]
    assert [o.score for o in judge.score(others) if isinstance(o, Scored)] == [0.0] * len(known)


def test_the_emoji_judge_refuses_what_it_cannot_judge() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    outcomes = EmojiJudge().score(
        [ScoreItem(grey, "a unicorn"), ScoreItem(grey[:32], "a cat"), ScoreItem(grey, "a cat")]
    )
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, ItemError)]
    assert codes == ["unknown_prompt", "wrong_size"]
    assert isinstance(outcomes[2], Scored)
