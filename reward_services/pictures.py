"""From a payload to what a scorer takes: each picture an item, or the fault of its own."""

import numpy as np
from numpy.typing import NDArray

from reward_services.payload import Payload, Picture
from reward_services.scorer import ScoreItem
from shared.errors import ImageError, ImageTooLarge
from shared.images import decode_image
from shared.schema import ItemFault


def decode(payload: Payload, *, max_pixels: int, max_bytes: int) -> list[ScoreItem | ItemFault]:
    """Decode every picture, in order.

    Args:
        payload: what to decode.
        max_pixels: most pixels of one picture.
        max_bytes: most bytes that image files may take once decoded, all of a request together:
            a few kilobytes of PNG can hold a gigabyte of one colour.
    """
    room = max_bytes
    decoded: list[ScoreItem | ItemFault] = []
    for picture, prompt, metadata in zip(
        payload.pictures, payload.prompts, payload.metadata, strict=True
    ):
        try:
            image = _pixels(picture, max_pixels, room)
        except ImageError as error:
            decoded.append(ItemFault(code=error.code, message=error.message, retryable=False))
            continue
        if not isinstance(picture, np.ndarray):
            room -= image.nbytes
        decoded.append(ScoreItem(image, prompt, metadata))
    return decoded


def _pixels(picture: Picture, max_pixels: int, room: int) -> NDArray[np.uint8]:
    if not isinstance(picture, np.ndarray):
        if room // 3 < 1:
            raise ImageTooLarge("the pictures before this one fill the request: split it")
        return decode_image(picture(), max_pixels=min(max_pixels, room // 3))
    height, width = picture.shape[:2]
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"the picture has {width} × {height} pixels, at most {max_pixels} are taken"
        )
    return picture
