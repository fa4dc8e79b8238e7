"""The wire models: what they refuse, and that what is sent is what is read."""

import math

import pytest
from pydantic import ValidationError

from shared.schema import Durations, Identity, ItemFault, ItemResult, ScoreResponse, ServiceInfo

FAULT = ItemFault(code="image_unreadable", message="the picture is broken", retryable=False)
INFO = {
    "name": "jpeg",
    "version": "1",
    "units": "kB",
    "direction": "maximize",
    "range": [None, 0.0],
    "max_batch_size": 8,
    "limits": {"max_items": 4, "max_body_bytes": 100, "max_pixels": 9},
}


def response(results: list[ItemResult]) -> ScoreResponse:
    return ScoreResponse(
        reward="jpeg",
        version="1",
        units="kB",
        direction="maximize",
        results=results,
        durations=Durations(queue_s=0.0, batch_wait_s=0.1, inference_s=0.2),
        request_id="r1",
    )


def test_a_response_survives_the_wire() -> None:
    sent = response([ItemResult(score=-1.5, details={"kB": 1.5, "tags": ["a"]}),
                     ItemResult(error=FAULT)])  # fmt: skip
    assert ScoreResponse.model_validate_json(sent.model_dump_json(), strict=True) == sent


@pytest.mark.parametrize("value", [5e-324, 0.1, 1 / 3, -1e308, 123456789.12345679])
def test_a_score_survives_bit_for_bit(value: float) -> None:
    sent = ItemResult(score=value)
    assert ItemResult.model_validate_json(sent.model_dump_json()).score == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_is_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        ItemResult(score=value)


def test_an_item_is_either_a_score_or_an_error() -> None:
    with pytest.raises(ValidationError, match="never both"):
        ItemResult(score=1.0, error=FAULT)
    with pytest.raises(ValidationError, match="never none"):
        ItemResult()


def test_models_are_frozen() -> None:
    result = ItemResult(score=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        result.score = 2.0


def test_identity_is_the_same_in_info_and_response() -> None:
    expected = Identity(name="jpeg", version="1", units="kB", direction="maximize")
    assert ServiceInfo.model_validate(INFO).identity == expected
    assert response([]).identity == expected


def test_unknown_fields_of_a_newer_service_are_ignored() -> None:
    assert ServiceInfo.model_validate(INFO | {"license": "MIT"}).name == "jpeg"


@pytest.mark.parametrize(
    ("field", "value"),
    [("direction", "up"), ("version", ""), ("range", [0.0]), ("max_batch_size", 0)],
)
def test_info_is_checked(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        ServiceInfo.model_validate(INFO | {field: value})


def test_the_difference_of_two_identities_names_only_what_differs() -> None:
    mine = Identity(name="jpeg", version="1", units="kB", direction="maximize")
    theirs = mine.model_copy(update={"version": "2", "direction": "minimize"})
    assert mine.difference(theirs) == "version '1' != '2', direction 'maximize' != 'minimize'"
    assert mine.difference(mine) == ""


def test_durations_are_not_negative() -> None:
    with pytest.raises(ValidationError, match="queue_s"):
        Durations(queue_s=-0.1, batch_wait_s=0.0, inference_s=0.0)
