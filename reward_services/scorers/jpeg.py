"""JPEG size as a reward: pictures that compress well, or badly.

Black et al. 2023, "Training Diffusion Models with Reinforcement Learning", §5.1: the size in kB
(1000 bytes) of the picture as a JPEG of quality 95, negated for compressibility. The bytes are
those of Pillow's encoder with its default 4:2:0 chroma subsampling.
"""

import hashlib
import io
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from PIL import Image

from reward_services.scorer import ItemError, Scored, ScoreItem

QUALITY = 95
BYTES_PER_KB = 1000
# The longest side a JPEG header can state.
LONGEST_SIDE = 65535
_DEFINITION = f"jpeg q{QUALITY} 4:2:0 kB={BYTES_PER_KB}"


def jpeg_compressibility() -> "JpegSize":
    """Minus the JPEG size in kB: a smaller file is better."""
    return JpegSize("jpeg_compressibility", sign=-1)


def jpeg_incompressibility() -> "JpegSize":
    """The JPEG size in kB: a larger file is better."""
    return JpegSize("jpeg_incompressibility", sign=1)


class JpegSize:
    """`sign` × size in kB of each picture as a JPEG; `details` carries the size itself."""

    units = "kB"
    direction: Literal["maximize"] = "maximize"
    max_batch_size = 64
    needs_prompt = False

    def __init__(self, name: str, sign: Literal[-1, 1], threads: int | None = None) -> None:
        self.name = name
        self.sign = sign
        self.range = (None, 0.0) if sign < 0 else (0.0, None)
        self.version = encoder_version()
        self._threads = threads or _cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="jpeg")

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One size per item; units kB, the sign as named."""
        # Slices, not single pictures: for small pictures a task costs as much as the encoding.
        step = max(1, len(items) // (4 * self._threads))
        slices = [items[start : start + step] for start in range(0, len(items), step)]
        return [outcome for part in self._pool.map(self._score_slice, slices) for outcome in part]

    def _score_slice(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        return [self._score_one(item.image) for item in items]

    def _score_one(self, image: np.ndarray) -> Scored | ItemError:
        if max(image.shape[:2]) > LONGEST_SIDE:
            return ItemError(f"a JPEG has at most {LONGEST_SIDE} pixels per side")
        size = _measure(image) / BYTES_PER_KB
        return Scored(self.sign * size, {"kB": size})

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def encoder_version() -> str:
    """The definition and what the installed encoder makes of test pictures, as a hash.

    Two machines agree exactly when their encoders write the same bytes.
    """
    rows, columns = np.mgrid[0:48, 0:72]
    smooth = np.stack([rows * 5, columns * 3, rows + columns], axis=-1)
    # A fixed scramble of the indices: busy enough to reach every branch of the encoder.
    busy = np.stack([(rows * 73 + columns * 151) * k % 251 for k in (1, 7, 31)], axis=-1)
    digest = hashlib.sha256(_DEFINITION.encode())
    for pixels in (smooth, busy):
        digest.update(jpeg_bytes(pixels.astype(np.uint8)))
    return f"q{QUALITY}-420-{digest.hexdigest()[:12]}"


def jpeg_bytes(image: np.ndarray) -> bytes:
    """The JPEG that is measured; `image` is uint8 (height, width, 3)."""
    buffer = io.BytesIO()
    _save(image, buffer)
    return buffer.getvalue()


def _save(image: np.ndarray, file: "io.BytesIO | _MemoryFile") -> None:
    Image.fromarray(image).save(file, format="JPEG", quality=QUALITY)  # type: ignore[arg-type]


class _MemoryFile:
    """A file in memory with a real descriptor.

    Pillow encodes into a descriptor without holding the GIL, and into any other object while
    holding it, so only this lets threads encode at the same time.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("jpeg", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def measure(self, image: np.ndarray) -> int:
        """Bytes of `image` as a JPEG."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        _save(image, self)
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)


_local = threading.local()


def _measure(image: np.ndarray) -> int:
    if sys.platform != "linux":
        return len(jpeg_bytes(image))
    file: _MemoryFile | None = getattr(_local, "file", None)
    if file is None:
        file = _local.file = _MemoryFile()
    return file.measure(image)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
