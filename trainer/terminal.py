"""What a person sees of a run: lines that stay, also kept in a log file, and one moving bar."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Terminal:
    """The progress of a run. Use as a context manager.

    On a terminal a bar moves; into a file or a pipe only the lines are written.

    Args:
        epochs: epochs of the run; None for what has none, and no bar of them.
        done: epochs finished already.
        silent: show nothing, as another process of the run does.
    """

    def __init__(self, epochs: int | None = None, done: int = 0, *, silent: bool = False) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=silent)
        self._progress = Progress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=silent or not self._console.is_terminal,
            transient=True,
        )
        self._epochs = self._progress.add_task(
            "epochs", total=epochs, completed=done, note="", visible=epochs is not None
        )
        self._log: Path | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def keep_log(self, path: Path) -> None:
        """From now on, append every line to a file too."""
        self._log = path

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._console.print(line, markup=False)
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{stamp}  {line}\n")

    def epoch_done(self, note: str) -> None:
        """Move the bar of epochs on by one, with a note such as the reward."""
        self._progress.update(self._epochs, advance=1, note=note)

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator["Phase"]:
        """A second bar for something that takes a while inside an epoch."""
        task = self._progress.add_task(name, total=total, note="")
        try:
            yield Phase(self._progress, task)
        finally:
            self._progress.remove_task(task)


class Phase:
    """The bar of something that takes a while."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int, note: str = "") -> None:
        """Move on by `count`."""
        self._progress.update(self._task, advance=count, note=note)
