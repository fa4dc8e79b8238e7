"""JPEG sizes: the published numbers, Pillow's bytes, and many threads."""

import io
import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reward_services import ItemError, Scored, ScoreItem
from reward_services.scorers import jpeg
from reward_services.scorers.jpeg import JpegSize, jpeg_compressibility, jpeg_incompressibility
from shared.images import to_uint8

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "golden" / "jpeg.json").read_text(encoding="utf-8")
)


@pytest.fixture
def compressibility() -> Iterator[JpegSize]:
    scorer = jpeg_compressibility()
    yield scorer
    scorer.close()


@pytest.fixture
def incompressibility() -> Iterator[JpegSize]:
    scorer = jpeg_incompressibility()
    yield scorer
    scorer.close()


def golden_image(case: dict[str, Any]) -> np.ndarray:
    """The picture of a golden case, from the formula in its provenance; uint8 (H, W, 3)."""
    height, width, k = case["H"], case["W"], case["k"]
    y, x = np.mgrid[0:height, 0:width]
    if case["kind"] == "gradient":
        planes = [x * 255 // (width - 1), y * 255 // (height - 1), ((x + y) * k) % 256]
    elif case["kind"] == "checker":
        c = ((x // k + y // k) % 2) * 255
        planes = [c, 255 - c, c // 2]
    elif case["kind"] == "sine":
        b = np.sin(2 * math.pi * x / (10 + k)) * np.cos(2 * math.pi * y / (13 + k))
        waves = [127.5 + 100 * b, 127.5 - 60 * b, 127.5 + 127.5 * b**2]
        planes = [np.round(wave).clip(0, 255) for wave in waves]
    else:
        return splitmix(height * width * 3, k).reshape(height, width, 3)
    return np.stack(planes, axis=-1).astype(np.uint8)


def splitmix(count: int, offset: int) -> np.ndarray:
    """The last byte of splitmix64 of each index."""
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(offset) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) & np.uint64(255)).astype(np.uint8)


def scores(scorer: JpegSize, images: list[np.ndarray]) -> list[float]:
    outcomes = scorer.score([ScoreItem(image) for image in images])
    assert all(isinstance(outcome, Scored) for outcome in outcomes)
    return [outcome.score for outcome in outcomes if isinstance(outcome, Scored)]


def pillow_kb(image: np.ndarray) -> float:
    """The oracle: Pillow, called as its documentation shows."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return len(buffer.getvalue()) / 1000


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["kind"]))
def test_golden(
    case: dict[str, Any], compressibility: JpegSize, incompressibility: JpegSize
) -> None:
    image = golden_image(case)
    assert int(image.sum()) == case["sum"], "the picture was built differently"
    assert scores(compressibility, [image]) == [case["jpeg_compressibility"]]
    assert scores(incompressibility, [image]) == [case["jpeg_incompressibility"]]


def test_golden_from_floats(compressibility: JpegSize) -> None:
    """Rounded, not truncated, on the way to uint8."""
    c, y, x = np.mgrid[0:3, 0:32, 0:32]
    ramp = (((c * 1024 + y * 32 + x) % 523 - 5) / 512).astype(np.float32)
    image = to_uint8(ramp.transpose(1, 2, 0))
    assert scores(compressibility, [image]) == [GOLDEN["float_ramp"]["compressibility"]]


SHAPES = [(1, 1), (1, 257), (255, 1), (7, 9), (16, 16), (17, 33), (64, 64), (300, 200)]


@pytest.mark.parametrize("path", ["descriptor", "buffer"])
def test_the_same_bytes_as_pillow_at_odd_sizes(
    path: str, compressibility: JpegSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "buffer":
        monkeypatch.setattr("reward_services.scorers.jpeg.sys.platform", "elsewhere")
    elif sys.platform != "linux":
        pytest.skip("only Linux has memory files")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    assert scores(compressibility, images) == [-pillow_kb(image) for image in images]


def test_a_view_into_a_larger_buffer_scores_as_its_copy(compressibility: JpegSize) -> None:
    rng = np.random.default_rng(1)
    large = rng.integers(0, 256, (40, 40, 3), np.uint8)
    view = large[3:35, 5:37]
    assert scores(compressibility, [view]) == scores(compressibility, [view.copy()])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 13, 64])
def test_order_and_batch_mates(threads: int, count: int) -> None:
    rng = np.random.default_rng(count)
    images = [rng.integers(0, 256, (8 + index, 16, 3), np.uint8) for index in range(count)]
    scorer = JpegSize("jpeg_compressibility", sign=-1, threads=threads)
    together = scores(scorer, images)
    alone = [score for image in images for score in scores(scorer, [image])]
    scorer.close()
    assert together == alone == [-pillow_kb(image) for image in images]


def test_a_small_picture_after_a_large_one(compressibility: JpegSize) -> None:
    """The memory file is used again, so what the last picture left in it must not count."""
    rng = np.random.default_rng(2)
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    large = rng.integers(0, 256, (256, 256, 3), np.uint8)
    for _ in range(3):
        assert scores(compressibility, [large, small]) == [-pillow_kb(large), -pillow_kb(small)]


def test_details_and_signs(compressibility: JpegSize, incompressibility: JpegSize) -> None:
    item = ScoreItem(np.zeros((64, 64, 3), np.uint8))
    (less,), (more,) = compressibility.score([item]), incompressibility.score([item])
    assert isinstance(less, Scored)
    assert isinstance(more, Scored)
    assert less.score == -more.score < 0
    assert less.details == more.details == {"kB": more.score}
    assert compressibility.range == (None, 0.0)
    assert incompressibility.range == (0.0, None)


def test_what_jpeg_cannot_hold_is_an_item_error(compressibility: JpegSize) -> None:
    long = np.zeros((1, jpeg.LONGEST_SIDE + 1, 3), np.uint8)
    fine = np.zeros((4, 4, 3), np.uint8)
    first, second = compressibility.score([ScoreItem(long), ScoreItem(fine)])
    assert isinstance(first, ItemError)
    assert isinstance(second, Scored)


def test_the_version_names_definition_and_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    version = jpeg.encoder_version()
    assert version == jpeg.encoder_version()
    assert version.startswith("q95-420-")
    monkeypatch.setattr(jpeg, "QUALITY", 94)
    assert jpeg.encoder_version().removeprefix("q94") != version.removeprefix("q95")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has memory files")
def test_encoding_lets_other_threads_run() -> None:
    """While one large picture is encoded, this thread goes on: the GIL is not held."""
    image = np.random.default_rng(3).integers(0, 256, (2048, 2048, 3), np.uint8)
    scorer = JpegSize("jpeg_compressibility", sign=-1, threads=1)
    begun, ended = threading.Event(), threading.Event()

    def encode() -> None:
        begun.set()
        scorer.score([ScoreItem(image)] * 8)
        ended.set()

    thread = threading.Thread(target=encode)
    thread.start()
    begun.wait()
    turns = 0
    while not ended.is_set():
        time.sleep(0.0005)
        turns += 1
    thread.join()
    scorer.close()
    # Holding the GIL, each picture would let this thread run about once.
    assert turns > 24
