"""Telling a repeated request from a key used twice."""

import hashlib
import json

import numpy as np

from reward_services import multipart_body
from reward_services.payload import Payload
from shared.errors import InvalidRequest

LONGEST_KEY = 255
_ROW = 1024


def checked_key(text: str | None, caller: str) -> str | None:
    """The name under which a result is kept: callers cannot meet each other's keys.

    Args:
        text: the header `Idempotency-Key`, if there is one.
        caller: what tells callers apart, such as their credentials.

    Raises:
        InvalidRequest: an empty, overlong or unprintable key.
    """
    if text is None:
        return None
    if not (0 < len(text) <= LONGEST_KEY and text.isascii() and text.isprintable()):
        raise InvalidRequest(f"Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII letters")
    return hashlib.sha256(json.dumps([caller, text]).encode()).hexdigest()


def fingerprint(media_type: str, body: memoryview, payload: Payload) -> str:
    """What is equal for equal requests and differs otherwise."""
    digest = hashlib.sha256(media_type.encode())
    if media_type == multipart_body.MEDIA_TYPE:
        # The boundary changes from one try to the next, so the fields count, not the body.
        words = [payload.prompts, [dict(entry) for entry in payload.metadata]]
        digest.update(json.dumps(words, sort_keys=True).encode())
        for picture in payload.pictures:
            data = picture() if callable(picture) else picture.tobytes()
            digest.update(len(data).to_bytes(8, "little") + data)
    else:
        digest.update(checksum(body))
    return digest.hexdigest()


def checksum(body: memoryview) -> bytes:
    """Condenses megabytes of pixels at the speed of memory, far faster than any hash.

    The body is seen as a table of 64-bit words, of which the sums of all rows and of all columns
    are hashed, with its length and its tail. Changing one word changes the sums, as does moving
    words; it takes intent to keep them all, and a caller can only fool itself.
    """
    digest = hashlib.sha256(len(body).to_bytes(8, "little"))
    whole = len(body) - len(body) % (8 * _ROW)
    table = np.frombuffer(body[:whole], np.uint64).reshape(-1, _ROW)
    digest.update(table.sum(axis=0).data)
    digest.update(table.sum(axis=1).data)
    digest.update(body[whole:])
    return digest.digest()
