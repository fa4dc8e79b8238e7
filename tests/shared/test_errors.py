"""Every error: its place in the drawn tree, its status and code, and the way back from the wire."""

import re

import pytest

import shared.errors
from shared.errors import (
    BY_CODE,
    BY_STATUS,
    BadGateway,
    DeadlineExceeded,
    ImageError,
    InternalError,
    QueueFull,
    RequestError,
    RewardError,
    ServiceUnavailable,
    ServiceUnreachable,
    error_from_answer,
)


def every_class() -> list[type[RewardError]]:
    found = [value for value in vars(shared.errors).values() if isinstance(value, type)]
    return [cls for cls in found if issubclass(cls, RewardError)]


def drawn_tree() -> dict[str, tuple[str, str]]:
    """Class name to (name of its parent, rest of its line), read from the module's docstring."""
    assert shared.errors.__doc__ is not None
    parents = {0: "RewardError"}
    tree = {}
    for line in shared.errors.__doc__.splitlines():
        match = re.match(r"([│ ]*[├└]── )(\w+)\s+(.*)", line)
        if match:
            depth = len(match[1]) // 4
            tree[match[2]] = (parents[depth - 1], match[3])
            parents[depth] = match[2]
    return tree


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {cls.__name__: cls.__bases__[0].__name__ for cls in every_class()}
    del real["RewardError"]
    assert {name: parent for name, (parent, _) in drawn_tree().items()} == real


def test_the_drawn_tree_names_status_and_code_of_everything_that_a_service_answers() -> None:
    tree = drawn_tree()
    for cls in BY_CODE.values():
        assert tree[cls.__name__][1].startswith(f"{cls.status} {cls.code}"), cls


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in every_class()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", BY_CODE.values())
def test_an_error_comes_back_as_its_own_class(cls: type[RewardError]) -> None:
    error = error_from_answer(cls.status, cls.code, "why", retry_after=2.5, request_id="r1")
    assert type(error) is cls
    assert (error.message, str(error), error.retry_after, error.request_id) == (
        "why",
        "why",
        2.5,
        "r1",
    )


def test_errors_of_the_client_and_of_single_pictures_never_arrive_as_an_answer() -> None:
    assert ServiceUnreachable.code not in BY_CODE
    assert not [cls for cls in BY_CODE.values() if issubclass(cls, ImageError)]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (429, "some_new_code", QueueFull),
        (502, "unknown", BadGateway),
        (503, "unknown", ServiceUnavailable),
        (504, "unknown", DeadlineExceeded),
        (418, "unknown", RequestError),
        (599, "unknown", InternalError),
    ],
)
def test_without_a_known_code_the_status_decides(
    status: int, code: str, expected: type[RewardError]
) -> None:
    assert type(error_from_answer(status, code, "why")) is expected


def test_a_code_that_contradicts_the_status_is_not_believed() -> None:
    assert type(error_from_answer(500, "queue_full", "why")) is InternalError


def test_the_table_of_statuses_agrees_with_the_classes() -> None:
    odd = {status for status, cls in BY_STATUS.items() if cls.status != status}
    assert odd == {403}  # answered by proxies; to the client the same as a wrong key


@pytest.mark.parametrize("cls", every_class())
def test_only_an_unavailable_service_is_worth_another_try(cls: type[RewardError]) -> None:
    assert cls.retryable == issubclass(cls, ServiceUnavailable)
