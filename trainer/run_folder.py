"""The folder of a run: where each output lies, and who may write into it.

runs/NAME/
    config.toml        the resolved configuration
    metrics.jsonl      one line per epoch, see `trainer.tracking`
    tensorboard/       the same for TensorBoard
    checkpoints/       see `trainer.checkpoints`
    evaluation/        pictures and scores on the fixed evaluation seeds
    evaluations/NAME/  what `ddpo evaluate` found, see `trainer.comparison`
    pytorch_lora_weights.safetensors  or  unet/      the trained weights, at the end; averaged ones
                       where `ema.decay` asks for them, and then
    raw/               the same files of the weights that were trained, without averaging
    last/              the weights at the end, when the guard chose earlier ones
    summary.json, report.html                        the result, at the end
    log                what was said at the terminal
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from trainer.stops import RunStopped


class RunFolder:
    """Paths of a run's outputs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.evaluation = path / "evaluation"
        self.evaluations = path / "evaluations"
        self.raw = path / "raw"
        self.last = path / "last"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self.log = path / "log"

    @property
    def used(self) -> bool:
        """True when a run has started here."""
        return self.config.exists()

    @property
    def weights_epoch(self) -> int | None:
        """Epochs after which the model had the weights that stand here; None before the end."""
        if not self.summary.exists():
            return None
        summary = json.loads(self.summary.read_text(encoding="utf-8"))
        epoch: int | None = summary.get("weights_epoch")  # None: of an older version
        return epoch

    def require_run(self) -> None:
        """Check that a run has started here.

        Raises:
            RunStopped: none has.
        """
        if not self.used:
            raise RunStopped(
                f"there is no run in {self.path}; give the folder that holds config.toml"
            )

    def refuse_reuse(self, resume: bool) -> None:
        """Check that the folder suits the request; writes nothing.

        Raises:
            RunStopped: it holds a run and `resume` is False, or holds none and `resume` is True.
        """
        if self.used and not resume:
            raise RunStopped(
                f"the run folder {self.path} is already used; continue it with --resume, or give "
                "another --name"
            )
        if resume and not self.used:
            raise RunStopped(f"there is no run to resume in {self.path}; leave --resume out")

    def claim(self, config_toml: str) -> int:
        """Make the folder this process's own until it ends, however it ends.

        Args:
            config_toml: the resolved configuration, written unless it is there.

        Returns:
            The descriptor that holds the lock; the system frees it with the process.

        Raises:
            RunStopped: another process is training here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise RunStopped(f"another process is training in {self.path}") from error
        if not self.used:
            write_whole(self.config, config_toml)
        return descriptor


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never seen half written."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is never seen half written."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
