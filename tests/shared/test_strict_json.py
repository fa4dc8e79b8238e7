"""JSON that every reader takes alike."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import strict_json
from shared.errors import InvalidRequest, MalformedRequest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_what_is_written_is_read(value: object) -> None:
    assert strict_json.loads("it", strict_json.dumps("it", value).encode()) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": 1, "a": 2}', "a key occurs twice"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"-Infinity", "-Infinity is not a JSON number"),
        (b"1e999", "not JSON compliant"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b"\xff", "can't decode byte 0xff"),
        (b"", "Expecting value"),
        (b"[" * 100_000, "recursion"),
        (b"9" * 10_000, "limit"),
    ],
)
def test_what_readers_disagree_on_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(MalformedRequest, match=r"^the field cannot be read as JSON: ") as caught:
        strict_json.loads("the field", text)
    assert reason in caught.value.message


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object(), {1, 2}])
def test_what_is_no_json_is_not_sent(value: object) -> None:
    with pytest.raises(InvalidRequest, match="the field cannot be sent as JSON"):
        strict_json.dumps("the field", value)


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_nothing_else_is_ever_raised(text: bytes | str) -> None:
    try:
        value = strict_json.loads("it", text)
    except MalformedRequest:
        return
    assert json.loads(text) == value
