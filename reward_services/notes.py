"""Small values that the API processes of one service share for a while."""

import time
from collections import OrderedDict
from typing import Protocol

MOST_NOTES = 10_000


class Notes(Protocol):
    """Named values with an end. Every method may raise `shared.errors.BrokerUnavailable`."""

    async def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` under `name` for `ttl_s` seconds, in place of what was there."""
        ...

    async def get(self, name: str) -> bytes | None:
        """What is kept under `name`."""
        ...

    async def delete(self, name: str) -> None:
        """Forget `name`."""
        ...


class MemoryNotes:
    """`Notes` for one process; the oldest of `MOST_NOTES` go first."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    async def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """See `Notes.put`."""
        self._values.pop(name, None)
        self._values[name] = (value, time.monotonic() + ttl_s)
        while len(self._values) > MOST_NOTES:
            self._values.popitem(last=False)

    async def get(self, name: str) -> bytes | None:
        """See `Notes.get`."""
        value, ends = self._values.get(name, (None, 0.0))
        return value if time.monotonic() < ends else None

    async def delete(self, name: str) -> None:
        """See `Notes.delete`."""
        self._values.pop(name, None)
