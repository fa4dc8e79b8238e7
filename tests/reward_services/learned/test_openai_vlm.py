"""A model behind an OpenAI-compatible server: the answers of the same model in this process."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from reward_services.models.backends import open_model
from reward_services.models.llava import LlavaModel
from reward_services.models.openai_vlm import OpenAiModel
from reward_services.models.vision_language import Inquiry, VisionLanguageOptions
from reward_services.options import SetupError
from reward_services.scorer import ItemError
from tests.conftest import free_port
from tests.reward_services.learned.conftest import noise
from tests.reward_services.learned.openai_server import KEY

QUESTIONS = ("What animal is in this image?", "How many cats are there in this image?")


@pytest.fixture(scope="module")
def server(llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in a process of its own."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    script = Path(__file__).parent / "openai_server.py"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(script), str(llava_folder), str(port)],
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"
    while True:
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(f"{url}/seen")
            break
        except httpx.TransportError:
            time.sleep(0.05)
    yield url
    process.kill()
    process.wait()


def options(url: str, **changes: Any) -> VisionLanguageOptions:
    given = {
        "model": "small-llava",
        "backend": "openai",
        "base_url": f"{url}/v1",
        "api_key": KEY,
        "max_answer_tokens": 8,
        "timeout_s": 60,
    }
    return VisionLanguageOptions.model_validate({**given, **changes})


@pytest.fixture
def remote(server: str) -> Iterator[OpenAiModel]:
    model = OpenAiModel(options(server, concurrency=3))
    yield model
    model.close()


def make_trouble(server: str, *statuses: int) -> None:
    httpx.post(f"{server}/trouble", json=list(statuses)).raise_for_status()


def test_the_answers_of_the_same_model_in_this_process(
    server: str, remote: OpenAiModel, llava_folder: Path
) -> None:
    make_trouble(server)
    inquiries = [Inquiry(image, QUESTIONS) for image in noise(5)]
    local = LlavaModel(VisionLanguageOptions(model=str(llava_folder), max_answer_tokens=8))
    assert remote.answer(inquiries) == local.answer(inquiries)
    seen = httpx.get(f"{server}/seen").json()
    assert seen["requests"] == 10
    # All at once, but no more than asked for.
    assert 1 < seen["most"] <= 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_that_passes_is_waited_out(status: int, server: str, remote: OpenAiModel) -> None:
    inquiries = [Inquiry(image, QUESTIONS) for image in noise(2)]
    make_trouble(server)
    expected = remote.answer(inquiries)
    make_trouble(server, *[status] * 5)
    assert remote.answer(inquiries) == expected
    assert httpx.get(f"{server}/seen").json()["requests"] == 4 + 5


def test_trouble_that_lasts_is_an_error_that_may_pass(server: str) -> None:
    model = OpenAiModel(options(server, timeout_s=1.0))
    make_trouble(server, *[503] * 10_000)
    try:
        (answer,) = model.answer([Inquiry(noise(1)[0], QUESTIONS)])
    finally:
        make_trouble(server)
        model.close()
    assert isinstance(answer, ItemError)
    assert (answer.code, answer.retryable) == ("model_unavailable", True)
    assert "it answered 503" in answer.message


def test_a_refused_picture_does_not_spoil_the_others(server: str, remote: OpenAiModel) -> None:
    make_trouble(server)
    picture, thin = noise(1)[0], np.zeros((1, 100, 3), np.uint8)
    fine, refused = remote.answer([Inquiry(picture, QUESTIONS), Inquiry(thin, QUESTIONS)])
    assert isinstance(fine, list)
    assert isinstance(refused, ItemError)
    assert (refused.code, refused.retryable) == ("model_refused", False)
    assert "100x1" in refused.message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": "large-llava"}, "does not serve large-llava: set model to small-llava"),
        ({"api_key": "wrong"}, "answers 401 to GET models; check api_key"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "no model server at http://127.0.0.1:9/v1"),
        ({"base_url": None}, "backend=openai needs base_url"),
        ({"prompt_template": "tell me"}, "prompt_template does not hold {question}"),
        ({"backend": "transformers"}, "base_url is only used with backend=openai"),
    ],
)
def test_what_cannot_be_set_up(changes: dict[str, Any], complaint: str, server: str) -> None:
    make_trouble(server)
    with pytest.raises(SetupError) as caught:
        open_model(options(server, **changes))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_server_than_openai(server: str) -> None:
    with pytest.raises(SetupError, match="answers 404 to GET models"):
        OpenAiModel(options(f"{server}/elsewhere"))


def test_the_template_is_put_around_the_question(server: str, llava_folder: Path) -> None:
    make_trouble(server)
    model = OpenAiModel(options(server, prompt_template="What animal {question}?"))
    (answers,) = model.answer([Inquiry(noise(1)[0], ("is in this image",))])
    model.close()
    local = LlavaModel(VisionLanguageOptions(model=str(llava_folder), max_answer_tokens=8))
    assert answers == local.answer([Inquiry(noise(1)[0], QUESTIONS[:1])])[0]


def test_the_key_is_not_shown(server: str) -> None:
    assert KEY not in repr(options(server))
    assert options(server).api_key == SecretStr(KEY)
