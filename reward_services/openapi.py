"""What the OpenAPI document says about requests with pictures beyond their Python signature."""

from collections.abc import Set
from typing import Any

from fastapi import FastAPI

from reward_services import json_body, multipart_body
from shared.errors import BY_CODE
from shared.schema import DEADLINE, IDEMPOTENCY_KEY, LANE, REQUEST_ID, SAFETENSORS, ErrorBody

_PROMPT = {"type": "string", "example": "a cat riding a motorcycle"}
_METADATA = {"type": "object", "additionalProperties": True}

_JSON_BODY = {
    "type": "object",
    "required": ["images"],
    "additionalProperties": False,
    "properties": {
        "images": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "string",
                "description": "base64 or base64 data URI of a PNG, JPEG or WebP file",
            },
        },
        "prompts": {
            "oneOf": [_PROMPT, {"type": "array", "items": _PROMPT}, {"type": "null"}],
            "description": "one per picture, or one string for all",
        },
        "metadata": {
            "oneOf": [_METADATA, {"type": "array", "items": _METADATA}, {"type": "null"}],
            "description": "one object per picture, or one for all",
        },
    },
}
_FORM_BODY = {
    "type": "object",
    "required": ["images"],
    "additionalProperties": False,
    "properties": {
        "images": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "PNG, JPEG or WebP files",
        },
        "prompts": {
            "type": "array",
            "items": _PROMPT,
            "description": "one field per picture, or one for all",
        },
        "metadata": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "JSON: a list with one object per picture, or one object for all",
        },
    },
}
_SAFETENSORS_BODY = {
    "type": "string",
    "format": "binary",
    "description": (
        "Tensor `images`, U8 [N,H,W,3], or `images.0`, `images.1`, … U8 [H,W,3] for mixed sizes. "
        "In `__metadata__`: `prompts`, a JSON list of N strings, and optionally `metadata`, a "
        "JSON list of N objects."
    ),
}


def _header(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": schema}


PICTURES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            multipart_body.MEDIA_TYPE: {"schema": _FORM_BODY},
            json_body.MEDIA_TYPE: {"schema": _JSON_BODY},
            SAFETENSORS: {"schema": _SAFETENSORS_BODY},
        },
    },
    "parameters": [
        _header(
            IDEMPOTENCY_KEY,
            "names this request: a repetition gets the stored result, another body 409",
            {"type": "string", "minLength": 1, "maxLength": 255},
        ),
        _header(DEADLINE, "how long the sender waits", {"type": "number", "exclusiveMinimum": 0}),
        _header(
            LANE,
            "the queue to wait in; small requests wait in `interactive` unless told otherwise",
            {"type": "string", "enum": ["interactive", "bulk"]},
        ),
        _header(REQUEST_ID, "shown in logs and in the answer", {"type": "string"}),
    ],
}
"""What `POST /score` and `POST /jobs` take."""

SCORE_ERRORS = (
    "malformed_request",
    "unauthorized",
    "upload_timeout",
    "idempotency_conflict",
    "body_too_large",
    "too_many_items",
    "unsupported_media_type",
    "invalid_request",
    "queue_full",
    "internal",
    "not_ready",
    "draining",
    "broker_unavailable",
    "deadline_exceeded",
)
JOB_ERRORS = tuple(code for code in SCORE_ERRORS if code != "deadline_exceeded")


def ask_for_keys(app: FastAPI, public: Set[str]) -> None:
    """Say in the document that every path needs an API key, except the public ones."""
    describe = app.openapi

    def with_keys() -> dict[str, Any]:
        document = describe()
        scheme = {"type": "http", "scheme": "bearer", "description": "one of REWARD_API_KEYS"}
        document["components"]["securitySchemes"] = {"key": scheme}
        document["security"] = [{"key": []}]
        for path in public & document["paths"].keys():
            for operation in document["paths"][path].values():
                operation["security"] = []
        return document

    app.openapi = with_keys  # type: ignore[method-assign]


def error_answers(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` entry of a route for errors of these machine codes."""
    answers: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status = BY_CODE[code].status
        known = answers.get(status, {}).get("description")
        text = f"`{code}`" if known is None else f"{known}, `{code}`"
        answers[status] = {"model": ErrorBody, "description": text}
    return answers
