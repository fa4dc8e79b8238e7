"""Pictures in a folder: whole files or none, and none for ever."""

import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from reward_services import folder_blobs
from reward_services.blobs import pixels
from reward_services.folder_blobs import FolderBlobs
from reward_services.scorer import ScoreItem
from shared.errors import BrokerUnavailable


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "deep" / "blobs", "rw:{x}:")


def items(count: int) -> list[ScoreItem]:
    random = np.random.default_rng(0)
    shapes = [(2 + n, 3 + 2 * n, 3) for n in range(count)]
    return [
        ScoreItem(random.integers(0, 256, shape).astype(np.uint8), f"ä{n}", {"n": n})
        for n, shape in enumerate(shapes)
    ]


def files(blobs: FolderBlobs) -> list[Path]:
    return sorted(blobs._folder.iterdir())


def assert_same(got: list[ScoreItem] | None, expected: list[ScoreItem]) -> None:
    assert got is not None
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert (one.prompt, one.metadata) == (other.prompt, other.metadata)


@pytest.fixture(params=[0, 100, 10**9], ids=["two files each", "two files", "one file"])
def split(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """From how many bytes on a job is two files."""
    monkeypatch.setattr(folder_blobs, "SPLIT_BYTES", request.param)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("job_id", ["a", "a/../b", "ä ü", "x" * 120])
async def test_what_is_written_is_read(blobs: FolderBlobs, job_id: str) -> None:
    await blobs.put(job_id, items(5), 60)
    await blobs.put("other", items(1), 60)
    assert_same(await blobs.get(job_id, 0, 5), items(5))
    for first in range(5):
        for size in range(1, 6 - first):
            got = await blobs.get(job_id, first, size)
            assert_same(got, items(5)[first : first + size])
    words = await blobs.words(job_id)
    assert words is not None
    assert words.prompts == [item.prompt for item in items(5)]
    assert await blobs.get("unknown", 0, 1) is None
    assert await blobs.words("unknown") is None


async def test_half_a_job_is_none(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_blobs, "SPLIT_BYTES", 100)
    await blobs.put("a", items(5), 60)
    first, second = files(blobs)
    assert second.name == f"{first.name}+2"
    second.unlink()
    assert await blobs.get("a", 0, 5) is None
    assert_same(await blobs.get("a", 0, 1), items(5)[:1])


@pytest.mark.usefixtures("split")
async def test_pictures_that_were_read_stay_after_their_file(blobs: FolderBlobs) -> None:
    await blobs.put("a", items(2), 60)
    read = await blobs.get("a", 0, 2)
    await blobs.drop("a", 2)
    await blobs.drop("a", 2)
    assert files(blobs) == []
    assert_same(read, items(2))
    assert read is not None
    assert not read[0].image.flags.writeable


async def test_nobody_else_on_the_machine_may_look(blobs: FolderBlobs) -> None:
    await blobs.put("a", items(1), 60)
    assert stat.S_IMODE(blobs._folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(files(blobs)[0].stat().st_mode) == 0o600


async def test_what_has_ended_is_not_read_and_swept(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_blobs, "SWEEP_EVERY_S", 0.0)
    await blobs.put("old", items(1), 60)
    (old,) = files(blobs)
    os.utime(old, (0, 0))
    assert await blobs.get("old", 0, 1) is None
    foreign = old.with_name("something else")
    foreign.write_text("x")
    os.utime(foreign, (0, 0))
    await blobs.put("new", items(1), 60)
    assert not old.exists()
    assert foreign.exists()


async def test_a_file_that_was_never_finished_is_swept(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_blobs, "SWEEP_EVERY_S", 0.0)
    await blobs.put("a", items(1), 60)
    (whole,) = files(blobs)
    fresh, torn = (whole.with_name(f"{whole.name}.{n}.part") for n in (1, 2))
    fresh.write_bytes(b"")
    torn.write_bytes(b"")
    os.utime(torn, (time.time() - 700,) * 2)
    await blobs.put("b", items(1), 60)
    assert fresh.exists()
    assert not torn.exists()


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("good", [0, 1, 4])
async def test_a_failed_write_leaves_nothing(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    await blobs.put("a", items(5), 60)
    before = files(blobs)

    def full(item: ScoreItem) -> memoryview:
        if item.metadata["n"] < good:
            return pixels(item)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_blobs, "pixels", full)
    with pytest.raises(BrokerUnavailable, match="No space left"):
        await blobs.put("b", items(5), 60)
    assert files(blobs) == before


async def test_the_picture_of_a_dead_letter_takes_no_more_room_than_it_needs(
    blobs: FolderBlobs,
) -> None:
    await blobs.put("a", items(5), 60)
    whole = files(blobs)[0].stat().st_size
    await blobs.bury("a", 3, "5-0", 600)
    await blobs.bury("gone", 3, "6-0", 600)
    await blobs.drop("a", 5)
    (letter,) = files(blobs)
    assert letter.stat().st_size < whole
    assert_same(await blobs.get("dead-5-0", 3, 1), items(5)[3:4])
    await blobs.drop_letter("5-0", 3)
    assert files(blobs) == []
