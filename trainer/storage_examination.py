"""Whether a run's folder can be written and its disk holds what a run keeps there."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainer.amounts import amount
from trainer.config import Config
from trainer.findings import Finding, ok, problem, warning
from trainer.run_folder import RunFolder


def run_folder(config: Config) -> Iterator[Finding]:
    """Is the folder free, and may it be written?"""
    folder = RunFolder(config.folder)
    there = _existing(folder.path)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield problem(
            "run folder",
            f"{folder.path} cannot be written, because {there} cannot: set run.dir to another "
            "folder",
        )
    elif _claimed(folder.path / ".lock"):
        yield problem(
            "run folder",
            f"another process is training in {folder.path}: wait for it, or give another --name",
        )
    elif folder.used:
        yield warning(
            "run folder",
            f"{folder.path} holds a run already: go on with it by --resume, or give another --name",
        )
    else:
        yield ok("run folder", f"{folder.path} is free")


def disk_space(config: Config, trained: int) -> Finding:
    """Is there room for the checkpoints that are kept, one being written, and the results?

    Args:
        config: the run.
        trained: weights that the optimiser changes.
    """
    weights = 4 * trained
    averaged = weights if config.ema.decay else 0
    # Weights and AdamW's two moments, in fp32.
    checkpoint = 3 * weights + averaged
    keep = config.checkpoints.keep
    # The next is written before the oldest is deleted; a guard keeps the best one, too.
    count = keep + 1 + (config.guard.action != "off")
    results = weights + averaged + (weights + averaged if config.guard.action == "stop" else 0)
    needed = count * checkpoint + results
    free = shutil.disk_usage(_existing(config.folder)).free
    seen = (
        f"{amount(needed)} for {count} checkpoints of {amount(checkpoint)} (checkpoints.keep "
        f"{keep}) and the trained weights; {amount(free)} free"
    )
    if needed <= free:
        return ok("disk", seen)
    fitting = (free - results) // checkpoint - (count - keep)
    if fitting < 1:
        return problem("disk", f"{seen}: set run.dir to a folder on a larger disk, or make room")
    return problem("disk", f"{seen}: lower checkpoints.keep to {fitting}, or make room")


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    whole = path.absolute()
    return next(each for each in (whole, *whole.parents) if each.exists())


def _claimed(lock: Path) -> bool:
    """Whether a process holds the lock; leaves it as it was."""
    if not lock.exists():
        return False
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
