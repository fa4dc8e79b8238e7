"""One call of `ddpo compare`: run the cells, then tell and draw what all rows come to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.launcher import require_alone
from trainer.stops import RunStopped
from trainer.studies.repeat import repeat
from trainer.studies.results import results, table
from trainer.studies.rows import RowsFile
from trainer.studies.runner import Services, StudyRunner
from trainer.studies.study import Study


@dataclass(frozen=True)
class Session:
    """What was asked for.

    Attributes:
        study: its file.
        services: where its rewards and monitors are.
        cells: names of cells; none for all.
        jobs: runs at a time.
        runs: folder of the runs of all studies.
        rows: file of the results; None: `RUNS/NAME/rows.json`.
        again: run cells that have a row once more, and compare.
    """

    study: Path
    services: Services
    cells: list[str]
    jobs: int
    runs: Path
    rows: Path | None
    again: bool

    def run(self, say: Callable[[str], None]) -> None:
        """Do it.

        Args:
            say: gets lines for the person at the terminal.

        Raises:
            RunStopped: the study cannot be run or go on, was interrupted, or a curve that was
                run again is another.
        """
        require_alone("ddpo compare")
        study = Study.read(self.study)
        path = self.rows or self.runs / study.name / "rows.json"
        rows, cells = RowsFile(path), study.chosen(self.cells)
        if self.again:
            self._again(study, rows, say)
            return
        StudyRunner(study, self.services, self.runs, rows, say).run(cells, self.jobs)
        say(f"\n{table(results(rows.read()))}\n\nall rows: {path}")
        say(_drawn(rows, path.with_suffix(".png")))

    def _again(self, study: Study, rows: RowsFile, say: Callable[[str], None]) -> None:
        cells = study.chosen(self.cells)
        differences = repeat(study, self.services, self.runs, rows, cells, self.jobs, say)
        if differences:
            raise RunStopped("; ".join(differences))
        say(f"{len(cells)} cells gave the same curves again")


def _drawn(rows: RowsFile, path: Path) -> str:
    """Draw the curves where matplotlib is installed; what to tell about it."""
    try:
        from trainer.studies.figure import write_figure
    except ModuleNotFoundError as error:
        return f"no chart, for {error.name} is not installed (it is in the extra `study`)"
    write_figure(rows.read(), path)
    return f"chart: {path}"
