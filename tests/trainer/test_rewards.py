"""Rewards arrive in order, whatever happens to the service, and none is ever made up."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from PIL import Image

from shared.schema import Identity
from trainer.rewards import Pending, RewardServices, RewardSource
from trainer.scores import Images
from trainer.stops import Interrupted, Outage, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

MOODY = """
from reward_services import ItemError

calls = 0

class Moody:
    name, version, units, direction, range = "moody", "1", "mean", "minimize", (0, 255)
    max_batch_size = 64

    def score(self, items):
        global calls
        calls += 1
        return [self.one(item) for item in items]

    def one(self, item):
        level = int(item.image.mean())
        if level < 10:
            return ItemError("the picture is too dark to judge", "too_dark")
        if level > 250 or (level > 240 and calls < 3):
            return ItemError("come back later", "busy", retryable=True)
        return float(level)
"""


def pictures(count: int, seed: int = 0) -> Images:
    """Pictures that differ in size as JPEG: more and more of each is noise."""
    generator = np.random.default_rng(seed)
    images = np.zeros((count, 32, 32, 3), np.uint8)
    for row, image in enumerate(images):
        image[: row + 1] = generator.integers(0, 256, image[: row + 1].shape)
    return images


def flat(*levels: int) -> Images:
    return np.stack([np.full((8, 8, 3), level, np.uint8) for level in levels])


def jpeg_reward(image: Images) -> float:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return -len(buffer.getvalue()) / 1000


def go_on() -> None:
    """A check that lets the wait go on."""


@contextmanager
def connected(
    url: str,
    said: list[str] | None = None,
    max_outage_s: float = 60.0,
    api_key: str | None = None,
) -> Iterator[RewardServices]:
    with RewardServices(
        [RewardSource("jpeg", url, api_key)],
        deadline_s=20.0,
        max_outage_s=max_outage_s,
        notify=(said if said is not None else []).append,
    ) as services:
        services.connect()
        yield services


def test_scores_stand_where_their_pictures_stood(service: "ServiceProcess") -> None:
    images, pending = pictures(20), Pending()
    with connected(service.url) as services:
        for first in (0, 7, 14):
            batch = images[first : first + 7]
            services.submit(pending, batch, ["a cat"] * len(batch), [True] * len(batch))
        scores = services.collect(pending, go_on)
    assert scores.by_reward["jpeg"].tolist() == [jpeg_reward(image) for image in images]
    assert scores.valid.all()
    assert not scores.faults
    assert services.identities["jpeg"].units == "kB"


def test_a_broken_picture_is_not_sent(service: "ServiceProcess") -> None:
    images, pending = pictures(4), Pending()
    valid = [True, False, True, False]
    with connected(service.url) as services:
        services.submit(pending, images, ["a", "b", "c", "d"], valid)
        services.submit(pending, images[:1], ["e"], [False])
        scores = services.collect(pending, go_on)
    assert scores.valid.tolist() == [*valid, False]
    assert scores.faults == {"non_finite_image": 3}
    values = scores.by_reward["jpeg"]
    assert np.isnan(values[[1, 3, 4]]).all()
    assert values[2] == jpeg_reward(images[2])


def test_a_picture_that_can_never_be_scored_has_no_score(
    own_service: "ServiceProcess", tmp_path: Path
) -> None:
    (tmp_path / "moody.py").write_text(MOODY)
    own_service.kill()
    own_service.start("moody:Moody")
    pending = Pending()
    with connected(own_service.url) as services:
        # 5 is refused for good; 245 until the third call; 255 for ever.
        services.submit(pending, flat(100, 5, 245, 200, 255), ["p"] * 5, [True] * 5)
        scores = services.collect(pending, go_on)
    assert scores.by_reward["jpeg"][[0, 2, 3]].tolist() == [100, 245, 200]
    assert np.isnan(scores.by_reward["jpeg"][[1, 4]]).all()
    assert scores.valid.tolist() == [True, False, True, True, False]
    assert scores.faults == {"too_dark": 1, "busy": 1}
    assert scores.example == "busy: come back later"


def test_a_service_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(
            RunStopped,
            match=r"service jpeg at http://127.0.0.1:9 cannot be reached .*"
            r"start it with `reward-services serve jpeg` or correct --reward jpeg=URL",
        ),
        connected("http://127.0.0.1:9"),
    ):
        pass


def test_a_server_that_is_no_reward_service_is_named(service: "ServiceProcess") -> None:
    with (
        pytest.raises(RunStopped, match=r"service jpeg at .*/docs cannot be used"),
        connected(f"{service.url}/docs"),
    ):
        pass


def test_the_pinned_identity_must_still_hold(service: "ServiceProcess") -> None:
    pinned = Identity(name="jpeg_compressibility", version="0", units="kB", direction="maximize")
    with (
        RewardServices(
            [RewardSource("jpeg", service.url)], deadline_s=9, max_outage_s=9, notify=print
        ) as services,
        pytest.raises(
            RunStopped, match=r"no longer the reward this run started with: version '0' != "
        ),
    ):
        services.connect({"jpeg": pinned})


def test_another_reward_behind_the_same_address_stops_the_run(
    own_service: "ServiceProcess",
) -> None:
    with connected(own_service.url) as services:
        own_service.kill()
        own_service.start("jpeg_incompressibility")
        pending = Pending()
        services.submit(pending, pictures(2), ["a", "b"], [True, True])
        with pytest.raises(
            RunStopped, match=r"name 'jpeg_compressibility' != 'jpeg_incompressibility'"
        ):
            services.collect(pending, go_on)


def test_an_outage_is_waited_out_without_changing_a_score(own_service: "ServiceProcess") -> None:
    images, pending = pictures(6), Pending()
    with connected(own_service.url) as services:
        own_service.kill()
        services.submit(pending, images[:3], ["p"] * 3, [True] * 3)
        services.submit(pending, images[3:], ["p"] * 3, [True] * 3)
        back = threading.Timer(1.0, own_service.start)
        back.start()
        scores = services.collect(pending, go_on)
        back.join()
    assert scores.by_reward["jpeg"].tolist() == [jpeg_reward(image) for image in images]
    assert scores.wait_s > 0


def test_an_outage_that_lasts_is_an_outage(own_service: "ServiceProcess") -> None:
    said: list[str] = []
    with connected(own_service.url, said, max_outage_s=1.0) as services:
        own_service.kill()
        pending = Pending()
        services.submit(pending, pictures(1), ["p"], [True])
        with pytest.raises(Outage, match=r"longer than scoring\.max_outage_s = 1"):
            services.collect(pending, go_on)


def test_waiting_can_be_left(own_service: "ServiceProcess") -> None:
    def leave() -> None:
        raise Interrupted("stopped by SIGTERM", 15)

    with connected(own_service.url) as services:
        own_service.kill()
        pending = Pending()
        services.submit(pending, pictures(1), ["p"], [True])
        with pytest.raises(Interrupted):
            services.collect(pending, leave)


def test_a_service_may_ask_for_a_key(
    own_service: "ServiceProcess", monkeypatch: pytest.MonkeyPatch
) -> None:
    own_service.kill()
    monkeypatch.setenv("REWARD_API_KEYS", "first")
    own_service.start()
    with (
        pytest.raises(
            RunStopped,
            match=r"API keys.*name the environment variable that holds the "
            r"key in rewards\.jpeg\.api_key_env",
        ),  # fmt: skip
        connected(own_service.url),
    ):
        pass
    with connected(own_service.url, api_key="first") as services:
        own_service.kill()
        monkeypatch.setenv("REWARD_API_KEYS", "second")
        own_service.start()
        pending = Pending()
        services.submit(pending, pictures(1), ["p"], [True])
        with pytest.raises(RunStopped, match=r"service jpeg at .* refused to score: .*API key"):
            services.collect(pending, go_on)


class FailingOnce(ThreadingHTTPServer):
    """Stands before a real service; its first scores are lost, which only the caller notices."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.behind, self.keys = behind, list[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Forward(BaseHTTPRequestHandler):
    server: FailingOnce

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        answer = httpx.request(
            self.command, self.server.behind + self.path, content=body, headers=headers
        )
        status = answer.status_code
        if self.path == "/score":
            self.server.keys.append(self.headers["Idempotency-Key"])
            status = status if len(self.server.keys) > 1 else 503
        self.send_response(status)
        if status == 503:  # further away than the deadline: the client gives up at once
            self.send_header("Retry-After", "60")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = _forward

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Say nothing."""


def test_what_is_sent_again_after_an_outage_keeps_its_key(service: "ServiceProcess") -> None:
    images, pending = pictures(2), Pending()
    with FailingOnce(service.url) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        with connected(front.url, max_outage_s=5.0) as services:
            services.submit(pending, images, ["p"] * 2, [True] * 2)
            scores = services.collect(pending, go_on)
        front.shutdown()
    assert scores.by_reward["jpeg"].tolist() == [jpeg_reward(image) for image in images]
    assert len(front.keys) == 2
    assert front.keys[0] == front.keys[1] is not None
