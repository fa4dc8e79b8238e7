"""One sentence says what a run is bound by."""

from trainer.bottleneck import Bottleneck


def record(sampling: float, waiting: float, updating: float, **more: float) -> dict[str, float]:
    seconds = {"seconds_sampling": sampling, "seconds_reward_wait": waiting}
    return seconds | {"seconds_update": updating} | more


def said(*records: dict[str, float], rewards: tuple[str, ...] = ("jpeg",)) -> str:
    return Bottleneck.of(records, rewards).sentence()


def test_bound_by_the_reward() -> None:
    epochs = record(2, 5, 3, scoring_tail=2.0), record(4, 3, 3, scoring_tail=2.0)
    assert said(*epochs) == (
        "reward-bound: scoring waited 40 % of the epochs: add a worker to jpeg"
    )


def test_a_straggler_is_named() -> None:
    epochs = record(2, 5, 3, scoring_tail=8.0), record(2, 5, 3, scoring_tail=6.0)
    assert "its slowest request took 7.0 times the median: look for a worker" in said(*epochs)


def test_bound_by_the_trainer() -> None:
    assert said(record(6, 0.2, 3.8, scoring_tail=9.0)) == (
        "trainer-bound: sampling took 60 % of the epochs, waiting for scores 2 %"
    )
    assert said(record(3, 0, 7)).startswith("trainer-bound: the update took 70 %")


def test_of_several_rewards_the_slowest_is_named() -> None:
    waits = {"seconds_reward_wait/a": 1.0, "seconds_reward_wait/b": 5.0}
    tails = {"scoring_tail": 4.0, "scoring_tail/a": 9.0, "scoring_tail/b": 4.0}
    found = said(record(2, 5, 3) | waits | tails, rewards=("a", "b"))
    assert "add a worker to b; its slowest request took 4.0 times" in found


def test_records_of_an_older_version() -> None:
    assert said(record(2, 5, 3)).endswith("add a worker to jpeg")
    assert said(record(2, 5, 3), rewards=()).endswith("add a worker to the reward")


def test_no_time_at_all() -> None:
    assert Bottleneck.of([record(0, 0, 0)], ["a"]).waited == 0
