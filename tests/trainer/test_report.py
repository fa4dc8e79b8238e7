"""The report page stands alone and tells what the run's files say."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from trainer import gallery
from trainer.gallery import Evaluation, Measured, Spread
from trainer.report import write_report
from trainer.run_folder import RunFolder
from trainer.stops import RunStopped
from trainer.tracking import METRICS, PER_REWARD, MetricsLog, reward_metrics

PROMPTS = ["a cat", "an <ant> & co", "a dog"]


# Of the second less is better, and it falls while the first rises.
REWARDS = [("jpeg_compressibility", 1), ("bytes & more", -10)]


def measured(mean: float) -> Measured:
    return Measured(scores=[mean, mean - 0.5, None], mean=mean, ci95=(mean - 0.1, mean + 0.1))


def watching(share: float) -> dict[str, Measured]:
    ci95 = (share - 0.1, share + 0.1)
    return {"judge": Measured(scores=[share, share, None], mean=share, ci95=ci95)}


def run_folder(
    path: Path,
    evaluations: dict[int, float],
    epochs: int,
    judged: dict[int, float] | None = None,
    rewards: int = 1,
    health: bool = False,
) -> RunFolder:
    folder = RunFolder(path)
    path.mkdir(exist_ok=True)
    folder.config.write_text('model.path = "<micro>"\n')
    for epoch, mean in evaluations.items():
        evaluation = Evaluation(
            epoch=epoch,
            prompts=PROMPTS,
            rewards={name: measured(sign * mean) for name, sign in REWARDS[:rewards]},
            monitors=watching(judged[epoch]) if judged else {},
            health={"saturation": Spread(mean=0.1 * epoch, std=0.1)} if health else {},
        )
        pictures = np.full((3, 8, 8, 3), 40 * epoch, np.uint8)
        gallery.save(folder.evaluation, evaluation, pictures)
    with MetricsLog(folder.metrics, None, length=0, epoch=0) as log:
        for epoch in range(1, epochs + 1):
            record = dict.fromkeys(METRICS.keys() - set(PER_REWARD), 0.5)
            means = {name: np.array([0.4 * epoch, 0.6]) for name, _ in REWARDS[:rewards]}
            numbers = record | reward_metrics(means)
            log.append(numbers | {"epoch": epoch, "reward_queries": 64 * epoch})
    return folder


class Page(HTMLParser):
    """Balanced tags, and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag, attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(folder: RunFolder) -> Page:
    parsed = Page(write_report(folder).read_text(encoding="utf-8"))
    assert parsed.open == []
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    return parsed


def test_a_finished_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {0: -2.4, 3: -1.8}, epochs=3)
    folder.summary.write_text(
        json.dumps(
            {
                "reward": {"units": "kB", "direction": "maximize", "version": "q95"},
                "seconds": 372.0,
                "trained_parameters": 5_600_000,
                "config_hash": "c0ffee",
            }
        )
    )
    parsed = page(folder)
    for expected in ("+25 %", "−2.4 → −1.8", "an <ant> & co", "5.6 M", "6 min 12 s", "c0ffee",
                     'model.path = "<micro>"', "192", "not scored"):  # fmt: skip
        assert expected in parsed.text
    assert len(parsed.sources) == 2 * len(PROMPTS)


@pytest.mark.parametrize(("direction", "worse"), [("maximize", 0), ("minimize", 2)])
def test_what_is_worse_depends_on_the_direction(tmp_path: Path, direction: str, worse: int) -> None:
    folder = run_folder(tmp_path, {0: -2.4, 3: -1.8}, epochs=3)
    reward = {"units": "kB", "direction": direction}
    folder.summary.write_text(json.dumps({"reward": reward, "seconds": 1.0}))
    assert write_report(folder).read_text(encoding="utf-8").count('<b class="worse">') == worse


def test_several_rewards_stand_side_by_side(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {0: -2.0, 3: -1.5}, epochs=3, rewards=2)
    about = {"units": "kB", "weight": 2.0}
    directions = ("maximize", "minimize")
    folder.summary.write_text(
        json.dumps(
            {
                "seconds": 1.0,
                "rewards": {
                    name: {**about, "direction": direction}
                    for (name, _), direction in zip(REWARDS, directions, strict=True)
                },
            }
        )
    )
    parsed = page(folder)
    for expected in ("The rewards", "jpeg_compressibility: −2 → −1.5", "bytes & more: 20 → 15",
                     "+25 %", "−25 %", "bytes & more: mean on the same seeds", 
                     "bytes & more in kB, to minimize", "reward_std/bytes & more",
                     "bytes & more weight"):  # fmt: skip
        assert expected in parsed.text
    html = folder.report.read_text(encoding="utf-8")
    # A curve each, with the means of its own epochs; both got better, so nothing is worse.
    assert html.count('class="line"') == 2 + 5 + 2
    assert 'class="worse"' not in html
    assert html.count("not scored") == 4


def test_several_rewards_without_an_evaluation(tmp_path: Path) -> None:
    assert "bytes & more" in page(run_folder(tmp_path, {}, epochs=2, rewards=2)).text


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    parsed = page(run_folder(tmp_path, {0: -2.4}, epochs=2))
    assert "not finished" in parsed.text
    assert "Before and after" not in parsed.text


def test_halfway_stands_between_before_and_after(tmp_path: Path) -> None:
    parsed = page(run_folder(tmp_path, {0: -2.4, 1: -2.0, 3: -1.8}, epochs=3))
    assert "then after epoch 1 and as it is now" in parsed.text
    assert "Over the course of training" not in parsed.text
    assert len(parsed.sources) == 3 * len(PROMPTS)


def test_evaluations_in_between_are_shown_over_time(tmp_path: Path) -> None:
    parsed = page(run_folder(tmp_path, {0: -2.4, 1: -2.0, 2: -1.9, 3: -1.8}, epochs=3))
    assert "Over the course of training" in parsed.text
    assert len(parsed.sources) == (3 + 4) * len(PROMPTS)


def test_what_watched_is_shown(tmp_path: Path) -> None:
    parsed = page(run_folder(tmp_path, {0: -2.4, 3: -1.8}, epochs=3, judged={0: 0.4, 3: 0.65}))
    assert "Rewards that only watch" in parsed.text
    assert "0.4 → 0.65; mean on the same seeds; 95 % intervals 0.3 to 0.5" in parsed.text
    assert "Rewards that only watch" not in page(run_folder(tmp_path / "b", {0: 1.0}, 0)).text


def test_the_state_of_the_pictures_is_shown(tmp_path: Path) -> None:
    text = page(run_folder(tmp_path, {0: -2.4, 3: -1.8}, epochs=3, health=True)).text
    assert "The state of the pictures" in text
    assert "saturation, epoch 3: 0.3" in text
    assert "diversity" not in text  # not known
    old = run_folder(tmp_path / "old", {0: -2.4, 3: -1.8}, epochs=3)
    assert "The state of the pictures" not in page(old).text


def test_a_stop_is_marked_and_what_was_kept_is_shown(tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path, {0: -2.4, 1: -1.8, 2: -1.2}, epochs=2, judged={0: 0.4, 1: 0.7, 2: 0.2}
    )
    stopped = {"epoch": 2, "best_epoch": 1}
    folder.summary.write_text(
        json.dumps({"seconds": 1.0, "weights_epoch": 1, "stopped_by_guard": stopped})
    )
    parsed = page(folder)
    assert "stopped by the guard after epoch 2, weights after epoch 1" in parsed.text
    assert parsed.text.count("best for the monitors") == 2  # of the reward and of the monitor
    assert "−2.4 → −1.8" in parsed.text
    assert "0.4 → 0.2" in parsed.text  # a monitor's curve goes on to the end
    assert len(parsed.sources) == 2 * len(PROMPTS)


def test_an_evaluation_alone_is_enough(tmp_path: Path) -> None:
    assert "The reward" in page(run_folder(tmp_path, {0: 0.0}, epochs=0)).text


def test_a_reward_that_was_zero_has_no_percentage(tmp_path: Path) -> None:
    assert "+0.25" in page(run_folder(tmp_path, {0: 0.0, 1: 0.25}, epochs=1)).text


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match=r"no run in .*; give the folder that holds config.toml"):
        write_report(RunFolder(tmp_path))
    with pytest.raises(RunStopped, match="nothing to show yet"):
        write_report(run_folder(tmp_path, {}, epochs=0))


def test_what_the_time_went_into(tmp_path: Path) -> None:
    """All phases took the same here, so scoring waited a third of the time."""
    folder = run_folder(tmp_path, {0: -2.4, 3: -1.8}, epochs=3)
    text = page(folder).text
    assert "reward-bound: scoring waited 33 % of the epochs: add a worker to jpeg_compress" in text
    assert "Its slowest request took 0.5 times the median." in text
