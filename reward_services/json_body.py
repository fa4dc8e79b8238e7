"""`application/json`: base64 or data URIs of image files, with prompts and metadata."""

import binascii
from typing import Any

import msgspec

from reward_services.payload import MOST_WORDS_BYTES, Demands, Encoded, Payload, assemble
from shared.errors import ImageUnreadable, InvalidRequest, MalformedRequest

MEDIA_TYPE = "application/json"


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """Raw at first: nothing is built before its size is known to be sane."""

    images: msgspec.Raw
    prompts: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"null")


def read(body: memoryview, demands: Demands) -> Payload:
    """Take the body apart; a picture with broken base64 becomes its own item error later.

    Raises:
        MalformedRequest: not JSON.
        InvalidRequest: not the fields that are taken, or counts that differ.
        TooManyItems: more pictures than one request may have.
    """
    try:
        raw = msgspec.json.decode(body, type=_Body)
        # A list of a hundred million empty strings is a small body and a large object.
        demands.check_count(max(1, memoryview(raw.images).tobytes().count(b'"') // 2))
        for name in ("prompts", "metadata"):
            if len(memoryview(getattr(raw, name))) > MOST_WORDS_BYTES:
                raise InvalidRequest(f"`{name}` takes more than {MOST_WORDS_BYTES} bytes")
        images = msgspec.json.decode(raw.images, type=list[msgspec.Raw])
        prompts = msgspec.json.decode(raw.prompts, type=str | list[str] | None)
        metadata = msgspec.json.decode(
            raw.metadata, type=dict[str, Any] | list[dict[str, Any]] | None
        )
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the JSON body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from None
    return assemble([_file(image) for image in images], prompts, metadata, demands)


def _file(raw: msgspec.Raw) -> Encoded:
    def decode() -> bytes:
        try:
            text = msgspec.json.decode(raw, type=str)
            head, comma, data = text.partition(",")
            if comma and head.startswith("data:") and head.endswith(";base64"):
                text = data
            return binascii.a2b_base64(text, strict_mode=True)
        except (msgspec.DecodeError, ValueError):
            raise ImageUnreadable(
                "this picture is neither base64 nor a base64 data URI of an image file"
            ) from None

    return decode
