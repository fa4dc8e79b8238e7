"""`reward-services status`: what is in the queue of a reward, and who works on it."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from reward_services.dead_letters import MOST_LETTERS, DeadLetter
from reward_services.job_queue import QueueStats
from reward_services.worker_registry import WorkerStatus
from shared.schema import ServiceInfo

if TYPE_CHECKING:
    from reward_services.brokers import Broker


@dataclass(frozen=True, slots=True)
class QueueReport:
    """One look at a queue.

    Attributes:
        name: the reward.
        info: what its workers serve, None when none has announced itself lately.
        stats: the queue's own numbers.
        workers: who shows life.
        dead_letters: pictures given up and kept.
    """

    name: str
    info: ServiceInfo | None
    stats: QueueStats
    workers: Sequence[WorkerStatus]
    dead_letters: int


async def look(name: str, broker: "Broker") -> QueueReport:
    """Ask the broker.

    Raises:
        BrokerUnavailable: it is away.
    """
    return QueueReport(
        name=name,
        info=await broker.registry.info(),
        stats=await broker.queue.stats(),
        workers=await broker.registry.workers(),
        dead_letters=len(await broker.dead_letters.list(MOST_LETTERS)),
    )


def as_json(report: QueueReport) -> str:
    """The report for a program."""
    workers = [
        {
            "name": worker.name,
            "host": worker.host,
            "pid": worker.pid,
            "version": worker.info.version,
            "items_done": worker.items_done,
            "busy": worker.busy,
            "seen_s": round(worker.seen_s, 3),
        }
        for worker in report.workers
    ]
    content = {
        "reward": report.name,
        "info": None if report.info is None else report.info.model_dump(),
        "queue": asdict(report.stats),
        "workers": workers,
        "dead_letters": report.dead_letters,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def as_text(report: QueueReport) -> str:
    """The report for a person."""
    stats = report.stats
    waiting = ", ".join(f"{items} {lane}" for lane, items in stats.waiting_by_lane.items())
    facts = [
        ("reward", report.name if report.info is None else _identity(report.info)),
        ("waiting", f"{stats.waiting_items} pictures ({waiting}), oldest {stats.oldest_s:.1f} s"),
        ("at workers", f"{stats.leased_items} pictures"),
        ("throughput", f"{stats.items_per_s:.1f} pictures/s"),
        ("came again", f"{stats.redelivered} leases"),
        ("given up", f"{stats.dead} pictures, {report.dead_letters} kept as dead letters"),
    ]
    lines = [f"{name:<11} {text}" for name, text in facts]
    if not report.workers:
        return "\n".join([*lines, "workers     none: start one with reward-services worker"])
    rows = [
        (
            worker.name,
            worker.info.version,
            str(worker.items_done),
            "busy" if worker.busy else "idle",
            f"{worker.seen_s:.1f} s ago",
        )
        for worker in report.workers
    ]
    return "\n".join([*lines, "", _table(("worker", "version", "done", "state", "seen"), *rows)])


def letters_as_text(letters: Sequence[DeadLetter]) -> str:
    """Dead letters for a person, one per line."""
    if not letters:
        return "there are no dead letters"
    rows = [
        (
            letter.id,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.died_at)),
            str(letter.deliveries),
            letter.request_id,
            str(letter.picture),
            letter.prompt[:40],
            letter.reason,
        )
        for letter in letters
    ]
    return _table(("id", "died", "workers", "request", "picture", "prompt", "reason"), *rows)


def letters_as_json(letters: Sequence[DeadLetter]) -> str:
    """Dead letters for a program."""
    rows = [{**asdict(letter), "retry_job_id": letter.retry_job_id} for letter in letters]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def _identity(info: ServiceInfo) -> str:
    return f"{info.name} {info.version} ({info.units}, {info.direction})"


def _table(*rows: tuple[str, ...]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
