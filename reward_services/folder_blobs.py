"""Pictures in a folder that the API and the workers of one machine share, such as /dev/shm.

A job is one file, written once and mapped by its readers, so that pictures cross no socket and are
copied once. A file's modification time is when it ends.
"""

import asyncio
import contextlib
import mmap
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from reward_services.blobs import Words, letter_name, pixels
from reward_services.scorer import ScoreItem
from shared.errors import BrokerUnavailable

P = ParamSpec("P")
T = TypeVar("T")

SWEEP_EVERY_S = 10.0
TORN_AFTER_S = 600.0
"""A file still being written after so long was left by a process that died."""
_LENGTH_BYTES = 8
_PART = ".part"


class FolderBlobs:
    """`Blobs` in files of `folder` whose names begin with `prefix`.

    A file holds the length of the words, the words, and the pixels of all its pictures.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = quote(prefix, safe="")
        self._swept = float("-inf")

    async def put(self, job_id: str, items: Sequence[ScoreItem], ttl_s: float) -> None:
        """See `Blobs.put`."""
        await _in_thread(self._write, job_id, items, ttl_s)

    async def get(self, job_id: str, first: int, size: int) -> list[ScoreItem] | None:
        """See `Blobs.get`."""
        return await _in_thread(self._read, job_id, first, size)

    async def words(self, job_id: str) -> Words | None:
        """See `Blobs.words`."""
        return await _in_thread(self._read_words, job_id)

    async def drop(self, job_id: str, size: int) -> None:
        """See `Blobs.drop`."""
        del size
        await _in_thread(self._path(job_id).unlink, missing_ok=True)

    async def bury(self, job_id: str, index: int, letter_id: str, ttl_s: float) -> None:
        """See `Blobs.bury`."""
        items = await self.get(job_id, 0, index + 1)
        if items is not None:
            # Blank pictures before it take no room, and its index stays.
            blank = ScoreItem(items[index].image[:0])
            await self.put(letter_name(letter_id), [blank] * index + items[index:], ttl_s)

    async def drop_letter(self, letter_id: str, index: int) -> None:
        """See `Blobs.drop_letter`."""
        await self.drop(letter_name(letter_id), index + 1)

    async def close(self) -> None:
        """See `Blobs.close`."""

    def _path(self, job_id: str) -> Path:
        return self._folder / (self._prefix + quote(job_id, safe=""))

    def _write(self, job_id: str, items: Sequence[ScoreItem], ttl_s: float) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        words = Words.of(items).encode()
        path = self._path(job_id)
        # Readers must see the whole file or none.
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PART}")
        try:
            with open(part, "xb", opener=_private) as file:
                file.write(len(words).to_bytes(_LENGTH_BYTES, "little"))
                file.write(words)
                for item in items:
                    file.write(pixels(item))
            ends = time.time() + ttl_s
            os.utime(part, (ends, ends))
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _read(self, job_id: str, first: int, size: int) -> list[ScoreItem] | None:
        with self._mapped(job_id) as data:
            if data is None:
                return None
            words, start = _words(data)
            sizes = [height * width * channels for height, width, channels in words.shapes]
            start += sum(sizes[:first])
            items = []
            for index in range(first, first + size):
                items.append(words.item(index, data[start : start + sizes[index]]))
                start += sizes[index]
            return items

    def _read_words(self, job_id: str) -> Words | None:
        with self._mapped(job_id) as data:
            return None if data is None else _words(data)[0]

    @contextmanager
    def _mapped(self, job_id: str) -> Iterator[memoryview | None]:
        """The file's content, which stays as long as a picture needs it, or None."""
        try:
            with self._path(job_id).open("rb") as file:
                if os.fstat(file.fileno()).st_mtime <= time.time():
                    yield None
                    return
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            yield None
            return
        yield data

    def _sweep(self) -> None:
        """Remove what has ended; any process that writes does this now and then."""
        if time.monotonic() - self._swept < SWEEP_EVERY_S:
            return
        self._swept = time.monotonic()
        now = time.time()
        for path in self._folder.glob("*"):
            if not path.name.startswith(self._prefix):
                continue
            with contextlib.suppress(FileNotFoundError):
                grace_s = TORN_AFTER_S if path.suffix == _PART else 0.0
                if path.stat().st_mtime + grace_s <= now:
                    path.unlink()


def _words(data: memoryview) -> tuple[Words, int]:
    """The words, and where the pixels begin."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    return Words.decode(bytes(data[_LENGTH_BYTES:start])), start


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except OSError as error:
        raise BrokerUnavailable(
            f"the folder for pictures cannot be used ({error.strerror}): try again later",
            retry_after=2,
        ) from error
