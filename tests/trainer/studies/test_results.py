"""A study's rows as results: means, intervals over seeds, order, and the table of them."""

import math

import pytest
from scipy import stats

from trainer.studies.results import HEAD, cells, results, seed_interval, table
from trainer.studies.rows import Point, Row


def row(
    algorithm: str, reward: str, seed: int, after: float | None, direction: str = "maximize"
) -> Row:
    points = [
        Point(reward_queries=queries, mean=mean, ci95=(mean - 1, mean + 1), n=9)
        for queries, mean in ((0, 5.0), (64, after))
        if mean is not None
    ]
    return Row(
        algorithm=algorithm,
        reward=reward,
        seed=seed,
        direction=direction,
        units="kB",
        version="1",
        reward_queries=64,
        before=points[0],
        after=points[1] if after is not None else None,
        curve=points,
        training=[(64, 5.5)],
        stopped=None if after is not None else "too many pictures have no score",
        seconds=1.0,
        command="ddpo compare",
        config_hash="0" * 16,
        commit=None,
        threads=1,
        torch="2",
        machine="some",
        finished="2026-01-01",
    )


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_the_interval_is_students(count: int) -> None:
    values = [math.sin(i) for i in range(count)]
    low, high = stats.t.interval(0.95, count - 1, loc=sum(values) / count, scale=stats.sem(values))
    assert seed_interval(values) == pytest.approx((high - low) / 2, rel=1e-3)


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(seed_interval([1.0]))


def test_the_best_arm_of_each_reward_comes_first_whichever_way_it_goes() -> None:
    rows = [
        row("a", "big", 1, 6.0),
        row("b", "big", 1, 7.0),
        row("b", "big", 2, 8.0),
        row("a", "small", 1, 4.0, "minimize"),
        row("b", "small", 1, 4.5, "minimize"),
        row("c", "small", 1, None, "minimize"),
    ]
    found = results(rows)
    assert [(each.reward, each.arm) for each in found] == [
        ("big", "b"),
        ("big", "a"),
        ("small", "a"),
        ("small", "b"),
        ("small", "c"),
    ]
    assert (found[0].mean, found[0].gain, found[2].gain) == (7.5, 2.5, 1.0)
    assert found[4].stopped == [1]


def test_a_seed_that_stopped_is_told_and_never_counted() -> None:
    rows = [row("a", "big", seed, after) for seed, after in ((2, None), (1, 6.0), (3, 8.0))]
    (found,) = results(rows)
    shown = dict(zip(HEAD, cells(found), strict=True))
    assert shown["after"] == "7"
    assert shown["each seed"] == "6, 8, seed 2 stopped"
    assert shown["95 % over seeds"] == "± 13"
    assert table([found]).count("\n") == 1


def test_an_arm_that_always_stopped_has_no_mean() -> None:
    (found,) = results([row("a", "big", 1, None)])
    shown = dict(zip(HEAD, cells(found), strict=True))
    assert (shown["after"], shown["95 % over seeds"]) == ("", "")
