"""The learned rewards over HTTP, as processes of their own, set up by variables."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_services.scorer import ItemError, Scored, ScoreItem
from reward_services.scorers.aesthetic import Aesthetic, AestheticOptions
from reward_services.scorers.llava_bertscore import LlavaBertScore, LlavaBertScoreOptions
from shared.client import SyncRewardClient
from tests.conftest import ServiceProcess
from tests.reward_services.learned.conftest import MINILM, noise

Start = Callable[..., ServiceProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(reward, **options)`: serve a reward with these options."""
    running: list[ServiceProcess] = []

    def serve(reward: str, **options: Any) -> ServiceProcess:
        folder = tmp_path / reward
        folder.mkdir()
        variables = {f"REWARD_OPTIONS__{n.upper()}": str(v) for n, v in options.items()}
        running.append(ServiceProcess(folder, **variables))
        running[-1].start(reward)
        return running[-1]

    yield serve
    for process in running:
        process.kill()


def test_aesthetic(start: Start, clip_folder: Path) -> None:
    service = start("aesthetic", model=clip_folder, device="cpu")
    here = Aesthetic(AestheticOptions(model=str(clip_folder), device="cpu"))
    images = [*noise(9), np.zeros((1, 100, 3), np.uint8)]
    outcomes = here.score([ScoreItem(image) for image in images])
    with SyncRewardClient(service.url) as client:
        info = client.info()
        response = client.score(images, [""] * len(images))
    assert (info.name, info.version, info.units) == ("aesthetic", here.version, "points")
    assert not info.needs_prompt
    expected = [o.score for o in outcomes if isinstance(o, Scored)]
    assert [result.score for result in response.results[:-1]] == expected
    refused = response.results[-1].error
    assert refused is not None
    assert refused.code == "aspect_ratio"


def test_llava_bertscore(start: Start, llava_folder: Path) -> None:
    options = {"model": llava_folder, "encoder": MINILM, "max_answer_tokens": 8, "device": "cpu"}
    service = start("llava_bertscore", **options)
    given = {name: str(value) for name, value in options.items()}
    here = LlavaBertScore(LlavaBertScoreOptions.model_validate(given))
    images, prompts = noise(5), ["a cat", "a dog", "two cats", "", "an ant"]
    items = [ScoreItem(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
    outcomes = here.score(items)
    with SyncRewardClient(service.url) as client:
        assert client.info().version == here.version
        response = client.score(images, prompts)
    for outcome, result in zip(outcomes, response.results, strict=True):
        if isinstance(outcome, ItemError):
            assert result.error is not None
            assert result.error.code == outcome.code == "prompt_missing"
        else:
            assert result.score == outcome.score
            assert result.details == dict(outcome.details)
