"""Runs the cells of a study, each as `ddpo train` in a process of its own.

    RUNS/NAME/ARM-REWARD-SEED/       the run of a cell
    RUNS/NAME/ARM-REWARD-SEED.toml   its recipe
    RUNS/NAME/ARM-REWARD-SEED.log    what it said

Everything that is known lies in these folders and in the rows, so the study can be killed at any
time and started again: a finished cell is not run again, a begun one goes on from its checkpoint,
and one that a process of a killed study still trains is left to it.
"""

import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.schema import Identity
from trainer import gallery
from trainer.config import ENV_PREFIX, Config, load_config
from trainer.configured_rewards import services_of
from trainer.interrupts import Interrupts
from trainer.recipe_files import read_recipe
from trainer.run_folder import RunFolder, write_whole
from trainer.stops import ConfigError, Outage, RunStopped, Unusable
from trainer.studies.rows import Row, RowsFile, row_of
from trainer.studies.study import Cell, Study
from trainer.tables import to_toml

_POLL_S = 0.3
_LOG_TAIL = 4000
# Of the environment only this reaches a cell: where services are, not what is computed.
_ELSEWHERE = tuple(f"{ENV_PREFIX}{section}__" for section in ("REWARDS", "MONITORS", "SCORING"))


@dataclass(frozen=True)
class Services:
    """Name → URL, or several with commas."""

    rewards: Mapping[str, str]
    monitors: Mapping[str, str]


class StudyRunner:
    """Runs cells, several at a time.

    Args:
        study: what to run.
        services: where its rewards and monitors are.
        runs: folder of the runs of all studies.
        rows: where the rows go.
        say: gets one line for the person at the terminal.

    Raises:
        ConfigError: a service is not given, or the environment would change the settings.
    """

    def __init__(
        self,
        study: Study,
        services: Services,
        runs: Path,
        rows: RowsFile,
        say: Callable[[str], None],
    ) -> None:
        self._study = study
        self._services = services
        self._folder = runs / study.name
        self._rows = rows
        self._say = say
        self._identities: dict[str, Identity] = {}
        for variable in sorted(os.environ):
            if variable.startswith(ENV_PREFIX) and not variable.startswith(_ELSEWHERE):
                raise ConfigError(
                    f"the environment sets {variable}, but the file of a study alone says what "
                    "its cells compute: unset it"
                )

    def run(self, cells: Sequence[Cell], jobs: int = 1) -> None:
        """Run the cells that have no row yet.

        Args:
            cells: some of the study's.
            jobs: processes at a time.

        Raises:
            Outage: a service stayed away; the begun cells have checkpoints.
            Interrupted: a signal asked for it; the begun cells have checkpoints.
            RunStopped: a service is missing, or a run was begun with other settings.
        """
        hashes = {row.cell: row.config_hash for row in self._rows.read()}
        waiting = deque(cell for cell in cells if hashes.get(cell.name) != cell.config_hash)
        self._say(f"{len(cells) - len(waiting)} of {len(cells)} cells are done")
        if not waiting:
            return
        self._prepare(list(waiting))
        running: dict[str, tuple[Cell, subprocess.Popen[bytes]]] = {}
        with Interrupts() as interrupts:
            try:
                while waiting or running:
                    interrupts.check()
                    self._start(waiting, running, jobs)
                    time.sleep(_POLL_S)
                    for cell, process in list(running.values()):
                        if process.poll() is not None:
                            del running[cell.name]
                            self._ended(cell, process.returncode, waiting)
            except BaseException:
                _end(process for _, process in running.values())
                raise

    def command(self, cell: Cell) -> str:
        """The command that runs a cell alone, as it is told in the rows."""
        names = [("reward", cell.reward), *(("monitor", name) for name in self._study.monitors)]
        services = " ".join(f"--{kind} {name}=URL" for kind, name in names)
        return f"ddpo compare {shlex.quote(str(self._study.path))} --cell {cell.name} {services}"

    def _prepare(self, cells: Sequence[Cell]) -> None:
        """Write the recipes and ask the services who they are, before anything is trained."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for cell in cells:
            recipe = self._recipe(cell)
            write_whole(recipe, to_toml(cell.settings))
            config = self._config(cell)
            folder = RunFolder(config.folder)
            if folder.used:
                begun = Config.model_validate(read_recipe(folder.config))
                if Cell(cell.arm, cell.reward, cell.seed, begun.model_dump()).config_hash != (
                    cell.config_hash
                ):
                    raise RunStopped(
                        f"the run in {folder.path} was begun with other settings of the cell "
                        f"{cell.name}: move it away, or give the study another name"
                    )
        for name in dict.fromkeys(cell.reward for cell in cells):
            config = self._config(next(cell for cell in cells if cell.reward == name))
            for kind, sections in (("rewards", config.rewards), ("monitors", config.monitors)):
                with services_of(kind, sections, config.scoring, self._say) as services:
                    services.connect()
                    self._identities |= services.identities

    def _recipe(self, cell: Cell) -> Path:
        return self._folder / f"{cell.folder}.toml"

    def _config(self, cell: Cell) -> Config:
        """The configuration of a cell's run, with its services."""
        rewards = {cell.reward: self._url("reward", cell.reward, self._services.rewards)}
        monitors = {
            name: self._url("monitor", name, self._services.monitors)
            for name in self._study.monitors
        }
        place = [f"run.dir={self._folder}", f"run.name={cell.folder}"]
        return load_config(self._recipe(cell), place, rewards, monitors)

    def _url(self, kind: str, name: str, known: Mapping[str, str]) -> str:
        if name not in known:
            raise ConfigError(f"the study {self._study.name} needs {name}: add --{kind} {name}=URL")
        return known[name]

    def _start(
        self,
        waiting: deque[Cell],
        running: dict[str, tuple[Cell, subprocess.Popen[bytes]]],
        jobs: int,
    ) -> None:
        """Start what may be started; a cell that another process trains keeps waiting."""
        for _ in range(len(waiting)):
            if len(running) >= jobs:
                return
            cell = waiting.popleft()
            folder = RunFolder(self._folder / cell.folder)
            if _locked(folder):
                waiting.append(cell)
            elif folder.summary.exists():
                self._done(cell, None)
            else:
                running[cell.name] = (cell, self._process(cell, folder))

    def _process(self, cell: Cell, folder: RunFolder) -> subprocess.Popen[bytes]:
        config = self._config(cell)
        command = [sys.executable, "-m", "trainer", "train", "--recipe", str(self._recipe(cell))]
        command += ["--set", f"run.dir={self._folder}", "--name", cell.folder]
        for kind, sections in (("reward", config.rewards), ("monitor", config.monitors)):
            for name, section in sections.items():
                command += [f"--{kind}", f"{name}={','.join(section.urls)}"]
        command += ["--resume"] if folder.used else []
        threads = {} if config.run.threads is None else {"OMP_NUM_THREADS": f"{config.run.threads}"}
        self._say(f"{'going on with' if folder.used else 'starting'} {cell.name}")
        with self._log(cell).open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | threads
            )

    def _log(self, cell: Cell) -> Path:
        return self._folder / f"{cell.folder}.log"

    def _ended(self, cell: Cell, code: int, waiting: deque[Cell]) -> None:
        """Write a cell's row, or say why there is none.

        Raises:
            Outage, RunStopped: the cell did not end by itself.
        """
        folder = RunFolder(self._folder / cell.folder)
        reason = _last_line(self._log(cell))
        if code == 0:
            self._done(cell, None)
        elif _locked(folder):
            waiting.append(cell)
        elif code == Outage.exit_code:
            raise Outage(f"cell {cell.name}: {reason}; go on with the same command")
        elif code == Unusable.exit_code and gallery.load_all(folder.evaluation):
            # It trained itself into a corner: that is what this arm gives.
            self._done(cell, reason)
        else:
            raise RunStopped(f"cell {cell.name} ended with exit code {code}: {reason}")

    def _done(self, cell: Cell, stopped: str | None) -> None:
        folder = RunFolder(self._folder / cell.folder)
        identity = self._identities[cell.reward]
        row = row_of(cell, folder, identity, self.command(cell), stopped)
        self._rows.add(row)
        self._say(f"{cell.name}: {told(row)}")


def told(row: Row) -> str:
    """A row in words."""
    if row.after is None:
        return f"stopped after {row.reward_queries} reward queries: {row.stopped}"
    return (
        f"{row.before.mean:.4g} → {row.after.mean:.4g} {row.units} after "
        f"{row.reward_queries} reward queries"
    )


def _locked(folder: RunFolder) -> bool:
    """True while a process trains in the folder."""
    lock = folder.path / ".lock"
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _last_line(log: Path) -> str:
    """The end of what a cell said, in one line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Let processes end with a checkpoint."""
    ending = [process for process in processes if process.poll() is None]
    for process in ending:
        process.terminate()
    for process in ending:
        process.wait()
