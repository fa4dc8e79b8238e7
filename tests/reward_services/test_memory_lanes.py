"""The order in which waiting work is given out."""

from dataclasses import dataclass

from reward_services.job_queue import Lane
from reward_services.memory_lanes import MemoryLanes


@dataclass(frozen=True)
class Work:
    name: str
    size: int = 1
    lane: Lane = "bulk"


def lanes(*works: Work) -> MemoryLanes[Work]:
    waiting = MemoryLanes[Work]()
    for work in works:
        waiting.append(work)
    return waiting


def names(waiting: MemoryLanes[Work], count: int, room: int | None = None) -> list[str]:
    taken = [waiting.take(room) for _ in range(count)]
    return ["" if work is None else work.name for work in taken]


def test_nothing_waits() -> None:
    assert lanes().take(None) is None


def test_one_lane_is_in_order() -> None:
    assert names(lanes(Work("a"), Work("b"), Work("c")), 4) == ["a", "b", "c", ""]


def test_lanes_take_turns() -> None:
    bulk = [Work(f"b{n}") for n in range(3)]
    small = [Work(f"i{n}", lane="interactive") for n in range(2)]
    assert names(lanes(*bulk, *small), 5) == ["i0", "b0", "i1", "b1", "b2"]


def test_what_comes_again_is_first_and_not_overtaken() -> None:
    waiting = lanes(Work("a"), Work("b"))
    waiting.append_again(Work("again", 3))
    waiting.append_again(Work("and again"))
    assert names(waiting, 1, room=2) == [""]
    assert names(waiting, 4) == ["again", "and again", "a", "b"]


def test_what_does_not_fit_is_asked_first_next_time() -> None:
    waiting = lanes(Work("large", 4), *(Work(f"i{n}", lane="interactive") for n in range(3)))
    assert names(waiting, 2, room=3) == ["i0", "i1"]
    assert names(waiting, 2) == ["large", "i2"]


def test_work_can_be_taken_out() -> None:
    first, second = Work("first"), Work("second")
    waiting = lanes(first)
    waiting.append_again(second)
    waiting.discard(second)
    waiting.discard(second)
    assert [work.name for work in waiting] == ["first"]
    waiting.discard(first)
    assert list(waiting) == []
