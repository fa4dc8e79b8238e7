"""Runs cells once more and compares: is what the rows say reproduced here?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.stops import ConfigError
from trainer.studies.rows import Row, RowsFile
from trainer.studies.runner import Services, StudyRunner
from trainer.studies.study import Cell, Study


def repeat(
    study: Study,
    services: Services,
    runs: Path,
    rows: RowsFile,
    cells: Sequence[Cell],
    jobs: int,
    say: Callable[[str], None],
) -> list[str]:
    """Run cells that have a row again, in `RUNS/NAME-again`.

    Args:
        study, services, runs, rows: as the rows were made.
        cells: which to run.
        jobs: processes at a time.
        say: gets one line for the person at the terminal.

    Returns:
        One line per cell whose curve is not the same to the last digit.

    Raises:
        ConfigError: a cell has no row, or one of other settings.
        RunStopped: as `StudyRunner.run`.
    """
    known = {row.cell: row for row in rows.read()}
    for cell in cells:
        if cell.name not in known or known[cell.name].config_hash != cell.config_hash:
            raise ConfigError(
                f"{cell.name} has no row with the settings of this study: run it without --again"
            )
    other = replace(study, name=f"{study.name}-again")
    found = RowsFile(runs / other.name / "rows.json")
    StudyRunner(other, services, runs, found, say).run(cells, jobs)
    repeated = {row.cell: row for row in found.read()}
    lines = [_difference(known[cell.name], repeated[cell.name]) for cell in cells]
    return [line for line in lines if line]


def _difference(row: Row, again: Row) -> str:
    """In words, "" for none."""
    if (row.curve, row.training, row.stopped) == (again.curve, again.training, again.stopped):
        return ""
    if len(row.curve) != len(again.curve):
        return f"{row.cell}: {len(row.curve)} points before, {len(again.curve)} now"
    largest = max(abs(old.mean - new.mean) for old, new in zip(row.curve, again.curve, strict=True))
    return (
        f"{row.cell}: the curve differs by up to {largest:.3g} {row.units} (then {row.machine}, "
        f"torch {row.torch}; now {again.machine}, torch {again.torch})"
    )
