"""Forms, wherever the pieces that are read happen to end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_services import multipart_body
from reward_services.payload import Demands
from shared.errors import InvalidRequest, MalformedRequest, RewardError, TooManyItems

DEMANDS = Demands(max_items=8, needs_prompt=False)
TYPE = 'multipart/form-data; boundary="frontier"'


def body(*parts: tuple[str, bytes]) -> bytes:
    """A form as RFC 7578 writes it."""
    lines = b""
    for name, content in parts:
        head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        lines += head.encode() + content + b"\r\n"
    return lines + b"--frontier--\r\n"


def files(content_type: str, data: bytes) -> list[bytes]:
    payload = multipart_body.read(content_type, memoryview(data), DEMANDS)
    return [picture() for picture in payload.pictures if callable(picture)]


# Bytes that a parser might take for the boundary, cut anywhere.
TRICKY = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"\r\n--front", b"frontier", b"\0", b"ab"]),
    max_size=12,
).map(b"".join)


@given(st.lists(TRICKY, min_size=1, max_size=4), st.integers(1, 40))
def test_files_come_out_as_they_went_in(contents: list[bytes], piece: int) -> None:
    contents = [each for each in contents if b"\r\n--frontier" not in b"\r\n" + each + b"\r\n"]
    data = body(*[("images", each) for each in contents], ("images", b"last"))
    before, multipart_body.PIECE = multipart_body.PIECE, piece
    try:
        assert files(TYPE, data) == [*contents, b"last"]
    finally:
        multipart_body.PIECE = before


def test_a_file_larger_than_a_piece() -> None:
    content = bytes(range(256)) * 4096
    assert files(TYPE, body(("images", content), ("prompts", b"p"))) == [content]


@given(st.integers(0, 10_000))
def test_a_form_that_breaks_off_anywhere_is_refused(cut: int) -> None:
    data = body(("images", b"PNG"), ("prompts", b"p"))
    cut %= len(data) - len(b"--\r\n")
    with pytest.raises((MalformedRequest, InvalidRequest)):
        files(TYPE, data[:cut])


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(RewardError):
        files(TYPE, noise)


def test_texts_must_be_utf8() -> None:
    with pytest.raises(InvalidRequest, match="`prompts` is not UTF-8"):
        files(TYPE, body(("images", b"x"), ("prompts", b"\xff")))


def test_metadata_comes_once() -> None:
    with pytest.raises(InvalidRequest, match="`metadata` once"):
        files(TYPE, body(("images", b"x"), ("metadata", b"{}"), ("metadata", b"{}")))


def test_a_form_of_many_tiny_fields_is_given_up_early() -> None:
    with pytest.raises(TooManyItems, match="more than 18 fields"):
        files(TYPE, body(*[("x", b"")] * 1000))
