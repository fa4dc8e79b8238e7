"""Pictures as CLIP sees them: the Pillow image processor of transformers, to the last bit, faster.

The picture is resized and cropped as the processor does it. Scaling and normalising then have only
256 results per channel, which the processor itself computes once, so uint8 travels to the device.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

from reward_services.models import weights
from reward_services.options import SetupError
from reward_services.scorer import ItemError

LONGEST_TO_SHORTEST = 32
"""Only the middle square of a picture is seen. Of a longer one it would be next to nothing, and
resizing it would take its length times the model's side in memory."""

_LEVELS = 256
_THREADS = 8


def refusal(image: NDArray[np.uint8]) -> ItemError | None:
    """Why CLIP cannot judge a picture, if so."""
    height, width = image.shape[:2]
    if max(height, width) <= LONGEST_TO_SHORTEST * min(height, width):
        return None
    message = (
        f"the picture is {width}x{height}: one side may be at most {LONGEST_TO_SHORTEST} times "
        "the other, as only the middle square is judged"
    )
    return ItemError(message, code="aspect_ratio")


class ClipPixels:
    """The preprocessing that the folder of a model asks for.

    Raises:
        SetupError: the folder has none, or another than CLIP's.
    """

    def __init__(self, folder: Path) -> None:
        processor = weights.load(CLIPImageProcessorPil, folder)
        crop, edge = processor.crop_size, processor.size.get("shortest_edge")
        steps = (processor.do_resize, processor.do_center_crop, processor.do_rescale)
        if not (all(steps) and processor.do_normalize and edge) or processor.do_pad:
            raise SetupError(f"{folder} does not preprocess pictures as CLIP does")
        if max(crop["height"], crop["width"]) > edge:
            raise SetupError(f"{folder} crops {dict(crop)} from pictures of {edge} pixels")
        self._edge: int = edge
        self._height, self._width = crop["height"], crop["width"]
        self._resample = Image.Resampling(processor.resample)
        self._table = _table(processor)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _THREADS
        self._pool = ThreadPoolExecutor(min(cores, _THREADS), thread_name_prefix="resize")

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Pictures uint8 [H,W,3] of any sizes, resized and cropped: uint8 [N,3,side,side]."""
        return torch.from_numpy(np.stack(list(self._pool.map(self._crop, images))))

    def values(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """What `prepare` gave, on any device, as the input of the model."""
        if self._table.device != pixels.device:
            self._table = self._table.to(pixels.device)
        channels = torch.arange(3, device=pixels.device)[:, None, None]
        return self._table[channels, pixels.int()].to(dtype)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        short, long = min(height, width), max(height, width)
        stretched = int(self._edge * long / short)
        size = (self._edge, stretched) if width <= height else (stretched, self._edge)
        resized = np.asarray(Image.fromarray(image).resize(size, self._resample))
        top = (size[1] - self._height) // 2
        left = (size[0] - self._width) // 2
        return resized[top : top + self._height, left : left + self._width].transpose(2, 0, 1)


def _table(processor: CLIPImageProcessorPil) -> Tensor:
    """The model's input for each channel and level, float32 [3,256]."""
    ramp = np.broadcast_to(np.arange(_LEVELS, dtype=np.uint8), (3, 1, _LEVELS))
    scaled = processor.rescale(ramp, processor.rescale_factor)
    values = processor.normalize(scaled, processor.image_mean, processor.image_std)
    return torch.from_numpy(np.ascontiguousarray(values[:, 0], dtype=np.float32))
