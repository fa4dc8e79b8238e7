"""What the cells of a study gave: one row each, in a JSON file that is whole at any time."""

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from shared.schema import Identity
from trainer import gallery
from trainer.gallery import Measured
from trainer.run_folder import RunFolder, write_json
from trainer.studies.study import Cell
from trainer.tracking import read_metrics


class Point(BaseModel):
    """An evaluation on the fixed seeds, at one place of a run.

    Attributes:
        reward_queries: pictures scored for training before it.
        mean, ci95, n: of the reward, over the n pictures that have a score.
        monitors: name of each monitor and its mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reward_queries: int
    mean: float
    ci95: tuple[float, float]
    n: int
    monitors: dict[str, float] = {}


class Row(BaseModel):
    """One cell of a study.

    Attributes:
        algorithm: the arm.
        reward, seed: what it was trained on, and from which seed.
        direction: `maximize` or `minimize`.
        units, version: of the reward.
        reward_queries: pictures scored for training.
        before, after: first and last point of the curve.
        curve: evaluations on the fixed seeds, oldest first.
        training: (reward queries, mean reward) of each epoch's own pictures.
        stopped: why the run could not be finished, None when it was.
        seconds: of training and evaluation; None for a run that stopped.
        command: runs this cell.
        config_hash: of what determines the result, see `Cell.config_hash`.
        commit: of the source, with "+" when it had been changed; None outside a repository.
        threads: of torch.
        torch, machine: what it ran on, which the last digits depend on.
        finished: date, UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: str
    reward: str
    seed: int
    direction: str
    units: str
    version: str
    reward_queries: int
    before: Point
    after: Point | None
    curve: list[Point]
    training: list[tuple[int, float]]
    stopped: str | None
    seconds: float | None
    command: str
    config_hash: str
    commit: str | None
    threads: int | None
    torch: str
    machine: str
    finished: str

    @property
    def cell(self) -> str:
        """Name of its cell."""
        return f"{self.algorithm}/{self.reward}/{self.seed}"


_ROWS = TypeAdapter(list[Row])


class RowsFile:
    """The rows of a study on the disk. Several processes may add to one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Row]:
        """All rows, sorted by cell; none when there is no file."""
        return _ROWS.validate_json(self._path.read_bytes()) if self._path.exists() else []

    def add(self, row: Row) -> None:
        """Add a row, in the place of an earlier one of the same cell."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            rows = [known for known in self.read() if known.cell != row.cell]
            rows = sorted([*rows, row], key=lambda each: (each.reward, each.algorithm, each.seed))
            write_json(self._path, _ROWS.dump_python(rows, mode="json"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(
            self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def row_of(
    cell: Cell, folder: RunFolder, identity: Identity, command: str, stopped: str | None
) -> Row:
    """What a cell's run gave.

    Args:
        cell: the cell.
        folder: of its run, finished, or stopped for good after its first evaluation.
        identity: of its reward.
        command: what runs it.
        stopped: why it stopped, None when it is finished.
    """
    queries = {0: 0}
    training = []
    for record in read_metrics(folder.metrics):
        queries[int(record["epoch"])] = int(record["reward_queries"])
        training.append((int(record["reward_queries"]), record["reward_mean"]))
    curve = [
        _point(queries[evaluation.epoch], evaluation.rewards[cell.reward], evaluation.monitors)
        for evaluation, _ in gallery.load_all(folder.evaluation)
        if evaluation.epoch in queries
    ]
    done = folder.summary.exists()
    summary = json.loads(folder.summary.read_bytes()) if done else {}
    return Row(
        algorithm=cell.arm,
        reward=cell.reward,
        seed=cell.seed,
        direction=identity.direction,
        units=identity.units,
        version=identity.version,
        reward_queries=max(queries.values()),
        before=curve[0],
        after=None if stopped else curve[-1],
        curve=curve,
        training=training,
        stopped=stopped,
        seconds=round(summary["seconds"], 1) if summary else None,
        command=command,
        config_hash=cell.config_hash,
        commit=source_commit(),
        threads=cell.config().run.threads,
        torch=version("torch"),
        machine=_machine(),
        finished=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def _point(reward_queries: int, measured: Measured, monitors: dict[str, Measured]) -> Point:
    return Point(
        reward_queries=reward_queries,
        mean=measured.mean,
        ci95=measured.ci95,
        n=sum(score is not None for score in measured.scores),
        monitors={name: each.mean for name, each in monitors.items()},
    )


def source_commit() -> str | None:
    """The commit of this source, with "+" when a file in it was changed; None outside git."""
    here = Path(__file__).parents[1]
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True)
        status = [*git, "status", "--porcelain", "--untracked-files=no", "--", str(here)]
        changed = subprocess.run(status, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.decode().strip()[:12] + ("+" if changed.stdout.strip() else "")


def _machine() -> str:
    """The processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
