"""Rewards arrive in order, and none is ever made up."""

from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.reward_service import RewardSource
from trainer.rewards import Pending, RewardServices
from trainer.scores import Images

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

TOLD = """
from reward_services import ItemError

calls = 0

class Told:
    name, max_batch_size = "told", 64

    def score(self, items):
        global calls
        calls += 1
        return [self.one(item) for item in items]

    def one(self, item):
        if item.metadata.get("late") and calls < 3:
            return ItemError("come back later", "busy", retryable=True)
        return float(item.metadata.get("n", -1))
"""


def flat(*levels: int) -> Images:
    return np.stack([np.full((8, 8, 3), level, np.uint8) for level in levels])


def go_on() -> None:
    """A check that lets the wait go on."""


@contextmanager
def connected(url: str) -> Iterator[RewardServices]:
    with RewardServices(
        [RewardSource("jpeg", (url,))], deadline_s=20.0, max_outage_s=60.0, notify=print
    ) as services:
        services.connect()
        yield services


def test_scores_stand_where_their_pictures_stood(
    service: "ServiceProcess",
    pictures: Callable[[int], Images],
    jpeg_rewards: Callable[[Images], list[float]],
) -> None:
    images, pending = pictures(20), Pending()
    with connected(service.url) as services:
        for first in (0, 7, 14):
            batch = images[first : first + 7]
            services.submit(pending, batch, ["a cat"] * len(batch), [True] * len(batch))
        scores = services.collect(pending, go_on)
    assert scores.by_reward["jpeg"].tolist() == jpeg_rewards(images)
    assert scores.valid.all()
    assert not scores.faults
    assert services.identities["jpeg"].units == "kB"


def test_a_broken_picture_is_not_sent(
    service: "ServiceProcess",
    pictures: Callable[[int], Images],
    jpeg_rewards: Callable[[Images], list[float]],
) -> None:
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
    assert values[2] == jpeg_rewards(images)[2]


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


def test_a_picture_counts_when_every_reward_has_scored_it(
    start_service: Callable[..., "ServiceProcess"],
    service: "ServiceProcess",
    jpeg_rewards: Callable[[Images], list[float]],
) -> None:
    images, pending = flat(100, 5, 245, 255), Pending()
    moody = start_service("moody:Moody", MOODY)
    sources = [RewardSource("jpeg", (service.url,)), RewardSource("mood", (moody.url,))]
    with RewardServices(sources, deadline_s=30, max_outage_s=30, notify=print) as services:
        services.connect()
        services.submit(pending, images, ["p"] * 4, [True] * 4)
        scores = services.collect(pending, go_on)
    assert scores.by_reward["jpeg"].tolist() == jpeg_rewards(images)
    assert scores.by_reward["mood"][[0, 2]].tolist() == [100, 245]
    assert scores.valid.tolist() == [True, False, True, False]
    assert scores.example == "mood: busy: come back later"


def test_every_picture_keeps_its_metadata(
    start_service: Callable[..., "ServiceProcess"], pictures: Callable[[int], Images]
) -> None:
    told = [{"n": 0}, {"n": 1}, {"n": 2, "late": True}, {}, {"n": 4}]
    pending = Pending()
    with connected(start_service("told:Told", TOLD).url) as services:
        # The second is broken and not sent; the third is sent again by itself.
        services.submit(pending, pictures(5), ["p"] * 5, [True, False, True, True, True], told)
        services.submit(pending, pictures(2), ["p"] * 2, [True] * 2)
        scores = services.collect(pending, go_on)
    values = scores.by_reward["jpeg"].tolist()
    assert values[0] == 0
    assert np.isnan(values[1])
    assert values[2:] == [2, -1, 4, -1, -1]


DAWDLING = """
import time

class Dawdling:
    name, max_batch_size = "dawdling", 1

    def score(self, items):
        time.sleep(1.5 if items[0].image.mean() > 200 else 0.01)
        return [float(items[0].image.mean())]
"""


def test_what_kept_the_run_waiting(own_service: "ServiceProcess", tmp_path: Path) -> None:
    """Seven pictures are quick and one is not; the other reward waits for neither."""
    (tmp_path / "dawdling.py").write_text(DAWDLING)
    own_service.kill()
    own_service.start("dawdling:Dawdling")
    pending = Pending()
    with connected(own_service.url) as services:
        for level in (10, 20, 30, 40, 50, 60, 70, 250):
            services.submit(pending, flat(level), ["a"], [True])
            wait([request.future for _, request in pending.requests])
        scores = services.collect(pending, go_on)
    (pace,) = scores.paces.values()
    assert pace.late_s == 0
    sent = [request for _, request in pending.requests]
    assert all(each.answered_at is not None for each in sent)
    spans = sorted((each.answered_at or 0) - each.sent_at for each in sent)
    assert pace.tail == spans[-1] / ((spans[3] + spans[4]) / 2) > 2
