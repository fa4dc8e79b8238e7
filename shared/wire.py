"""A batch of pictures as safetensors bytes, without copying a pixel on either side.

The format is https://github.com/huggingface/safetensors#format, so any safetensors library can
read and write it: eight bytes with the length of the header (little endian), the header as JSON,
the pixels.

Tensors: `images` uint8 [N,H,W,3], or `images.0` … `images.N-1` uint8 [H,W,3] for mixed sizes.
`__metadata__`: `prompts`, a JSON list of N strings, and optionally `metadata`, a JSON list of N
objects.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shared import strict_json
from shared.errors import BodyTooLarge, InvalidRequest, MalformedRequest
from shared.layout import (
    MAX_HEADER_BYTES,
    PREFIX_BYTES,
    check_counts,
    header_length,
    parse_header,
)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EncodedBatch:
    """A request body: `header`, then every one of `buffers`, views of the `count` pictures."""

    header: bytes
    buffers: list[memoryview]
    count: int

    @property
    def nbytes(self) -> int:
        """Length of the whole body in bytes."""
        return len(self.header) + sum(view.nbytes for view in self.buffers)

    def chunks(self, size: int = 2**20) -> Iterator[memoryview]:
        """The body in order, in pieces of at most `size` bytes."""
        for view in (memoryview(self.header), *self.buffers):
            for start in range(0, view.nbytes, size):
                yield view[start : start + size]


class Batch(NamedTuple):
    """N pictures, views of the body that they came in, with their prompts and metadata."""

    images: list[Pixels]
    prompts: list[str]
    metadata: list[dict[str, Any]]


def encode_batch(
    images: Pixels | Sequence[Pixels],
    prompts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]] | None = None,
) -> EncodedBatch:
    """Lay out a batch as one safetensors body. Pixels are viewed; only strided ones are copied.

    Args:
        images: uint8 [N,H,W,3], or N arrays uint8 [H,W,3] of equal or mixed sizes.
        prompts: one per picture.
        metadata: one JSON object per picture, or None.

    Raises:
        InvalidRequest: wrong dtype or shape, no pictures, counts that differ, or prompts and
            metadata that JSON or UTF-8 cannot hold.
    """
    pictures = _checked_pictures(images)
    check_counts(len(pictures), prompts, metadata)
    strings = _words(prompts, metadata)
    shapes = [picture.shape for picture in pictures]
    stacked = len(set(shapes)) == 1
    tensors = {"images": (len(shapes), *shapes[0])} if stacked else _numbered(shapes)
    header: dict[str, Any] = {"__metadata__": strings}
    start = 0
    for name, shape in tensors.items():
        stop = start + math.prod(shape)
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the pixels aligned to eight bytes
    if len(text) > MAX_HEADER_BYTES:
        raise InvalidRequest(
            f"prompts and metadata take {len(text)} bytes, at most {MAX_HEADER_BYTES} are allowed: "
            "shorten them or send fewer pictures"
        )
    return EncodedBatch(
        len(text).to_bytes(PREFIX_BYTES, "little") + text,
        [picture.data.cast("B") for picture in pictures],
        len(pictures),
    )


def split_batch(
    images: Pixels | Sequence[Pixels],
    prompts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]] | None = None,
    *,
    max_items: int,
    max_body_bytes: int,
) -> list[EncodedBatch]:
    """`encode_batch` in as many bodies as the limits ask for, in order.

    Raises:
        BodyTooLarge: one picture alone is above `max_body_bytes`.
        InvalidRequest: as `encode_batch`.
    """

    def fitting(start: int, stop: int) -> list[EncodedBatch]:
        part = slice(start, stop)
        body = encode_batch(images[part], prompts[part], metadata and metadata[part])
        if body.nbytes <= max_body_bytes:
            return [body]
        if body.count == 1:
            raise BodyTooLarge(
                f"picture {start} takes {body.nbytes} bytes, the service allows {max_body_bytes} "
                "per request: send a smaller picture or raise the service's limit"
            )
        middle = (start + stop) // 2
        return fitting(start, middle) + fitting(middle, stop)

    count = len(images)
    starts = range(0, count, max_items)
    return [part for start in starts for part in fitting(start, min(start + max_items, count))]


def decode_batch(body: bytes | bytearray | memoryview) -> Batch:
    """Read a safetensors body. The pictures are views: they live as long as `body` does.

    Raises:
        MalformedRequest, InvalidRequest: as `parse_header`; also when the body is longer or
            shorter than its header says.
    """
    view = memoryview(body).cast("B")
    start = PREFIX_BYTES + header_length(view)
    if len(view) < start:
        raise MalformedRequest(
            f"the safetensors header claims {start - PREFIX_BYTES} bytes, "
            f"but the body ends after {len(view) - PREFIX_BYTES} of them"
        )
    layout = parse_header(view[PREFIX_BYTES:start])
    if len(view) - start != layout.data_bytes:
        raise MalformedRequest(
            f"the safetensors header describes {layout.data_bytes} bytes of pixels, "
            f"the body has {len(view) - start}"
        )
    pixels = np.frombuffer(view[start:], dtype=np.uint8)
    images = [
        pixels[offset : offset + math.prod(shape)].reshape(shape)
        for shape, offset in zip(layout.shapes, layout.offsets, strict=True)
    ]
    return Batch(images, layout.prompts, layout.metadata)


def _checked_pictures(images: Pixels | Sequence[Pixels]) -> list[Pixels]:
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise InvalidRequest(
            f"images has shape {images.shape}: send uint8 [N,H,W,3], for one picture image[None]"
        )
    pictures = list(images)
    if not pictures:
        raise InvalidRequest("the batch is empty: send at least one picture")
    for index, picture in enumerate(pictures):
        if not isinstance(picture, np.ndarray):
            raise InvalidRequest(
                f"picture {index} is a {type(picture).__name__}: send numpy arrays uint8 [H,W,3]"
            )
        if picture.dtype != np.uint8:
            raise InvalidRequest(
                f"picture {index} has dtype {picture.dtype}: convert floats in [0,1] with "
                "shared.images.to_uint8"
            )
        if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise InvalidRequest(
                f"picture {index} has shape {picture.shape}: send [H,W,3], channels last"
            )
    return [np.ascontiguousarray(picture) for picture in pictures]


def _numbered(shapes: list[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"images.{index}": shape for index, shape in enumerate(shapes)}


def _words(prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InvalidRequest(f"prompt {index} is a {type(prompt).__name__}: send a string")
    strings = {"prompts": strict_json.dumps("prompts", list(prompts))}
    if metadata is not None:
        for index, entry in enumerate(metadata):
            if not isinstance(entry, Mapping):
                raise InvalidRequest(
                    f"metadata {index} is a {type(entry).__name__}: send a JSON object"
                )
        strings["metadata"] = strict_json.dumps("metadata", [dict(entry) for entry in metadata])
    return strings
