"""JSON that every reader takes alike: each key once, no NaN, no half of a surrogate pair.

The standard library alone is laxer. A metadata field that one reader takes from the first of two
equal keys and another from the last, or a prompt that cannot be encoded as UTF-8, would otherwise
fail far from where it came in.
"""

import json
from typing import Any, NoReturn

from shared.errors import InvalidRequest, MalformedRequest


def dumps(what: str, value: object) -> str:
    """Text of `value`; `what` names it in errors.

    Raises:
        InvalidRequest: `value` is no JSON, or holds NaN or half of a surrogate pair.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{what} cannot be sent as JSON: {error}") from None
    return text


def loads(what: str, text: bytes | str) -> object:
    """Value of `text`; `what` names it in errors. Bytes must be UTF-8.

    Raises:
        MalformedRequest: `text` is no such JSON.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()  # 1e999 reads as infinity
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"{what} cannot be read as JSON: {error}") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
