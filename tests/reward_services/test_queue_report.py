"""What an operator reads of a queue."""

import json
from dataclasses import replace

from reward_services.dead_letters import DeadLetter
from reward_services.job_queue import QueueStats
from reward_services.queue_report import (
    QueueReport,
    as_json,
    as_text,
    letters_as_json,
    letters_as_text,
)
from reward_services.worker_registry import WorkerStatus
from shared.schema import Limits, ServiceInfo

INFO = ServiceInfo(
    name="jpeg",
    version="q95",
    units="kB",
    direction="maximize",
    range=(None, 0),
    max_batch_size=64,
    limits=Limits(max_items=1, max_body_bytes=1, max_pixels=1),
)
STATS = QueueStats(
    reserved_items=205,
    waiting_items=131,
    waiting_by_lane={"interactive": 3, "bulk": 128},
    leased_items=64,
    oldest_s=1.25,
    items_per_s=412.04,
    redelivered=3,
    dead=2,
)
WORKERS = [
    WorkerStatus("gpu1:17:ab", "gpu1", 17, INFO, items_done=5120, busy=True, seen_s=0.84),
    WorkerStatus("gpu2:9:cd", "gpu2", 9, INFO, seen_s=4.0),
]
REPORT = QueueReport("jpeg", INFO, STATS, WORKERS, dead_letters=1)
LETTER = DeadLetter("7-0", "job-1", 5, "a cat", "request 9", 3, "gpu1:17:ab", "it died", 1.7e9)


def test_everything_is_told_to_a_person() -> None:
    text = as_text(REPORT)
    for words in (
        "jpeg q95 (kB, maximize)",
        "131 pictures (3 interactive, 128 bulk), oldest 1.2 s",
        "64 pictures",
        "412.0 pictures/s",
        "3 leases",
        "2 pictures, 1 kept as dead letters",
    ):
        assert words in text
    busy, idle = text.splitlines()[-2:]
    assert busy.split() == ["gpu1:17:ab", "q95", "5120", "busy", "0.8", "s", "ago"]
    assert idle.split() == ["gpu2:9:cd", "q95", "0", "idle", "4.0", "s", "ago"]
    assert busy.index("q95") == idle.index("q95")


def test_a_queue_that_nobody_works_on_says_what_to_do() -> None:
    text = as_text(replace(REPORT, info=None, workers=[]))
    assert "start one with reward-services worker" in text
    assert text.startswith("reward      jpeg\n")


def test_everything_is_told_to_a_program() -> None:
    report = json.loads(as_json(REPORT))
    assert report["reward"] == "jpeg"
    assert report["info"]["version"] == "q95"
    assert report["queue"]["waiting_by_lane"] == {"interactive": 3, "bulk": 128}
    assert report["queue"]["oldest_s"] == 1.25
    assert [worker["name"] for worker in report["workers"]] == ["gpu1:17:ab", "gpu2:9:cd"]
    assert report["workers"][0]["version"] == "q95"
    assert report["dead_letters"] == 1


def test_dead_letters() -> None:
    head, line = letters_as_text([LETTER]).splitlines()
    assert head.split() == ["id", "died", "workers", "request", "picture", "prompt", "reason"]
    for words in ("7-0", "request 9", "a cat", "it died"):
        assert words in line
    assert letters_as_text([]) == "there are no dead letters"
    (letter,) = json.loads(letters_as_json([LETTER]))
    assert (letter["id"], letter["picture"], letter["retry_job_id"]) == ("7-0", 5, "job-1+5")
