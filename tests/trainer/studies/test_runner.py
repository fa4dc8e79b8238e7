"""Studies with real processes: rows, interruptions of every kind, and what is told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainer.stops import ConfigError, RunStopped
from trainer.studies.repeat import repeat
from trainer.studies.rows import Row, RowsFile
from trainer.studies.runner import Services, StudyRunner
from trainer.studies.study import Study

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

MICRO = Path(__file__).parents[2] / "golden" / "micro_sd"
TEXT = f"""
name = "small"
seeds = [1]
monitors = ["watch"]
[settings]
run = {{ threads = 1 }}
model = {{ path = "{MICRO}" }}
sampling = {{ steps = 3, batch_size = 4, samples_per_epoch = 4 }}
training = {{ epochs = 3, batch_size = 4, micro_batch_size = 6, clip_range = 1e-3 }}
evaluation = {{ samples = 4, every = 1 }}
tracking = {{ tensorboard = false }}
[arms.ddpo_is]
training = {{ learning_rate = 0.05 }}
[arms.rwr]
training = {{ algorithm = "rwr", learning_rate = 0.01 }}
rwr = {{ updates = 2 }}
[rewards.jpeg]
"""

pytestmark = pytest.mark.slow


class Place:
    """A study's file, folders, and what was said about it."""

    def __init__(self, folder: Path, text: str = TEXT) -> None:
        self.file = folder / "study.toml"
        self.file.write_text(text)
        self.runs = folder / "runs"
        self.rows = RowsFile(folder / "rows.json")
        self.said: list[str] = []

    def runner(self, services: Services) -> StudyRunner:
        return StudyRunner(self.study, services, self.runs, self.rows, self.said.append)

    @property
    def study(self) -> Study:
        return Study.read(self.file)

    def run(self, services: Services, jobs: int = 1) -> dict[str, Row]:
        self.runner(services).run(self.study.cells, jobs)
        return {row.cell: row for row in self.rows.read()}


@pytest.fixture(scope="module")
def services(service: "ServiceProcess") -> Services:
    return Services({"jpeg": service.url}, {"watch": service.url})


@pytest.fixture(scope="module")
def straight(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The study, run without an interruption."""
    place = Place(tmp_path_factory.mktemp("straight"))
    place.run(services, jobs=2)
    return place


def curves(rows: dict[str, Row]) -> object:
    return {name: (row.curve, row.training) for name, row in rows.items()}


def by_cell(place: Place) -> dict[str, Row]:
    return {row.cell: row for row in place.rows.read()}


def test_a_row_tells_what_its_run_recorded(straight: Place) -> None:
    rows = by_cell(straight)
    assert list(rows) == ["ddpo_is/jpeg/1", "rwr/jpeg/1"]
    row = rows["ddpo_is/jpeg/1"]
    assert [point.reward_queries for point in row.curve] == [0, 4, 8, 12]
    assert (row.before, row.after) == (row.curve[0], row.curve[-1])
    assert row.before == rows["rwr/jpeg/1"].before  # the same model, prompts and noise
    assert row.after != rows["rwr/jpeg/1"].after
    run = straight.runs / "small" / "ddpo_is-jpeg-1"
    summary = json.loads((run / "summary.json").read_bytes())
    assert row.after is not None
    assert row.after.mean == summary["reward"]["after"]["mean"]
    assert row.after.monitors == {"watch": row.after.mean}  # the very same service
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert row.training == [(each["reward_queries"], each["reward_mean"]) for each in metrics]
    assert (row.reward_queries, row.threads, row.stopped) == (12, 1, None)
    assert (row.direction, row.units) == ("maximize", "kB")
    assert row.command.endswith("--cell ddpo_is/jpeg/1 --reward jpeg=URL --monitor watch=URL")
    assert row.config_hash == straight.study.cells[0].config_hash


def test_what_is_done_is_not_run_again(straight: Place, services: Services) -> None:
    before = straight.file.with_name("rows.json").read_bytes()
    straight.run(services)
    assert straight.said[-1] == "2 of 2 cells are done"
    assert straight.file.with_name("rows.json").read_bytes() == before


def test_a_lost_row_is_read_from_the_run(straight: Place, services: Services) -> None:
    known = by_cell(straight)
    straight.file.with_name("rows.json").unlink()
    asked = len(straight.said)
    assert by_cell(straight) == {}
    assert curves(straight.run(services)) == curves(known)
    assert not any("starting" in line for line in straight.said[asked:])


def test_running_a_row_again_gives_its_curve(straight: Place, services: Services) -> None:
    args = (straight.study, services, straight.runs, straight.rows)
    cells = straight.study.chosen(["ddpo_is"])
    assert repeat(*args, cells, 1, straight.said.append) == []
    row = by_cell(straight)["ddpo_is/jpeg/1"]
    forged = row.curve[-1].model_copy(update={"mean": row.curve[-1].mean + 0.5})
    straight.rows.add(row.model_copy(update={"curve": [*row.curve[:-1], forged]}))
    (told,) = repeat(*args, cells, 1, straight.said.append)
    straight.rows.add(row)
    assert told.startswith("ddpo_is/jpeg/1: the curve differs by up to 0.5 kB (then ")
    none = RowsFile(straight.runs / "no.json")
    with pytest.raises(ConfigError, match="ddpo_is/jpeg/1 has no row"):
        repeat(straight.study, services, straight.runs, none, cells, 1, straight.said.append)


class Command:
    """`ddpo compare` in a process of its own, and the cells it starts."""

    def __init__(self, place: Place, services: Services) -> None:
        self._place = place
        command = [sys.executable, "-m", "trainer", "compare", str(place.file)]
        for kind, known in (("reward", services.rewards), ("monitor", services.monitors)):
            for name, url in known.items():
                command += [f"--{kind}", f"{name}={url}"]
        command += ["--runs", str(place.runs), "--rows", str(place.file.with_name("rows.json"))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def reaches(self, cell: str, epochs: int) -> None:
        metrics = self._place.runs / "small" / cell / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < epochs:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def end(self, with_signal: signal.Signals | None = None) -> tuple[int, str]:
        if with_signal is not None:
            self.process.send_signal(with_signal)
        said, _ = self.process.communicate(timeout=120)
        return self.process.returncode, said.decode()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    subprocess.run(["pkill", "-9", "-f", str(place.runs)], check=False)


def test_killed_and_started_again_it_gives_the_same_numbers(
    place: Place, services: Services, straight: Place
) -> None:
    command = Command(place, services)
    command.reaches("ddpo_is-jpeg-1", 1)
    command.end(signal.SIGKILL)
    # The cell's own process lives on, or is killed too: either must do.
    subprocess.run(["pkill", "-9", "-f", str(place.runs / "small")], check=False)
    command = Command(place, services)
    command.reaches("rwr-jpeg-1", 1)
    command.end(signal.SIGKILL)  # its cell goes on alone
    code, said = Command(place, services).end()
    assert code == 0, said
    assert "1 of 2 cells are done" in said
    assert curves(by_cell(place)) == curves(by_cell(straight))


def test_a_signal_leaves_checkpoints(place: Place, services: Services, straight: Place) -> None:
    command = Command(place, services)
    command.reaches("ddpo_is-jpeg-1", 1)
    code, said = command.end(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, said
    assert list((place.runs / "small" / "ddpo_is-jpeg-1" / "checkpoints").iterdir())
    assert "Traceback" not in said
    assert curves(place.run(services)) == curves(by_cell(straight))
    assert "going on with ddpo_is/jpeg/1" in place.said


def test_a_run_that_cannot_go_on_is_a_row_too(
    start_service: Callable[..., "ServiceProcess"], tmp_path: Path
) -> None:
    text = """
from reward_services import ItemError

class Tired:
    name, units, direction, max_batch_size = "tired", "pt", "maximize", 64
    calls = 0

    def score(self, items):
        self.calls += 1
        return [self.one(item) for item in items]

    def one(self, item):
        return ItemError("enough", "tired") if self.calls > 4 else float(item.image.mean())
"""
    url = start_service("tired:Tired", text).url
    place = Place(tmp_path, TEXT.replace('monitors = ["watch"]\n', ""))
    cells = place.study.chosen(["ddpo_is"])
    place.runner(Services({"jpeg": url}, {})).run(cells)
    (row,) = place.rows.read()
    assert row.after is None
    assert row.stopped is not None
    assert "4 tired" in row.stopped
    assert row.reward_queries == 4
    assert place.said[-1].startswith("ddpo_is/jpeg/1: stopped after 4 reward queries: ")


def test_what_cannot_begin_is_told_before_anything_is_trained(
    place: Place, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="the study small needs watch: add --monitor watch=URL"):
        place.run(Services(services.rewards, {}))
    monkeypatch.setenv("DDPO_SCORING__MAX_OUTAGE_S", "0")
    with pytest.raises(RunStopped, match=r"jpeg at http://127\.0\.0\.1:9 cannot be reached"):
        place.run(Services({"jpeg": "http://127.0.0.1:9"}, services.monitors))
    monkeypatch.setenv("DDPO_TRAINING__EPOCHS", "1")
    with pytest.raises(ConfigError, match="the environment sets DDPO_TRAINING__EPOCHS"):
        place.run(services)
    assert not list(place.runs.glob("small/*/metrics.jsonl"))


def test_a_run_of_other_settings_is_in_the_way(straight: Place, services: Services) -> None:
    place = Place(straight.runs.parent, TEXT.replace("0.05", "0.04"))
    with pytest.raises(RunStopped, match="begun with other settings of the cell ddpo_is/jpeg/1"):
        place.run(services)
    place.file.write_text(TEXT)


def test_rows_of_many_processes_are_all_kept(straight: Place, tmp_path: Path) -> None:
    row = straight.rows.read()[0]
    file = RowsFile(tmp_path / "rows.json")
    children = []
    for seed in range(8):
        if (child := os.fork()) == 0:
            file.add(row.model_copy(update={"seed": seed}))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert [row.seed for row in file.read()] == list(range(8))
