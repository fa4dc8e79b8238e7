"""The header of a safetensors body: which pictures it promises, and where each of them lies.

Parsed by hand, because a service must know the number of pictures before it makes room for their
pixels, and because the library copies every tensor. Every promise is checked: nothing that a
header claims is allocated before it is known to fit the body and the prompts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from shared import strict_json
from shared.errors import InvalidRequest, MalformedRequest

PREFIX_BYTES = 8
MAX_HEADER_BYTES = 16 * 2**20
"""Bound on the JSON header. Far above any real batch, far below what would hurt to parse."""


class Layout(NamedTuple):
    """What the header promises: per picture its shape and the offset of its first byte."""

    shapes: list[tuple[int, int, int]]
    offsets: list[int]
    prompts: list[str]
    metadata: list[dict[str, Any]]
    data_bytes: int


def header_length(prefix: bytes | bytearray | memoryview) -> int:
    """Length in bytes of the JSON header, from the first eight bytes of a body.

    Raises:
        MalformedRequest: fewer than eight bytes, or a length outside 2 … `MAX_HEADER_BYTES`.
    """
    if len(prefix) < PREFIX_BYTES:
        raise MalformedRequest(
            f"the safetensors body has {len(prefix)} bytes, too few for the length of its header"
        )
    length = int.from_bytes(bytes(prefix[:PREFIX_BYTES]), "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise MalformedRequest(
            f"the safetensors header claims {length} bytes, allowed are 2 to {MAX_HEADER_BYTES}"
        )
    return length


def parse_header(text: bytes | bytearray | memoryview) -> Layout:
    """What a body holds, from its JSON header alone, before any pixel is there.

    Raises:
        MalformedRequest: the header is no safetensors header, or its offsets do not tile the data.
        InvalidRequest: a tensor that is not expected, a wrong dtype or shape, no pictures, or
            prompts or metadata that do not match them.
    """
    header = strict_json.loads("the safetensors header", bytes(text))
    if not isinstance(header, dict):
        raise MalformedRequest("the safetensors header is not a JSON object")
    strings = header.pop("__metadata__", {})
    if not isinstance(strings, dict) or not all(isinstance(v, str) for v in strings.values()):
        raise MalformedRequest("__metadata__ in the safetensors header must map strings to strings")
    tensors = {name: _tensor(name, raw) for name, raw in header.items()}
    data_bytes = _tiled_bytes(tensors)
    count = _count(tensors)
    prompts, metadata = _words_of(strings)
    # Before the lists are built: a header of 100 bytes can claim a billion pictures.
    check_counts(count, prompts, metadata)
    shapes, offsets = _pictures_of(tensors)
    return Layout(
        shapes,
        offsets,
        prompts,
        [{} for _ in prompts] if metadata is None else metadata,
        data_bytes,
    )


def check_counts(
    count: int, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None
) -> None:
    """One prompt per picture, and one metadata object per picture or none at all.

    Raises:
        InvalidRequest: the counts differ.
    """
    if isinstance(prompts, str):
        raise InvalidRequest("prompts is one string: send a list with one prompt per picture")
    if len(prompts) != count:
        raise InvalidRequest(f"{count} pictures but {len(prompts)} prompts: send one per picture")
    if metadata is not None and len(metadata) != count:
        raise InvalidRequest(
            f"{count} pictures but {len(metadata)} metadata objects: send one per picture, or none"
        )


class _Tensor(NamedTuple):
    """One entry of the header: its shape, its first byte and the one past its last."""

    shape: list[int]
    start: int
    stop: int


def _tensor(name: str, raw: object) -> _Tensor:
    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise MalformedRequest(f"tensor {name!r} must have exactly dtype, shape and data_offsets")
    if raw["dtype"] != "U8":
        raise InvalidRequest(f"tensor {name!r} has dtype {raw['dtype']!r}: send U8 (uint8)")
    shape, span = raw["shape"], raw["data_offsets"]
    if not _is_counts(shape) or not _is_counts(span) or len(span) != 2:
        raise MalformedRequest(
            f"tensor {name!r}: shape and data_offsets must be short lists of integers"
        )
    if span[1] - span[0] != math.prod(shape):
        raise MalformedRequest(
            f"tensor {name!r} has shape {shape} = {math.prod(shape)} bytes, "
            f"but its offsets span {span[1] - span[0]}"
        )
    return _Tensor(shape, span[0], span[1])


def _is_counts(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 4
        and all(type(n) is int and 0 <= n < 2**53 for n in value)
    )


def _tiled_bytes(tensors: dict[str, _Tensor]) -> int:
    """Bytes of all pixels, once it is certain that the tensors lie side by side."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][1:]):
        if tensor.start != end:
            raise MalformedRequest(
                f"tensor {name!r} starts at byte {tensor.start} of the pixels, expected {end}: "
                "tensors must follow each other without gap or overlap"
            )
        end = tensor.stop
    return end


def _count(tensors: dict[str, _Tensor]) -> int:
    """Number of pictures that the names and shapes of the tensors stand for."""
    if not tensors:
        raise InvalidRequest("the batch is empty: send `images` [N,H,W,3] with N >= 1")
    if set(tensors) == {"images"}:
        _picture_shape("images", tensors["images"].shape, 4)
        return tensors["images"].shape[0]
    stray = set(tensors) - {f"images.{index}" for index in range(len(tensors))}
    if stray:
        raise InvalidRequest(
            f"unexpected tensor {min(stray)!r} among {len(tensors)}: send `images` alone, or "
            "`images.0`, `images.1`, … without gaps"
        )
    return len(tensors)


def _pictures_of(tensors: dict[str, _Tensor]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Shape and first byte of every picture, in the order of the request."""
    if set(tensors) == {"images"}:
        stack = tensors["images"]
        shape = _picture_shape("images", stack.shape, 4)
        return [shape] * stack.shape[0], list(range(0, stack.stop, math.prod(shape)))
    names = [f"images.{index}" for index in range(len(tensors))]
    shapes = [_picture_shape(name, tensors[name].shape, 3) for name in names]
    return shapes, [tensors[name].start for name in names]


def _picture_shape(name: str, shape: list[int], rank: int) -> tuple[int, int, int]:
    """[H,W,3], given a shape [N,H,W,3] (rank 4) or [H,W,3] (rank 3)."""
    if len(shape) != rank or shape[-1] != 3 or 0 in shape:
        wanted = "[N,H,W,3]" if rank == 4 else "[H,W,3]"
        raise InvalidRequest(
            f"tensor {name!r} has shape {shape}: send {wanted}, channels last, nothing empty"
        )
    return shape[-3], shape[-2], 3


def _words_of(strings: dict[str, str]) -> tuple[list[str], list[dict[str, Any]] | None]:
    """Prompts and metadata from the strings of the header."""
    if "prompts" not in strings:
        raise InvalidRequest("__metadata__.prompts is missing: send a JSON list of strings")
    prompts = strict_json.loads("__metadata__.prompts", strings["prompts"])
    if not isinstance(prompts, list) or not all(isinstance(p, str) for p in prompts):
        raise InvalidRequest("__metadata__.prompts must be a JSON list of strings")
    if "metadata" not in strings:
        return prompts, None
    metadata = strict_json.loads("__metadata__.metadata", strings["metadata"])
    if not isinstance(metadata, list) or not all(isinstance(m, dict) for m in metadata):
        raise InvalidRequest("__metadata__.metadata must be a JSON list of objects")
    return prompts, metadata
