"""Pictures in a folder that the API and the workers of one machine share, such as /dev/shm.

A job is one file, or two that are written at the same time if it is large. Files are written once
and mapped by their readers, so that pictures cross no socket and are copied once. A file's
modification time is when it ends.
"""

import asyncio
import contextlib
import itertools
import mmap
import os
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
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
SPLIT_BYTES = 4 * 1024 * 1024
"""Pictures of so many bytes go into two files: the kernel lets one thread write to a file."""
_LENGTH_BYTES = 8
_PART = ".part"
# No job's file ends like this, as `quote` leaves no plus.
_SECOND = "+2"


class FolderBlobs:
    """`Blobs` in files of `folder` whose names begin with `prefix`.

    A file holds the length of the words, the words, and the pixels of all pictures. The second file
    of a large job holds the pixels of its later pictures instead.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = quote(prefix, safe="")
        self._swept = float("-inf")
        self._writers = ThreadPoolExecutor(4, thread_name_prefix="pictures")

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
        for path in self._paths(job_id):
            await _in_thread(path.unlink, missing_ok=True)

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
        self._writers.shutdown(wait=False)

    def _paths(self, job_id: str) -> tuple[Path, Path]:
        first = self._folder / (self._prefix + quote(job_id, safe=""))
        return first, first.with_name(first.name + _SECOND)

    def _write(self, job_id: str, items: Sequence[ScoreItem], ttl_s: float) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        words = Words.of(items).encode()
        head = [len(words).to_bytes(_LENGTH_BYTES, "little"), words]
        split = _split([item.image.nbytes for item in items])
        first, second = self._paths(job_id)
        ends = time.time() + ttl_s
        files = [(first, head, items[:split]), (second, [], items[split:])]
        writing = [
            (path, self._writers.submit(_write_part, path, beginning, pictures, ends))
            for path, beginning, pictures in files
            if beginning or pictures
        ]
        wait([part for _, part in writing])
        failures = [error for _, part in writing if (error := part.exception())]
        # Who finds the first file must find the second too, so that one is there first.
        for path, part in reversed(writing):
            if not failures:
                part.result().rename(path)
            elif not part.exception():
                part.result().unlink(missing_ok=True)
        if failures:
            raise failures[0]

    def _read(self, job_id: str, first: int, size: int) -> list[ScoreItem] | None:
        path, second = self._paths(job_id)
        with _mapped(path) as data:
            if data is None:
                return None
            words, start = _words(data)
            sizes = [height * width * channels for height, width, channels in words.shapes]
            split = _split(sizes)
            items = [
                words.item(index, data[offset : offset + sizes[index]])
                for index, offset in _offsets(sizes, start, range(split))
                if first <= index < first + size
            ]
        if first + size <= split:
            return items
        with _mapped(second) as rest:
            if rest is None:
                return None
            return items + [
                words.item(index, rest[offset : offset + sizes[index]])
                for index, offset in _offsets(sizes, 0, range(split, len(sizes)))
                if first <= index < first + size
            ]

    def _read_words(self, job_id: str) -> Words | None:
        with _mapped(self._paths(job_id)[0]) as data:
            return None if data is None else _words(data)[0]

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


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview | None]:
    """A file's content, which stays as long as a picture needs it, or None."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime <= time.time():
                yield None
                return
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        yield None
        return
    yield data


def _write_part(path: Path, head: Sequence[bytes], items: Sequence[ScoreItem], ends: float) -> Path:
    """Write a file under another name: readers must see the whole file or none."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        with open(part, "xb", opener=_private) as file:
            file.writelines(head)
            file.writelines(map(pixels, items))
        os.utime(part, (ends, ends))
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def _split(sizes: Sequence[int]) -> int:
    """How many pictures of a job of these sizes lie in its first file."""
    total = sum(sizes)
    if total < SPLIT_BYTES:
        return len(sizes)
    return bisect_left(list(itertools.accumulate(sizes)), total / 2) + 1


def _offsets(sizes: Sequence[int], start: int, part: range) -> Iterator[tuple[int, int]]:
    """The pictures of a file with the offset of each, where the first is at `start`."""
    ends = itertools.accumulate((sizes[index] for index in part), initial=start)
    return zip(part, ends, strict=False)


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
