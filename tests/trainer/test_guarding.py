"""A guarded run ends after its best, with the weights of its best, however often it is killed."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainer import checkpoints, loop
from trainer.config import Config, load_config
from trainer.drawing import draw_sheet
from trainer.guarding import deliver
from trainer.loop import train
from trainer.report import write_report
from trainer.run import Run
from trainer.run_folder import RunFolder

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

SAMPLES = 4
LORA = "pytorch_lora_weights.safetensors"
# One level for all pictures of an evaluation, on top of how bright each is.
PLANNED = f"""
import json
from pathlib import Path

class Planned:
    name, max_batch_size = "planned", 64

    def __init__(self):
        Path("plan.json").write_text('{{"levels": [0], "scored": 0}}')  # for warming up

    def score(self, items):
        plan = json.loads(Path("plan.json").read_text())
        said = []
        for item in items:
            level = plan["levels"][plan["scored"] // {SAMPLES}]
            said.append(level + float(item.image.mean()) / 255)
            plan["scored"] += 1
        Path("plan.json").write_text(json.dumps(plan))
        return said
"""
Plan = Callable[[Sequence[float]], None]


@pytest.fixture(scope="module")
def judge(start_service: Callable[..., "ServiceProcess"]) -> "ServiceProcess":
    return start_service("planned:Planned", PLANNED)


@pytest.fixture
def plan(judge: "ServiceProcess") -> Plan:
    """Says what the judge thinks of the evaluations to come, from the first on."""

    def write(levels: Sequence[float]) -> None:
        text = json.dumps({"levels": list(levels), "scored": 0})
        (judge.folder / "plan.json").write_text(text)

    return write


@pytest.fixture
def config_of(
    service: "ServiceProcess", judge: "ServiceProcess", micro_recipe: Path
) -> Callable[..., Config]:
    def build(name: str, *overrides: str, action: str = "stop", epochs: int = 6) -> Config:
        settings = [
            f"run.name={name}",
            f"guard.action={action}",
            f"training.epochs={epochs}",
            f"evaluation.samples={SAMPLES}",
            "evaluation.every=1",
            "checkpoints.keep=1",
            *overrides,
        ]
        return load_config(micro_recipe, settings, {"jpeg": service.url}, {"judge": judge.url})

    return build


def weights(folder: Path) -> bytes:
    return (folder / LORA).read_bytes()


def summary(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text())


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_run_that_falls_ends_with_the_weights_of_its_best(
    config_of: Callable[..., Config], plan: Plan, tmp_path: Path
) -> None:
    plan([0, 10, 9, 8])
    folder = train(config_of("falling"))
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert kept(folder) == ["epoch-00001", "epoch-00003"]
    plan([0] * 2)
    assert weights(folder) == weights(train(config_of("one", action="off", epochs=1)))
    plan([0] * 4)
    three = train(config_of("three", action="off", epochs=3))
    assert weights(folder / "last") == weights(three)
    told = summary(folder)
    assert (told["epochs"], told["weights_epoch"]) == (3, 1)
    assert (told["stopped_by_guard"]["epoch"], told["stopped_by_guard"]["best_epoch"]) == (3, 1)
    assert told["monitors"]["judge"]["after"]["mean"] > 10
    assert (
        "stopped by the guard after epoch 3: the weights are those after epoch 1"
        in (folder / "log").read_text()
    )
    assert (summary(three)["weights_epoch"], summary(three)["stopped_by_guard"]) == (3, None)
    assert not (three / "last").exists()
    # What is drawn with the run is drawn with its best.
    sheets = [tmp_path / f"{name}.png" for name in ("falling", "one", "three")]
    for sheet, run in zip(sheets, (folder, folder.parent / "one", three), strict=True):
        config = load_config(run / "config.toml")
        draw_sheet(config, ["a cat"], seed=1, out=sheet, trained_by=run)
    assert sheets[0].read_bytes() == sheets[1].read_bytes() != sheets[2].read_bytes()


def test_the_report_shows_the_stop_and_what_was_kept(
    config_of: Callable[..., Config], plan: Plan
) -> None:
    plan([0, 10, 9, 8])
    folder = train(config_of("told"))
    page = write_report(RunFolder(folder)).read_text(encoding="utf-8")
    assert page.count("stopped by the guard") == 3  # the subtitle and both curves
    assert "best for the monitors" in page
    # Before and after are the base model and the weights that were kept.
    (reward,) = [summary(folder)["reward"]]
    assert f"{reward['after']['mean']:.3g}".replace("-", "−") in page.split("</h1>")[0]


def test_a_killed_run_comes_to_the_same_end(
    config_of: Callable[..., Config], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = [0, 9, 10, 9.5, 8, 7]
    plan(levels)
    straight = train(config_of("straight", "checkpoints.every=100"))
    plan(levels)
    update = loop._update
    for fatal in (2, 3):

        def killed(run: Run, *rest: Any, at: int = fatal) -> Any:
            if run.epoch == at:
                raise KeyboardInterrupt  # nothing of ours catches it, as nothing catches kill -9
            return update(run, *rest)

        monkeypatch.setattr(loop, "_update", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config_of("killed", "checkpoints.every=100"), resume=fatal > 2)
    monkeypatch.setattr(loop, "_update", update)
    killed_run = train(config_of("killed", "checkpoints.every=100"), resume=True)
    assert summary(killed_run)["weights_epoch"] == 2
    # After epochs 0, 1, 2, then 2, 3, then 2, 3, 4: what an earlier process knew already does not
    # count before it is reached again.
    assert (killed_run / "log").read_text().count("guard: monitors") == 3 + 2 + 3
    assert summary(killed_run)["stopped_by_guard"] == summary(straight)["stopped_by_guard"]
    assert weights(killed_run) == weights(straight)
    assert weights(killed_run / "last") == weights(straight / "last")
    assert kept(killed_run) == kept(straight) == ["epoch-00002", "epoch-00004"]
    # It is over: resuming finds that out again, and trains nothing.
    before = (killed_run / "metrics.jsonl").read_bytes()
    train(config_of("killed", "checkpoints.every=100"), resume=True)
    assert (killed_run / "metrics.jsonl").read_bytes() == before
    assert weights(killed_run) == weights(straight)


def test_the_last_evaluation_counts_too(config_of: Callable[..., Config], plan: Plan) -> None:
    plan([0, 10, 9, 8])
    folder = train(config_of("end", epochs=3))
    assert (summary(folder)["epochs"], summary(folder)["weights_epoch"]) == (3, 1)
    assert weights(folder) != weights(folder / "last")


def test_a_stopped_run_may_go_on_without_its_guard(
    config_of: Callable[..., Config], plan: Plan
) -> None:
    plan([0, 10, 9, 8, 7])
    train(config_of("on", epochs=4))
    folder = train(config_of("on", action="off", epochs=4), resume=True)
    assert (summary(folder)["epochs"], summary(folder)["weights_epoch"]) == (4, 4)
    assert not (folder / "last").exists()


def test_a_warning_ends_nothing(config_of: Callable[..., Config], plan: Plan) -> None:
    plan([0, 10, 9, 8, 1])
    folder = train(config_of("warned", action="warn", epochs=4))
    log = (folder / "log").read_text()
    assert "more than chance" in log
    assert "falling apart" in log
    assert (summary(folder)["weights_epoch"], summary(folder)["stopped_by_guard"]) == (4, None)
    assert kept(folder) == ["epoch-00001", "epoch-00004"]


def test_a_run_that_rises_is_left_alone(config_of: Callable[..., Config], plan: Plan) -> None:
    plan([0, 1, 2, 3])
    folder = train(config_of("rising", epochs=3))
    assert (summary(folder)["weights_epoch"], summary(folder)["stopped_by_guard"]) == (3, None)
    # What was the best before goes with the next checkpoint.
    assert kept(folder) == ["epoch-00002", "epoch-00003"]


def test_a_best_checkpoint_that_is_gone_is_told(
    config_of: Callable[..., Config], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan([0, 10, 9, 8])

    def without(run: Run, *rest: Any) -> Any:
        shutil.rmtree(run.folder.checkpoints / checkpoints.name(1))
        return deliver(run, *rest)

    monkeypatch.setattr("trainer.loop.deliver", without)
    folder = train(config_of("gone"))
    assert "the weights are those of the end, as the run in" in (folder / "log").read_text()
    assert summary(folder)["weights_epoch"] == 3


def test_a_monitor_that_says_the_same_of_all_is_told(
    config_of: Callable[..., Config], plan: Plan
) -> None:
    plan([0] * 3)
    config = config_of("same", epochs=1)
    folder = train(config)
    for scores in (folder / "evaluation").glob("epoch-*/scores.json"):
        said = json.loads(scores.read_text())
        said["monitors"]["judge"]["scores"] = [1.0] * SAMPLES
        scores.write_text(json.dumps(said))
    train(config, resume=True)
    assert (
        "guard: no monitor tells the pictures of every evaluation apart"
        in (folder / "log").read_text()
    )
