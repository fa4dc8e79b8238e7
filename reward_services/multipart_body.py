"""`multipart/form-data`: image files as `curl -F` sends them, with prompts and metadata."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from reward_services.payload import MOST_WORDS_BYTES, Demands, Payload, assemble
from shared.errors import InvalidRequest, MalformedRequest, TooManyItems

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MEDIA_TYPE = "multipart/form-data"

# The parser wants `bytes`; pieces keep the copy small.
PIECE = 256 * 1024


def read(content_type: str, body: memoryview, demands: Demands) -> Payload:
    """Take the form apart: `images` (files), `prompts`, `metadata` (JSON).

    Raises:
        MalformedRequest: no form, or one that breaks off.
        InvalidRequest: other fields, or counts that differ.
        TooManyItems: more pictures than one request may have.
    """
    images: list[bytes] = []
    prompts: list[str] = []
    metadata: list[str] = []
    for name, content in _fields(content_type, body, demands):
        if name == "images":
            images.append(content)
        elif name == "prompts":
            prompts.append(_text(name, content))
        elif name == "metadata":
            metadata.append(_text(name, content))
        else:
            raise InvalidRequest(
                f"there is no form field {name[:40]!r}: send `images`, `prompts`, `metadata`"
            )
    # A lone prompt stands for all pictures, as a string in place of a list does in JSON.
    words = None if not prompts else prompts[0] if len(prompts) == 1 else prompts
    return assemble([partial(bytes, file) for file in images], words, _json(metadata), demands)


def _json(texts: Sequence[str]) -> dict[str, Any] | list[dict[str, Any]] | None:
    if not texts:
        return None
    if len(texts) > 1:
        raise InvalidRequest("send `metadata` once: a JSON object for all pictures, or a list")
    try:
        return msgspec.json.decode(texts[0], type=dict[str, Any] | list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the field `metadata` does not fit: {error}") from None


def _text(name: str, content: bytes) -> str:
    if len(content) > MOST_WORDS_BYTES:
        raise InvalidRequest(f"`{name}` takes more than {MOST_WORDS_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"the field `{name}` is not UTF-8") from None


def _fields(content_type: str, body: memoryview, demands: Demands) -> list[tuple[str, bytes]]:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise MalformedRequest("the Content-Type of the form names no boundary")
    # Each picture may come with its prompt; the rest is metadata.
    form = _Form(most=2 * demands.max_items + 2)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        for start in range(0, len(body), PIECE):
            parser.write(bytes(body[start : start + PIECE]))
        parser.finalize()
    except FormParserError as error:
        raise MalformedRequest(f"the form is broken: {error}") from None
    if not form.ended:
        raise MalformedRequest("the form breaks off before its closing boundary")
    return form.fields


class _Form:
    """Collects the parts that the parser reports."""

    def __init__(self, most: int) -> None:
        self.fields: list[tuple[str, bytes]] = []
        self.ended = False
        self._most = most
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._pieces: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.fields) >= self._most:
            raise TooManyItems(f"the form has more than {self._most} fields: split the request")
        self._name = self._value = self._disposition = b""
        self._pieces = []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        self.fields.append((name, b"".join(self._pieces)))

    def _finish(self) -> None:
        self.ended = True
