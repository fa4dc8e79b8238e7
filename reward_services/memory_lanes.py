"""The order in which waiting work is given out, for the queue in memory."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar, get_args

from reward_services.job_queue import Lane


class Waiting(Protocol):
    """What the order depends on."""

    @property
    def size(self) -> int:
        """Items."""
        ...

    @property
    def lane(self) -> Lane:
        """Where it was submitted to."""
        ...


W = TypeVar("W", bound=Waiting)


class MemoryLanes(Generic[W]):
    """What comes again first, then the lanes in turn, each in order of arrival."""

    def __init__(self) -> None:
        self._again: deque[W] = deque()
        self._lanes: dict[Lane, deque[W]] = {lane: deque() for lane in get_args(Lane)}

    def __iter__(self) -> Iterator[W]:
        yield from self._again
        for lane in self._lanes.values():
            yield from lane

    def append(self, work: W) -> None:
        """New work, at the end of its lane."""
        self._lanes[work.lane].append(work)

    def append_again(self, work: W) -> None:
        """Work that comes again, before all that is new."""
        self._again.append(work)

    def discard(self, work: W) -> None:
        """Take work out, if it waits."""
        for waiting in (self._again, self._lanes[work.lane]):
            if work in waiting:
                waiting.remove(work)

    def take(self, room: int | None) -> W | None:
        """The next work, of at most `room` items where that is given."""
        if self._again:
            return self._again.popleft() if _fits(self._again[0], room) else None
        for lane, waiting in self._lanes.items():
            if waiting and _fits(waiting[0], room):
                # The other lane is asked first next time.
                self._lanes[lane] = self._lanes.pop(lane)
                return waiting.popleft()
        return None


def _fits(work: Waiting, room: int | None) -> bool:
    return room is None or work.size <= room
