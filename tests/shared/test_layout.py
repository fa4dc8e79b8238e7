"""The header of a safetensors body: every promise is checked, each with its own sentence."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest, MalformedRequest, RewardError
from shared.layout import MAX_HEADER_BYTES, check_counts, header_length, parse_header


def tensor(shape: list[Any], start: int, stop: int, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def header(prompts: Any = ("a", "b"), metadata: Any = None, **tensors: Any) -> bytes:
    strings = {"prompts": json.dumps(prompts)}
    if metadata is not None:
        strings["metadata"] = json.dumps(metadata)
    return json.dumps({"__metadata__": strings, **tensors}).encode()


def test_a_stack_is_cut_into_pictures() -> None:
    layout = parse_header(header(images=tensor([2, 4, 5, 3], 0, 120)))
    assert layout.shapes == [(4, 5, 3), (4, 5, 3)]
    assert layout.offsets == [0, 60]
    assert layout.prompts == ["a", "b"]
    assert layout.metadata == [{}, {}]
    assert layout.data_bytes == 120


def test_mixed_sizes_keep_the_order_of_their_numbers_wherever_they_lie() -> None:
    tensors = {"images.1": tensor([1, 1, 3], 0, 3), "images.0": tensor([2, 1, 3], 3, 9)}
    layout = parse_header(header(metadata=[{"k": 1}, {}], **tensors))
    assert layout.shapes == [(2, 1, 3), (1, 1, 3)]
    assert layout.offsets == [3, 0]
    assert layout.metadata == [{"k": 1}, {}]


def test_eleven_pictures_are_numbered_not_sorted_as_text() -> None:
    tensors = {f"images.{i}": tensor([1, 1, 3], 3 * i, 3 * i + 3) for i in range(11)}
    assert parse_header(header(["p"] * 11, **tensors)).offsets == list(range(0, 33, 3))


IMAGES = tensor([2, 4, 5, 3], 0, 120)


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        (b"{", MalformedRequest, "header cannot be read as JSON"),
        (b"[]", MalformedRequest, "not a JSON object"),
        (b'{"__metadata__": 1}', MalformedRequest, "must map strings to strings"),
        (b'{"__metadata__": {"prompts": 1}}', MalformedRequest, "must map strings to strings"),
        (b"{}", InvalidRequest, "the batch is empty"),
        (json.dumps({"images": IMAGES}).encode(), InvalidRequest, "prompts is missing"),
        (header(images=[]), MalformedRequest, "exactly dtype, shape and data_offsets"),
        (header(images={"dtype": "U8"}), MalformedRequest, "exactly dtype, shape"),
        (header(images=tensor([2, 4, 5, 3], 0, 120, "F32")), InvalidRequest, "'F32': send U8"),
        (header(images=tensor([2, 4, 5, 3], 0, 119)), MalformedRequest, "offsets span 119"),
        (header(images=tensor([2, 4.0, 5, 3], 0, 120)), MalformedRequest, "lists of integers"),
        (header(images=tensor([2, True, 20, 3], 0, 120)), MalformedRequest, "lists of integers"),
        (header(images=tensor([-2, -4, 5, 3], 0, 120)), MalformedRequest, "lists of integers"),
        (header(images=tensor([1] * 9, 0, 1)), MalformedRequest, "short lists"),
        (header(images=tensor([2, 4, 5, 3], 1, 121)), MalformedRequest, "starts at byte 1"),
        (header(images=tensor([2, 3, 4, 5], 0, 120)), InvalidRequest, "channels last"),
        (header(images=tensor([4, 5, 3], 0, 60)), InvalidRequest, "send [N,H,W,3]"),
        (header(images=tensor([0, 4, 5, 3], 0, 0)), InvalidRequest, "nothing empty"),
        (
            header(["a"], **{"images.0": tensor([2, 4, 5, 3], 0, 120)}),
            InvalidRequest,
            "send [H,W,3]",
        ),
        (header(foo=tensor([1, 1, 1, 3], 0, 3)), InvalidRequest, "unexpected tensor 'foo'"),
        (
            header(images=tensor([1, 1, 1, 3], 0, 3), extra=tensor([3], 3, 6)),
            InvalidRequest,
            "unexpected tensor 'extra'",
        ),
        (
            header(**{"images.0": tensor([1, 1, 3], 0, 3), "images.2": tensor([1, 1, 3], 3, 6)}),
            InvalidRequest,
            "without gaps",
        ),
        (
            header(**{"images.0": tensor([1, 1, 3], 0, 3), "images.1": tensor([1, 1, 3], 0, 3)}),
            MalformedRequest,
            "without gap or overlap",
        ),
        (header(["a"], images=IMAGES), InvalidRequest, "2 pictures but 1 prompts"),
        (header("ab", images=IMAGES), InvalidRequest, "prompts must be a JSON list of strings"),
        (header(["a", None], images=IMAGES), InvalidRequest, "must be a JSON list of strings"),
        (header(metadata=[{}], images=IMAGES), InvalidRequest, "but 1 metadata objects"),
        (header(metadata=[1, 2], images=IMAGES), InvalidRequest, "JSON list of objects"),
        (header(metadata={}, images=IMAGES), InvalidRequest, "JSON list of objects"),
    ],
)
def test_each_fault_has_its_own_sentence(
    text: bytes, error: type[RewardError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        parse_header(text)
    assert sentence in caught.value.message


def test_a_billion_claimed_pictures_cost_nothing() -> None:
    count = 2**40
    with pytest.raises(InvalidRequest, match=f"{count} pictures but 2 prompts"):
        parse_header(header(images=tensor([count, 1, 1, 3], 0, 3 * count)))


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER_BYTES + 1, 2**64 - 1])
def test_the_length_of_the_header_is_bounded(length: int) -> None:
    with pytest.raises(MalformedRequest, match=f"claims {length} bytes"):
        header_length(length.to_bytes(8, "little"))


def test_a_body_shorter_than_the_length_of_its_header() -> None:
    with pytest.raises(MalformedRequest, match="has 7 bytes"):
        header_length(bytes(7))


def test_one_string_is_not_a_list_of_prompts() -> None:
    with pytest.raises(InvalidRequest, match="prompts is one string"):
        check_counts(3, "cat", None)


NUMBERS = st.integers(-1, 9) | st.floats() | st.none() | st.just(2**70)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "I8", 1]),
        "shape": st.lists(NUMBERS, max_size=5) | st.none(),
        "data_offsets": st.lists(NUMBERS, max_size=3),
    }
)
NAMES = st.sampled_from(["images", "images.0", "images.1", "images.01", "__metadata__", "x"])
STRINGS = st.dictionaries(
    st.sampled_from(["prompts", "metadata"]), st.sampled_from(['["a"]', '["a","b"]', "[{}]", "1"])
)


@given(st.dictionaries(NAMES, ENTRIES | STRINGS | st.integers(), max_size=4))
def test_no_header_raises_anything_but_a_request_error(value: dict[str, Any]) -> None:
    try:
        layout = parse_header(json.dumps(value).encode())
    except (MalformedRequest, InvalidRequest):
        return
    assert len(layout.shapes) == len(layout.prompts) == len(layout.offsets)
