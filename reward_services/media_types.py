"""The three kinds of body that `POST /score` takes, by their Content-Type."""

from reward_services import json_body, multipart_body
from reward_services.payload import Demands, Payload, require_shallow
from shared.errors import UnsupportedMediaType
from shared.schema import SAFETENSORS
from shared.wire import decode_batch

LABELS = {
    multipart_body.MEDIA_TYPE: "multipart",
    json_body.MEDIA_TYPE: "json",
    SAFETENSORS: "safetensors",
}
"""Media types, with their short names for metrics."""


def media_type(content_type: str | None, content_encoding: str | None = None) -> str:
    """The media type that a request names, among the keys of `LABELS`.

    Raises:
        UnsupportedMediaType: none, another, or a compressed one.
    """
    name = (content_type or "").partition(";")[0].strip().lower()
    if name not in LABELS:
        raise UnsupportedMediaType(
            f"Content-Type {name[:80] or '(none)'} is not taken: send {', '.join(LABELS)}"
        )
    if content_encoding and content_encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {content_encoding[:40]} is not taken: send the body as it is"
        )
    return name


def read_payload(content_type: str, body: memoryview, demands: Demands) -> Payload:
    """Take a body apart, without decoding a picture.

    Raises:
        UnsupportedMediaType: see `media_type`.
        MalformedRequest: the body is not what its type says.
        InvalidRequest: readable, but counts or types do not fit.
        TooManyItems: more pictures than one request may have.
    """
    payload = _read(media_type(content_type), content_type, body, demands)
    require_shallow(payload.metadata)
    return payload


def _read(name: str, content_type: str, body: memoryview, demands: Demands) -> Payload:
    if name == json_body.MEDIA_TYPE:
        return json_body.read(body, demands)
    if name == multipart_body.MEDIA_TYPE:
        return multipart_body.read(content_type, body, demands)
    batch = decode_batch(body)
    demands.check_count(len(batch.images))
    return Payload(batch.images, batch.prompts, batch.metadata)
