"""The curves of the report: what is drawn, and what is left out."""

from trainer.gallery import Evaluation, Measured, Shots, Spread
from trainer.report_curves import (
    Records,
    curves,
    diagnostics,
    health,
    intervals,
    marks_of,
    monitors,
)

RECORDS: Records = [
    {"epoch": 1, "reward_queries": 64, "reward_mean": 1.0, "reward_std": 0.5, "loss": 0.3},
    {"epoch": 2, "reward_queries": 128, "reward_mean": None, "reward_std": None, "loss": 0.2},
    {"epoch": 3, "reward_queries": 192, "reward_mean": 2.0, "reward_std": 0.4, "loss": 0.1},
]


def shot(epoch: int, saturation: float | None = None) -> Evaluation:
    said = Measured(scores=[1.0, 2.0], mean=1.5 + epoch, ci95=(1.0 + epoch, 2.0 + epoch))
    return Evaluation(
        epoch=epoch,
        prompts=["a", "b"],
        rewards={"jpeg & more": said},
        monitors={"judge": said},
        health={} if saturation is None else {"saturation": Spread(mean=saturation, std=0.1)},
    )


SHOTS: Shots = [(shot(0, 0.2), []), (shot(3, 0.4), [])]


def test_an_epoch_without_a_mean_is_no_point() -> None:
    drawn = curves(RECORDS, SHOTS, [])
    assert "<h2>The reward</h2>" in drawn
    assert "jpeg &amp; more" in drawn
    (line,) = [part for part in drawn.split("<path") if 'class="line"' in part]
    assert line.split('d="')[1].split('"')[0].count("L") == 1


def test_the_guard_leaves_two_marks() -> None:
    assert marks_of(RECORDS, {}) == []
    summary = {"stopped_by_guard": {"best_epoch": 1, "epoch": 3}}
    found = marks_of(RECORDS, summary)
    assert [(mark.x, mark.label) for mark in found] == [
        (64, "best for the monitors"),
        (192, "stopped by the guard"),
    ]
    drawn = curves(RECORDS, SHOTS, found)
    assert "stopped by the guard" in drawn
    assert "best for the monitors" in monitors(RECORDS, SHOTS, found)


def test_a_single_evaluation_is_no_curve() -> None:
    assert monitors(RECORDS, SHOTS[:1], []) == ""
    assert health(SHOTS[:1]) == ""
    assert diagnostics(RECORDS[:1]) == ""


def test_what_is_there_is_drawn() -> None:
    assert "<h3>judge</h3><p>1.5 → 4.5;" in monitors(RECORDS, SHOTS, [])
    assert "<h3>saturation</h3>" in health(SHOTS)
    assert "<h3>diversity</h3>" not in health(SHOTS)
    drawn = diagnostics(RECORDS)
    assert "<h3>loss</h3>" in drawn
    assert "<h3>approx_kl</h3>" not in drawn  # none of the epochs has it


def test_intervals_in_words() -> None:
    before, after = (evaluation.rewards["jpeg & more"] for evaluation, _ in SHOTS)
    assert intervals(before, after).endswith("95 % intervals 1 to 2 and 4 to 5")
