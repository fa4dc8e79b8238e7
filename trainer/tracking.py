"""What a run records of every epoch: `metrics.jsonl`, one JSON object per line, and TensorBoard.

Prometheus is shown the same numbers.

`METRICS` is the one list of what can be recorded, with the meaning of each number.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trainer.exporter import MetricsExporter
from trainer.picture_health import HEALTH
from trainer.scores import Floats, Scores
from trainer.scoring_pace import slowest
from trainer.stops import RunStopped

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

PER_REWARD = ("reward_mean", "reward_std", "reward_min", "reward_max")
"""What is recorded of each reward on its own. A run with several writes it as `reward_mean/NAME`,
since rewards of different units have no mean in common."""

PER_SERVICE = ("seconds_reward_wait", "scoring_tail")
"""What a run with several rewards also records of each, as `seconds_reward_wait/NAME`."""

METRICS: Mapping[str, str] = {
    "epoch": "Epochs finished, counted from 1.",
    "reward_queries": "Pictures scored for training so far; evaluations do not count.",
    "reward_mean": "Mean reward of the epoch's scored pictures, in the reward's own units. With "
    "several rewards `reward_mean/NAME` of each, and so for the next three.",
    "reward_std": "Standard deviation of those rewards.",
    "reward_min": "Smallest of those rewards.",
    "reward_max": "Largest of those rewards.",
    "masked": "Pictures of the epoch that were left out because they have no score.",
    "effective_samples": "(Σw)² / Σw² of the weights of RWR: how many pictures count as much.",
    "loss": "Loss, averaged over what the epoch's optimiser steps were computed on.",
    "approx_kl": "0.5 · mean((log p − log p_old)²): how far the policy moved within the epoch. "
    "This and the ratios: not for RWR.",
    "kl_to_base": "KL from the model before training, mean over steps and latent dimensions "
    "(times both: nats per picture), of the trained pairs with `kl.use` `loss`, of the pictures as "
    "they were drawn with `reward`. Only with `kl.coefficient`.",
    "clip_fraction": "Share of the pairs whose probability ratio left the clip range.",
    "ratio_mean": "Mean probability ratio of the pairs.",
    "ratio_min": "Smallest probability ratio.",
    "ratio_max": "Largest probability ratio.",
    "grad_norm": "Norm of the gradient before clipping, averaged over the optimiser steps.",
    "skipped_steps": "Optimiser steps skipped in the epoch because a gradient was not finite.",
    **{name: f"{meaning} Of the epoch's own pictures." for name, meaning in HEALTH.items()},
    "seconds_sampling": "Time spent drawing pictures.",
    "seconds_reward_wait": "Time spent waiting for scores after the last picture was drawn. With "
    "several rewards also `seconds_reward_wait/NAME` of each, and so for the next.",
    "scoring_tail": "Slowest request for scores over the median one, of the reward that was waited "
    "for longest. Requests that pile up evenly give about 2.",
    "seconds_scoring": "Time the services say they computed, summed; overlaps with sampling.",
    "seconds_update": "Time spent on the gradient.",
    "images_per_second": "Pictures per second of sampling.",
}


class MetricsLog:
    """Appends one record per epoch. Use as a context manager.

    Args:
        path: `metrics.jsonl`.
        tensorboard: folder for event files, or None to write none.
        length: bytes of the file to keep: what the checkpoint that is resumed from knew.
        epoch: epochs finished at that point.
        exporter: shows the latest record to Prometheus, that of a resumed run at once.

    Raises:
        RunStopped: the file is shorter than `length`.
    """

    def __init__(
        self,
        path: Path,
        tensorboard: Path | None,
        length: int,
        epoch: int,
        exporter: MetricsExporter | None = None,
    ) -> None:
        found = path.stat().st_size if path.exists() else 0
        if found < length:
            raise RunStopped(
                f"{path} has {found} bytes but the checkpoint knew {length}: it was changed; put "
                "the old file back, or start a new run"
            )
        self._file = path.open("ab")
        self._file.truncate(length)
        self._board = _writer(tensorboard, epoch + 1) if tensorboard else None
        self._exporter = exporter
        if exporter is not None and (known := read_metrics(path)):
            exporter.show(known[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write the record of one epoch; numbers that are not finite are written as null.

        Args:
            record: names from `METRICS`; those of one reward among several, see `of_reward`.

        Raises:
            KeyError: a name is not in `METRICS`.
        """
        for name in record:
            meaning(name)  # an undocumented metric is a mistake
        line = json.dumps({name: _json_number(value) for name, value in record.items()})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if self._board is not None:
            for name, value in record.items():
                self._board.add_scalar(name, value, record["epoch"])
            self._board.flush()
        if self._exporter is not None:
            self._exporter.show(record)

    def length(self) -> int:
        """Bytes written so far, after making sure that they are on the disk."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)


def of_reward(metric: str, reward: str, rewards: Collection[str]) -> str:
    """What a metric of `PER_REWARD` is called for one of the rewards of a run."""
    return metric if len(rewards) == 1 else f"{metric}/{reward}"


def metrics_of(rewards: Collection[str]) -> dict[str, str]:
    """Name → meaning of all that a run with these rewards records."""
    return {
        each: text
        for name, text in METRICS.items()
        for each in (
            [of_reward(name, reward, rewards) for reward in rewards]
            if name in PER_REWARD
            else [name]
        )
    }


def rewards_in(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rewards whose metrics are in the records; a run's only one is called "reward"."""
    names = {
        name.partition("/")[2]
        for each in records
        for name in each
        if name.startswith("reward_mean")
    }
    return sorted(name or "reward" for name in names) or ["reward"]


def reward_metrics(rewards: Mapping[str, Floats]) -> dict[str, float]:
    """The metrics of `PER_REWARD` of an epoch.

    Args:
        rewards: reward name → values of the M ≥ 1 pictures that count, (M,).
    """
    found: dict[str, float] = {}
    for name, values in rewards.items():
        measured = (values.mean(), values.std(), values.min(), values.max())
        for metric, value in zip(PER_REWARD, measured, strict=True):
            found[of_reward(metric, name, rewards)] = float(value)
    return found


def service_metrics(scores: Scores) -> dict[str, float]:
    """The metrics of `PER_SERVICE` of an epoch; NaN where no picture was sent."""
    late = {name: pace.late_s for name, pace in scores.paces.items()}
    tail = scores.paces[slowest(late)].tail if late else float("nan")
    found = {"seconds_reward_wait": scores.wait_s, "scoring_tail": tail}
    if len(scores.by_reward) > 1:
        for name, pace in scores.paces.items():
            found[f"seconds_reward_wait/{name}"] = pace.late_s
            found[f"scoring_tail/{name}"] = pace.tail
    return found


def meaning(name: str) -> str:
    """What a recorded number is.

    Raises:
        KeyError: it is no metric.
    """
    metric, _, reward = name.partition("/")
    return METRICS[metric if reward and metric in (*PER_REWARD, *PER_SERVICE) else name]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first; a last line that was cut off is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _json_number(value: float) -> float | None:
    # JSON has no NaN, and a comparison tells it apart without importing anything.
    return value if value - value == 0 else None


def _writer(folder: Path, first_epoch: int) -> "SummaryWriter":
    # Imported late: it takes seconds, and a run may do without it.
    from torch.utils.tensorboard.writer import SummaryWriter

    # Events of epochs that are about to be done again disappear from the board.
    return SummaryWriter(log_dir=str(folder), purge_step=first_epoch)
