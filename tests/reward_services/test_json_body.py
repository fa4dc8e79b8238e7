"""JSON bodies, also those made to hurt."""

import base64
import json
import tracemalloc

import pytest

from reward_services import json_body
from reward_services.payload import MOST_WORDS_BYTES, Demands, Payload
from shared.errors import ImageUnreadable, InvalidRequest, MalformedRequest, TooManyItems

DEMANDS = Demands(max_items=8, needs_prompt=False)
FILE = bytes(range(256))
TEXT = base64.b64encode(FILE).decode()


def read(text: str | bytes) -> Payload:
    data = text.encode() if isinstance(text, str) else text
    return json_body.read(memoryview(data), DEMANDS)


def file(payload: Payload) -> bytes:
    (picture,) = payload.pictures
    assert callable(picture)
    return picture()


@pytest.mark.parametrize("text", [TEXT, f"data:image/png;base64,{TEXT}", f"data:;base64,{TEXT}"])
def test_base64_and_data_uris(text: str) -> None:
    assert file(read(json.dumps({"images": [text]}))) == FILE


def test_slashes_may_be_escaped() -> None:
    escaped = TEXT.replace("/", "\\/")
    assert escaped != TEXT
    assert file(read(f'{{"images": ["{escaped}"]}}')) == FILE


@pytest.mark.parametrize(
    "image", ["", "AAAA=A==", "A" * 5, "ä", "data:image/png,abc", 1, None, ["AAAA"], {"a": 1}]
)
def test_what_is_no_base64_spoils_only_itself(image: object) -> None:
    payload = read(json.dumps({"images": [image, TEXT]}))
    first, second = payload.pictures
    assert callable(first)
    assert callable(second)
    assert second() == FILE
    if image == "":
        assert first() == b""
    else:
        with pytest.raises(ImageUnreadable):
            first()


@pytest.mark.parametrize(
    "text", ["", "[", "nul", '{"images": [NaN]}', "[" * 100_000, '{"images": ["a]}', b"\xff"]
)
def test_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises((MalformedRequest, InvalidRequest)):
        read(text)


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"images": {}}', '{"images": "a"}'])
def test_json_of_another_kind(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read(text)


def test_a_list_of_very_many_pictures_is_refused_before_it_is_built() -> None:
    data = b'{"images": [' + b'"",' * 1_000_000 + b'""]}'
    tracemalloc.start()
    with pytest.raises(TooManyItems, match="1000001 pictures"):
        read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * len(data)


def test_prompts_and_metadata_have_a_limit() -> None:
    long = "x" * (MOST_WORDS_BYTES + 1)
    for name, value in (("prompts", long), ("metadata", {"k": long})):
        with pytest.raises(InvalidRequest, match=name):
            read(json.dumps({"images": [TEXT], name: value}))
