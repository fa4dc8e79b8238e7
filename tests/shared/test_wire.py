"""The safetensors codec: exact, without copies, readable by the library, unbreakable by noise."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from shared.errors import BodyTooLarge, InvalidRequest, MalformedRequest
from shared.wire import EncodedBatch, decode_batch, encode_batch, split_batch

Pixels = npt.NDArray[np.uint8]


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[Pixels]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def body_of(batch: EncodedBatch) -> bytes:
    return b"".join(batch.chunks())


SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4)


@given(SIZES, st.data())
def test_what_is_encoded_is_decoded(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    count = len(sizes)
    images = pictures(*sizes)
    text = st.text(max_size=5)
    prompts = data.draw(st.lists(text, min_size=count, max_size=count))
    objects = st.lists(st.dictionaries(text, text, max_size=2), min_size=count, max_size=count)
    metadata = data.draw(st.none() | objects)
    encoded = encode_batch(images, prompts, metadata)
    body = body_of(encoded)
    batch = decode_batch(body)
    assert len(body) == encoded.nbytes
    assert batch.prompts == prompts
    assert batch.metadata == (metadata or [{}] * count)
    for got, sent in zip(batch.images, images, strict=True):
        np.testing.assert_array_equal(got, sent)


def test_a_stack_equals_a_list_of_its_pictures() -> None:
    images = pictures((4, 5), (4, 5))
    assert body_of(encode_batch(np.stack(images), ["a", "b"])) == body_of(
        encode_batch(images, ["a", "b"])
    )


def test_pixels_are_not_copied_on_either_side() -> None:
    images = np.stack(pictures((4, 5), (4, 5)))
    encoded = encode_batch(images, ["a", "b"])
    for view, image in zip(encoded.buffers, images, strict=True):
        assert np.shares_memory(np.frombuffer(view, np.uint8), image)
    body = bytearray(body_of(encoded))
    decoded = decode_batch(body).images
    body[-1] ^= 255
    assert decoded[1][-1, -1, -1] == images[1, -1, -1, -1] ^ 255


def test_strided_pixels_are_sent_in_reading_order() -> None:
    flipped = np.stack(pictures((4, 5)))[:, ::-1, ::-1]
    np.testing.assert_array_equal(
        decode_batch(body_of(encode_batch(flipped, [""]))).images, flipped
    )


def test_chunks_are_bounded_and_complete() -> None:
    encoded = encode_batch(pictures((9, 9), (2, 2)), ["a" * 99, "b"])
    chunks = [bytes(chunk) for chunk in encoded.chunks(50)]
    assert max(map(len, chunks)) == 50
    assert decode_batch(b"".join(chunks)).prompts == ["a" * 99, "b"]


@pytest.mark.parametrize("sizes", [[(4, 5), (4, 5)], [(4, 5), (2, 3)]])
def test_the_library_reads_what_we_write(sizes: list[tuple[int, int]], tmp_path: Any) -> None:
    images = pictures(*sizes)
    path = tmp_path / "batch.safetensors"
    path.write_bytes(body_of(encode_batch(images, ["ä", '"'], [{"k": 1}, {}])))
    with safe_open(path, "np") as file:
        words = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert json.loads(words["prompts"]) == ["ä", '"']
    assert json.loads(words["metadata"]) == [{"k": 1}, {}]
    stacked = len(set(sizes)) == 1
    got = tensors["images"] if stacked else [tensors["images.0"], tensors["images.1"]]
    for mine, theirs in zip(images, got, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("sizes", [[(4, 5), (4, 5)], [(4, 5), (2, 3)]])
def test_we_read_what_the_library_writes(sizes: list[tuple[int, int]]) -> None:
    images = pictures(*sizes)
    stacked = len(set(sizes)) == 1
    tensors = (
        {"images": np.stack(images)}
        if stacked
        else {f"images.{i}": image for i, image in enumerate(images)}
    )
    body = safetensors.numpy.save(tensors, {"prompts": '["a", "b"]'})
    batch = decode_batch(body)
    assert batch.prompts == ["a", "b"]
    for mine, theirs in zip(images, batch.images, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_pixels_are_aligned_as_the_format_asks() -> None:
    for length in range(8):
        header = encode_batch(pictures((1, 1)), ["a" * length]).header
        assert len(header) % 8 == 0


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"for one picture image\[None\]"),
        (np.zeros((0, 4, 4, 3), np.uint8), "the batch is empty"),
        ([], "the batch is empty"),
        (np.zeros((2, 4, 4, 3), np.float32), "shared.images.to_uint8"),
        (np.zeros((2, 3, 4, 4), np.uint8), "channels last"),
        (np.zeros((2, 0, 4, 3), np.uint8), r"send \[H,W,3\]"),
        ([np.zeros((4, 4, 3), np.uint8), [[[0, 0, 0]]]], "picture 1 is a list"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)], r"picture 1 has shape"),
    ],
)
def test_wrong_pictures_are_refused_before_they_are_sent(images: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        encode_batch(images, ["a"] * len(images))


@pytest.mark.parametrize(
    ("prompts", "metadata", "sentence"),
    [
        (["a"], None, "2 pictures but 1 prompts"),
        ("ab", None, "prompts is one string"),
        (["a", None], None, "prompt 1 is a NoneType"),
        (["a", "\ud800"], None, "prompts cannot be sent as JSON"),
        (["a", "b"], [{}], "1 metadata objects"),
        (["a", "b"], [{}, 1], "metadata 1 is a int"),
        (["a", "b"], [{}, {"k": float("nan")}], "metadata cannot be sent as JSON"),
        (["a", "b" * 17_000_000], None, "prompts and metadata take"),
    ],
)
def test_wrong_words_are_refused_before_they_are_sent(
    prompts: Any, metadata: Any, sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        encode_batch(pictures((2, 2), (2, 2)), prompts, metadata)


def test_every_truncation_is_an_error() -> None:
    body = body_of(encode_batch(pictures((2, 3)), ["a"]))
    for length in range(len(body)):
        with pytest.raises(MalformedRequest):
            decode_batch(body[:length])
    with pytest.raises(MalformedRequest, match="describes 18 bytes of pixels, the body has 19"):
        decode_batch(body + b"\0")


BODY = body_of(encode_batch(pictures((2, 3), (1, 1)), ["a cat", "b"], [{"k": 1}, {}]))


@given(st.binary(max_size=64))
def test_noise_raises_only_typed_errors(noise: bytes) -> None:
    with pytest.raises((MalformedRequest, InvalidRequest)):
        decode_batch(noise)


@given(st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(0, 255)), max_size=4))
def test_flipped_bytes_raise_only_typed_errors(flips: list[tuple[int, int]]) -> None:
    body = bytearray(BODY)
    for at, value in flips:
        body[at] = value
    try:
        batch = decode_batch(body)
    except (MalformedRequest, InvalidRequest):
        return
    assert [image.shape[2] for image in batch.images] == [3] * len(batch.prompts)


@pytest.mark.parametrize("max_items", [1, 2, 3, 5, 9])
def test_a_split_keeps_order_and_words(max_items: int) -> None:
    images = pictures((2, 2), (2, 3), (2, 2), (2, 2), (1, 1))
    prompts, metadata = list("abcde"), [{"i": i} for i in range(5)]
    parts = split_batch(images, prompts, metadata, max_items=max_items, max_body_bytes=10_000)
    batches = [decode_batch(body_of(part)) for part in parts]
    assert max(part.count for part in parts) == min(max_items, 5)
    assert [prompt for batch in batches for prompt in batch.prompts] == prompts
    assert [entry for batch in batches for entry in batch.metadata] == metadata
    got = [image for batch in batches for image in batch.images]
    for mine, theirs in zip(images, got, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_split_keeps_to_the_bytes() -> None:
    images = np.stack(pictures(*[(10, 10)] * 7))
    parts = split_batch(images, ["p"] * 7, max_items=7, max_body_bytes=1000)
    assert sum(part.count for part in parts) == 7
    assert max(part.nbytes for part in parts) <= 1000
    assert max(part.count for part in parts) > 1


def test_a_picture_above_the_bytes_is_named() -> None:
    images = pictures((2, 2), (20, 20))
    with pytest.raises(BodyTooLarge, match=r"picture 1 takes .* the service allows 500"):
        split_batch(images, ["a", "b"], max_items=9, max_body_bytes=500)
