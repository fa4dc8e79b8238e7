"""The contract of every broker's notes, run against each of them."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

Opened = Callable[..., AbstractAsyncContextManager[Any]]


async def test_notes_are_put_read_and_deleted(opened: Opened) -> None:
    async with opened() as at:
        notes = at.broker.notes
        assert await notes.get("a") is None
        await notes.put("a", b"\x00\xff", 60)
        await notes.put("b", b"other", 60)
        assert await notes.get("a") == b"\x00\xff"
        await notes.put("a", b"new", 60)
        assert await notes.get("a") == b"new"
        await notes.delete("a")
        await notes.delete("a")
        assert await notes.get("a") is None
        assert await notes.get("b") == b"other"


async def test_notes_have_an_end(opened: Opened) -> None:
    async with opened() as at:
        await at.broker.notes.put("a", b"old", 0.01)
        await asyncio.sleep(0.03)
        assert await at.broker.notes.get("a") is None
