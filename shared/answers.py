"""From an HTTP answer to a checked model, or to the error that it stands for."""

from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from shared.errors import ProtocolError, RewardError, error_from_answer
from shared.retry import parse_retry_after
from shared.schema import (
    REQUEST_ID,
    SCHEMA_VERSION,
    Durations,
    ErrorBody,
    ScoreResponse,
    ServiceInfo,
)

Model = TypeVar("Model", bound=BaseModel)


def refusal(service: str, response: httpx.Response) -> RewardError:
    """The error that any answer other than 200 stands for, named after the service."""
    status = response.status_code
    if status < 400:
        target = response.headers.get("location", "nowhere")
        return ProtocolError(f"{service} answered {status} and points to {target}: use that URL")
    retry_after = parse_retry_after(response.headers.get("retry-after"))
    try:
        body = ErrorBody.model_validate_json(response.content)
    except ValidationError:
        body = ErrorBody(
            code="unknown",
            message=f"HTTP {status} {response.reason_phrase} without a readable reason",
            retryable=False,
            request_id=response.headers.get(REQUEST_ID, ""),
        )
    return error_from_answer(
        status,
        body.code,
        f"{service}: {body.message}",
        retry_after=retry_after,
        request_id=body.request_id,
    )


def read_info(service: str, response: httpx.Response) -> ServiceInfo:
    """What a service says about itself.

    Raises:
        ProtocolError: not the answer of a reward service, or of one with another wire schema.
    """
    info = _parsed(ServiceInfo, service, response)
    if info.schema_version != SCHEMA_VERSION:
        raise ProtocolError(
            f"{service} speaks version {info.schema_version} of the wire schema, this client "
            f"version {SCHEMA_VERSION}: install the same release on both sides"
        )
    return info


def read_scores(service: str, response: httpx.Response, count: int) -> ScoreResponse:
    """The scores of `count` pictures.

    Raises:
        ProtocolError: no such JSON, a score that is not finite, or another number of results.
    """
    scores = _parsed(ScoreResponse, service, response)
    if len(scores.results) != count:
        raise ProtocolError(
            f"{service} answered {len(scores.results)} results for {count} pictures"
        )
    return scores


def joined(parts: list[ScoreResponse]) -> ScoreResponse:
    """One response for the parts of a split request, all of the same reward, in their order."""
    if len(parts) == 1:
        return parts[0]
    return parts[0].model_copy(
        update={
            "results": [result for part in parts for result in part.results],
            "durations": Durations(
                queue_s=max(part.durations.queue_s for part in parts),
                batch_wait_s=max(part.durations.batch_wait_s for part in parts),
                inference_s=sum(part.durations.inference_s for part in parts),
            ),
            "request_id": ",".join(part.request_id for part in parts),
        }
    )


def _parsed(model: type[Model], service: str, response: httpx.Response) -> Model:
    try:
        return model.model_validate_json(response.content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the body"
        raise ProtocolError(
            f"{service} does not answer like a reward service ({model.__name__}, {where}: "
            f"{first['msg']})"
        ) from None
