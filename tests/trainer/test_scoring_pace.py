"""How long rewards kept a run waiting."""

from trainer.scoring_pace import paces, slowest


def test_what_came_after_the_last_picture() -> None:
    requests = [
        ("fast", 0.0, 1.0),
        ("slow", 0.0, 2.0),
        ("slow", 4.0, 6.0),
        ("fast", 8.0, 9.0),
        ("slow", 8.0, 16.0),
    ]
    found = paces(requests, drawn_at=10.0)
    assert {name: pace.late_s for name, pace in found.items()} == {"fast": 0.0, "slow": 6.0}
    assert {name: pace.tail for name, pace in found.items()} == {"fast": 1.0, "slow": 4.0}
    assert slowest({name: pace.late_s for name, pace in found.items()}) == "slow"


def test_nothing_was_sent() -> None:
    assert paces([], 0.0) == {}


def test_answers_that_took_no_time() -> None:
    assert paces([("a", 1.0, 1.0)], 1.0)["a"].tail == 1.0
