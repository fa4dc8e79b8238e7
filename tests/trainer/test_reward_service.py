"""One reward over HTTP: outages are waited out, replicas stand in, another reward is refused."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from shared.errors import ServiceUnavailable
from shared.schema import Identity
from trainer.reward_service import RewardService, RewardSource
from trainer.scores import Images
from trainer.stops import Interrupted, Outage, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

Pictures = Callable[[int], Images]
Rewards = Callable[[Images], list[float]]

NEXT_VERSION = """
class NextVersion:
    name, version, units, direction = "jpeg_compressibility", "next", "kB", "maximize"
    range, max_batch_size = (None, 0), 64

    def score(self, items):
        return [0.0 for item in items]
"""


def go_on() -> None:
    """A check that lets the wait go on."""


@contextmanager
def connected(
    *urls: str,
    said: list[str] | None = None,
    deadline_s: float = 20.0,
    max_outage_s: float = 60.0,
    api_key: str | None = None,
    pinned: Identity | None = None,
) -> Iterator[RewardService]:
    service = RewardService(
        RewardSource("jpeg", urls, api_key),
        pinned,
        deadline_s=deadline_s,
        max_outage_s=max_outage_s,
        notify=(said if said is not None else []).append,
    )
    try:
        yield service
    finally:
        service.close()


def scored(service: RewardService, images: Images) -> list[float | None]:
    """One request, sent and awaited."""
    request = service.send(list(range(len(images))), images, ["p"] * len(images))
    return [result.score for result in service.answer(request, go_on).results]


# The start


def test_a_service_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(
            RunStopped,
            match=r"service jpeg at http://127.0.0.1:9 and http://127.0.0.1:10 cannot be reached "
            r".*start it with `reward-services serve jpeg` or correct --reward jpeg=URL",
        ),
        connected("http://127.0.0.1:9", "http://127.0.0.1:10"),
    ):
        pass


def test_a_server_that_is_no_reward_service_is_named(service: "ServiceProcess") -> None:
    with (
        pytest.raises(RunStopped, match=r"service jpeg at .*/docs cannot be used"),
        connected(f"{service.url}/docs"),
    ):
        pass


def test_an_address_that_is_none_is_named() -> None:
    with (
        pytest.raises(RunStopped, match="service jpeg at http://host:port cannot be used"),
        connected("http://host:port"),
    ):
        pass


def test_the_pinned_identity_must_still_hold(service: "ServiceProcess") -> None:
    pinned = Identity(name="jpeg_compressibility", version="0", units="kB", direction="maximize")
    with (
        pytest.raises(
            RunStopped,
            match=rf"no longer the reward this run started with: {service.url} .* version '0' != ",
        ),
        connected(service.url, pinned=pinned),
    ):
        pass


def test_a_service_may_ask_for_a_key(
    own_service: "ServiceProcess", monkeypatch: pytest.MonkeyPatch, pictures: Pictures
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
        with pytest.raises(RunStopped, match=r"service jpeg refused to score: .*API key"):
            scored(services, pictures(1))


# Outages


def test_an_outage_is_waited_out_without_changing_a_score(
    own_service: "ServiceProcess", pictures: Pictures, jpeg_rewards: Rewards
) -> None:
    images = pictures(6)
    with connected(own_service.url) as service:
        own_service.kill()
        requests = [service.send([0], images[i : i + 1], ["p"]) for i in range(6)]
        back = threading.Timer(1.0, own_service.start)
        back.start()
        answers = [service.answer(request, go_on).results[0].score for request in requests]
        back.join()
    assert answers == jpeg_rewards(images)


def test_an_outage_that_lasts_is_an_outage(
    own_service: "ServiceProcess", pictures: Pictures
) -> None:
    with connected(own_service.url, max_outage_s=1.0) as service:
        own_service.kill()
        with pytest.raises(Outage, match=r"longer than scoring\.max_outage_s = 1"):
            scored(service, pictures(1))


def test_a_request_that_failed_long_ago_is_no_long_outage(
    service: "ServiceProcess", pictures: Pictures, jpeg_rewards: Rewards
) -> None:
    images = pictures(1)
    with connected(service.url, deadline_s=5.0, max_outage_s=60.0) as reward:
        request = reward.send([0], images, ["p"])
        request.future.result()
        # As if it had failed an hour ago, and the run had waited for another reward since.
        request.future = Future()
        request.future.set_exception(ServiceUnavailable("it hung"))
        request.sent_at -= 3600
        answer = reward.answer(request, go_on)
    assert answer.results[0].score == jpeg_rewards(images)[0]


def test_waiting_can_be_left(own_service: "ServiceProcess", pictures: Pictures) -> None:
    def leave() -> None:
        raise Interrupted("stopped by SIGTERM", 15)

    with connected(own_service.url) as service:
        own_service.kill()
        request = service.send([0], pictures(1), ["p"])
        with pytest.raises(Interrupted):
            service.answer(request, leave)


def test_another_reward_behind_the_same_address_stops_the_run(
    own_service: "ServiceProcess", pictures: Pictures
) -> None:
    with connected(own_service.url) as service:
        own_service.kill()
        own_service.start("jpeg_incompressibility")
        with pytest.raises(
            RunStopped,
            match=r"no longer the reward this run started with: .* "
            r"name 'jpeg_compressibility' != 'jpeg_incompressibility'",
        ):
            scored(service, pictures(2))


# Replicas


def test_one_replica_of_two_is_enough(
    service: "ServiceProcess",
    own_service: "ServiceProcess",
    pictures: Pictures,
    jpeg_rewards: Rewards,
) -> None:
    images, said = pictures(8), list[str]()
    with connected(own_service.url, service.url, said=said, max_outage_s=0.0) as both:
        requests = [both.send([0], image[None], ["p"]) for image in images]
        own_service.kill()
        answers = [both.answer(request, go_on).results[0].score for request in requests]
        for _ in range(4):  # no waiting: max_outage_s would end the run
            answers += scored(both, images)
        assert answers == jpeg_rewards(images) * 5
        assert len(said) == 1
        assert f"a replica of the reward service jpeg is away: {own_service.url} cannot" in said[0]
        assert said[0].endswith("going on with 1 of 2")
        own_service.start()
        while len(said) == 1:
            assert scored(both, images) == jpeg_rewards(images)
    assert said[1] == f"the replica {own_service.url} of the reward service jpeg is back"


def test_a_replica_may_be_away_at_the_start(
    service: "ServiceProcess", pictures: Pictures, jpeg_rewards: Rewards
) -> None:
    said: list[str] = []
    with connected("http://127.0.0.1:9", service.url, said=said) as one:
        assert scored(one, pictures(2)) == jpeg_rewards(pictures(2))
    assert len(said) == 1
    assert "a replica of the reward service jpeg is away: http://127.0.0.1:9 cannot" in said[0]


def test_replicas_with_different_versions_are_refused_in_one_sentence(
    service: "ServiceProcess", own_service: "ServiceProcess", tmp_path: Path
) -> None:
    (tmp_path / "other.py").write_text(NEXT_VERSION)
    own_service.kill()
    own_service.start("other:NextVersion")
    with (
        pytest.raises(
            RunStopped, match="replicas of the reward service jpeg are not the same: "
        ) as refused,
        connected(service.url, own_service.url),
    ):
        pass
    said = str(refused.value)
    assert service.url in said
    assert own_service.url in said
    assert "are different rewards: version '" in said
    assert "'next'" in said
    assert said.endswith("start them with the same weights, or leave one out")
    assert "\n" not in said


def test_a_replica_that_comes_back_with_another_version_stops_the_run(
    service: "ServiceProcess", own_service: "ServiceProcess", pictures: Pictures, tmp_path: Path
) -> None:
    (tmp_path / "other.py").write_text(NEXT_VERSION)
    with connected(service.url, own_service.url) as both:
        own_service.kill()
        own_service.start("other:NextVersion")

        def score_until_it_is_found_out() -> None:
            while True:
                assert 0.0 not in scored(both, pictures(1))

        with pytest.raises(RunStopped, match="no longer the reward this run started") as refused:
            score_until_it_is_found_out()
    said = str(refused.value)
    assert f"{service.url} and {own_service.url} are different rewards: version '" in said
    assert said.endswith("bring the old one back, or start a new run")


# Idempotency


NUMBER = """
class Number:
    name, max_batch_size = "number", 64

    def score(self, items):
        return [float(item.metadata.get("n", -1)) for item in items]
"""


class DeafOnce(ThreadingHTTPServer):
    """Stands before a real service; its first answer with scores never leaves."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.behind, self.keys = behind, list[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.over = threading.Event()


class _Forward(BaseHTTPRequestHandler):
    server: DeafOnce

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        answer = httpx.request(
            self.command, self.server.behind + self.path, content=body, headers=headers
        )
        if self.path == "/score":
            self.server.keys.append(self.headers["Idempotency-Key"])
            if len(self.server.keys) == 1:
                self.server.over.wait()
                self.close_connection = True
                return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = _forward

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Say nothing."""


def test_what_is_sent_again_after_an_outage_keeps_its_key(
    service: "ServiceProcess", pictures: Pictures, jpeg_rewards: Rewards
) -> None:
    images = pictures(2)
    with DeafOnce(service.url) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        with connected(front.url, deadline_s=2.0) as before:
            assert scored(before, images) == jpeg_rewards(images)
        front.over.set()
        front.shutdown()
    assert len(front.keys) >= 2
    assert len(set(front.keys)) == 1


def test_what_is_sent_again_after_an_outage_keeps_its_metadata(
    start_service: Callable[..., "ServiceProcess"], pictures: Pictures
) -> None:
    behind = start_service("number:Number", NUMBER)
    with DeafOnce(behind.url) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        with connected(front.url, deadline_s=2.0) as before:
            request = before.send([0, 1], pictures(2), ["p"] * 2, [{"n": 3}, {"n": 5}])
            results = before.answer(request, go_on).results
        front.over.set()
        front.shutdown()
    assert [result.score for result in results] == [3, 5]
    assert len(front.keys) >= 2


def test_pictures_that_are_scored_anew_get_another_key(
    service: "ServiceProcess", pictures: Pictures, jpeg_rewards: Rewards
) -> None:
    images = pictures(4)
    with connected(service.url) as one:
        told = [{"n": number} for number in range(4)]
        first = one.send([5, 6, 7, 8], images, ["a", "b", "c", "d"], told)
        again = one.send_again(first, [1, 3])
        assert (again.rows, again.prompts, again.tries) == ([6, 8], ["b", "d"], 2)
        assert again.metadata == [{"n": 1}, {"n": 3}]
        assert again.key != first.key
        answers = [result.score for result in one.answer(again, go_on).results]
    assert answers == np.take(jpeg_rewards(images), [1, 3]).tolist()
