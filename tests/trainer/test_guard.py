"""The guard stops what falls apart, leaves alone what is well, and needs no memory."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.gallery import Evaluation, Measured, Spread
from trainer.guard import Verdict, verdicts
from trainer.scores import Floats
from trainer.sections import GuardSection

N = 90
RULE = GuardSection(action="stop")
JUDGE = {"judge": "maximize"}
UP = {"judge": "maximize", "critic": "maximize"}


def measured(values: Floats) -> Measured:
    scores = [None if np.isnan(value) else float(value) for value in values]
    mean = float(np.nanmean(values))
    return Measured(scores=scores, mean=mean, ci95=(mean, mean))


def run_of(each: Sequence[dict[str, Floats]]) -> list[Evaluation]:
    """Evaluations with these scores of the monitors, in epochs 0, 2, 4, …"""
    return [
        Evaluation(
            epoch=2 * place,
            prompts=["a cat"] * N,
            rewards={"reward": measured(np.linspace(0, 1, N) + place)},
            monitors={name: measured(values) for name, values in scores.items()},
        )
        for place, scores in enumerate(each)
    ]


def noisy(seed: int, levels: Sequence[float]) -> list[Evaluation]:
    """Levels in deviations of the base model, with new noise on every picture each time."""
    random = np.random.default_rng(seed)
    base = random.normal(size=(2, N))
    return run_of(
        [
            dict(zip(UP, base + random.normal(size=(2, N)) * bool(place) + level, strict=True))
            for place, level in enumerate(levels)
        ]
    )


def exact(levels: Sequence[float], spread: float = 0.0) -> list[Evaluation]:
    """Levels in units of a judge of deviation 1; `spread` of the differences between pictures."""
    base = np.array([-1.0, 1.0] * (N // 2))
    wiggle = np.array([1.0, 1.0, -1.0, -1.0] * (N // 4) + [0.0] * (N % 4)) * spread
    return run_of([{"judge": base + level + wiggle * bool(level)} for level in levels])


def judged(levels: Sequence[float], rule: GuardSection = RULE, spread: float = 0) -> list[Verdict]:
    return verdicts(exact(levels, spread), JUDGE, rule)


def over(found: Sequence[Verdict]) -> list[int]:
    return [verdict.epoch for verdict in found if verdict.over]


def test_levels_and_drops_are_in_deviations_of_the_base_model() -> None:
    found = judged([0, 0.5, 2, 1.5])
    assert [verdict.level for verdict in found] == pytest.approx([0, 0.5, 2, 1.5])
    assert [verdict.drop for verdict in found] == pytest.approx([0, 0, 0, 0.5])
    assert [verdict.best_epoch for verdict in found] == [0, 2, 4, 4]
    assert found[3].best_level == pytest.approx(2)


@pytest.mark.parametrize(
    ("levels", "falling", "over_at"),
    [
        ([0, 2, 1.9, 1.85], [False, False, False, False], []),  # within the tolerance
        ([0, 2, 1.6, 2.1, 1.7], [False, False, True, False, True], []),  # not in a row
        ([0, 2, 1.6, 1.7, 1.6], [False, False, True, True, True], [6, 8]),  # the second in a row
        ([0, 2, 0.9], [False, False, True], [4]),  # another such step would end below 0
        ([0, 2, 1.1], [False, False, True], []),
        ([0, 2, 1.9, 0.9], [False, False, False, True], [6]),
        ([0, 2, 1.85, 1.0], [False, False, False, True], []),
        ([0, -0.2, 0.1], [False, False, False], []),
        ([0, -0.3], [False, True], [2]),
        ([0, 0.4, 0.25], [False, False, False], []),  # within the tolerance
    ],
)
def test_the_rule(levels: list[float], falling: list[bool], over_at: list[int]) -> None:
    found = judged(levels)
    assert [verdict.falling for verdict in found] == falling
    assert over(found) == over_at


def test_a_drop_must_be_certain() -> None:
    # 90 differences of deviation 4, the second comparison: half of 0.5 % is beyond 2.807 errors.
    found = verdicts(exact([0, 2]) + exact([0, 1.5], spread=4)[1:], JUDGE, RULE)
    assert found[2].drop == pytest.approx(0.5, abs=0.1)
    error = np.sqrt(88 / 89) * 4 / np.sqrt(N)
    assert found[2].drop - found[2].drop_low == pytest.approx(2.807 * error, rel=1e-3)
    assert not found[2].falling
    # The same noise in both cancels.
    assert over(judged([0, 2, 1.5, 1.5], spread=4)) == [6]


def test_one_step_must_be_as_certain_as_two_to_end_a_run() -> None:
    # A drop of 1.2 with an error of 0.42 is 2.86 errors; two such findings in a row are 4.37.
    fallen = exact([0, 0.8], spread=4)[1:]
    assert [verdict.falling for verdict in verdicts(exact([0, 2]) + fallen, JUDGE, RULE)][2]
    assert over(verdicts(exact([0, 2]) + fallen, JUDGE, RULE)) == []
    certain = exact([0, 0.8], spread=2)[1:]
    assert over(verdicts(exact([0, 2]) + certain, JUDGE, RULE)) == [2]


def test_the_settings_count() -> None:
    levels = [0, 2, 1.6, 1.6, 1.6]
    assert over(judged(levels, GuardSection(tolerance=0.5))) == []
    assert over(judged(levels, GuardSection(patience=1))) == [4, 6, 8]
    assert over(judged(levels, GuardSection(patience=3))) == [8]


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-50, 50))
def test_neither_units_nor_directions_matter(seed: int, factor: float, shift: float) -> None:
    run = noisy(seed, [0, 1, 0.6, 0.2])
    other = run_of(
        [
            {
                "judge": shift - factor * np.array(each.monitors["judge"].scores, np.float64),
                "critic": np.array(each.monitors["critic"].scores, np.float64),
            }
            for each in run
        ]
    )
    found = verdicts(other, UP | {"judge": "minimize"}, RULE)
    for mine, its in zip(verdicts(run, UP, RULE), found, strict=True):
        assert its.level == pytest.approx(mine.level, abs=1e-6)
        assert (its.best_epoch, its.falling, its.over) == (
            mine.best_epoch,
            mine.falling,
            mine.over,
        )


@given(st.integers(0, 2**32 - 1), st.lists(st.floats(-2, 2), min_size=1, max_size=6))
def test_what_comes_later_changes_no_verdict(seed: int, levels: list[float]) -> None:
    run = noisy(seed, [0, *levels])
    whole = verdicts(run, UP, RULE)
    for length in range(1, len(run) + 1):
        assert verdicts(run[:length], UP, RULE) == whole[:length]


def test_hardly_a_run_that_stays_on_its_level_is_stopped() -> None:
    # All of its noise is new at every evaluation; that of one run's pictures hangs together more.
    healthy = [0, 0.4, 0.7, 0.9] + [1.0] * 12
    stopped = [seed for seed in range(300) if over(verdicts(noisy(seed, healthy), UP, RULE))]
    assert len(stopped) <= 300 * (1 - RULE.confidence)


def test_runs_that_fall_are_stopped_above_the_base_model() -> None:
    falling = [0, 0.4, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0, -0.2]
    stopped = [over(verdicts(noisy(seed, falling), UP, RULE)) for seed in range(300)]
    assert all(stopped)
    above = [epochs for epochs in stopped if falling[epochs[0] // 2] > 0]
    assert len(above) > 0.95 * len(stopped)


def test_a_monitor_counts_where_it_tells_pictures_apart() -> None:
    base = np.array([-1.0, 1.0] * (N // 2))
    silent = np.zeros(N)
    run = run_of(
        [
            {"judge": base, "never": silent, "later": silent},
            {"judge": base, "never": silent, "later": 3 * base + 3},
        ]
    )
    directions = dict.fromkeys(("judge", "never", "later", "absent"), "maximize")
    found = verdicts(run, directions, RULE)
    assert found[1].level == pytest.approx((0 + 1) / 2)
    assert verdicts(run, {"never": "maximize"}, RULE) == []
    assert verdicts(run, {}, RULE) == []


def test_pictures_without_a_score_are_left_out() -> None:
    base = np.array([-1.0, 1.0] * (N // 2))
    holes = base + 1
    holes[:10] = np.nan
    partly = verdicts(
        run_of([{"judge": base, "critic": base}, {"judge": holes, "critic": base + 3}]), UP, RULE
    )
    # Ten pictures are judged by the critic alone.
    assert partly[1].level == pytest.approx((10 * 3 + 80 * 2) / 90)
    nothing = np.full(N, np.nan)
    nothing[:1] = 0
    run = run_of([{"judge": base}, {"judge": nothing}, {"judge": base + 1}])
    assert [verdict.epoch for verdict in verdicts(run, JUDGE, RULE)] == [0, 4]


def test_what_looks_unhealthy_is_said_and_stops_nothing() -> None:
    calm = {"saturation": Spread(mean=0.2, std=0.1), "diversity": Spread(mean=0.2, std=0.0)}
    gaudy = {
        "saturation": Spread(mean=0.55, std=0.2),
        "diversity": Spread(mean=0.9, std=0.0),  # it did not vary: no yardstick
        "latent_rms": Spread(mean=9, std=1),  # not known of the base model
    }
    first, second = exact([0, 1])
    run = [first.model_copy(update={"health": calm}), second.model_copy(update={"health": gaudy})]
    found = verdicts(run, JUDGE, RULE)
    assert found[0].unhealthy == ()
    assert found[1].unhealthy == (
        "saturation 0.2 → 0.55, +3.5 deviations of the base model's pictures",
    )
    assert not found[1].over
    patient = RULE.model_copy(update={"health_deviations": 4.0})
    assert verdicts(run, JUDGE, patient)[1].unhealthy == ()
