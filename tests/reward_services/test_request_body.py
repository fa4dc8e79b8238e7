"""Receiving bodies within limits."""

from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from reward_services.metrics import Metrics
from reward_services.request_body import ByteBudget, receive_body
from shared.errors import BodyTooLarge, MalformedRequest, QueueFull


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("s")


@pytest.fixture
def budget(metrics: Metrics) -> ByteBudget:
    return ByteBudget(100, metrics.inflight_bytes)


def request(*chunks: bytes, length: str | None = None, breaks: bool = False) -> Request:
    """A request whose body comes in these chunks."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append(
        {"type": "http.disconnect"} if breaks else {"type": "http.request", "more_body": False}
    )

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = [] if length is None else [(b"content-length", length.encode())]
    return Request({"type": "http", "headers": headers}, receive)


@pytest.mark.parametrize("length", [None, "6"])
async def test_a_body_in_pieces(budget: ByteBudget, length: str | None) -> None:
    with budget.share() as share:
        body = await receive_body(request(b"ab", b"", b"cdef", length=length), 10, share)
        assert bytes(body) == b"abcdef"


@pytest.mark.parametrize("length", [None, "0"])
async def test_an_empty_body(budget: ByteBudget, length: str | None) -> None:
    with budget.share() as share:
        assert bytes(await receive_body(request(length=length), 10, share)) == b""


async def test_a_declared_length_is_refused_before_anything_is_read(budget: ByteBudget) -> None:
    with budget.share() as share, pytest.raises(BodyTooLarge, match="11 bytes, at most 10"):
        await receive_body(request(length="11"), 10, share)


async def test_an_undeclared_length_is_refused_on_the_way(budget: ByteBudget) -> None:
    with budget.share() as share, pytest.raises(BodyTooLarge, match="more bytes, at most 10"):
        await receive_body(request(b"x" * 6, b"x" * 6), 10, share)


@pytest.mark.parametrize("chunks", [[b"abc"], [b"abcd", b"efg"]])
async def test_another_length_than_declared(budget: ByteBudget, chunks: list[bytes]) -> None:
    with budget.share() as share, pytest.raises(MalformedRequest, match="says 5 bytes"):
        await receive_body(request(*chunks, length="5"), 10, share)


@pytest.mark.parametrize("length", ["-1", "1.5", "ten", "٣", ""])
async def test_a_length_that_is_none(budget: ByteBudget, length: str) -> None:
    bad = request()
    bad.scope["headers"] = [(b"content-length", length.encode())]
    with budget.share() as share, pytest.raises(MalformedRequest, match="no number"):
        await receive_body(bad, 10, share)


async def test_a_client_that_leaves(budget: ByteBudget) -> None:
    with budget.share() as share, pytest.raises(ClientDisconnect):
        await receive_body(request(b"ab", length="5", breaks=True), 10, share)


@pytest.mark.parametrize("length", [None, "60"])
async def test_all_requests_together_have_a_limit(
    budget: ByteBudget, metrics: Metrics, length: str | None
) -> None:
    series = 'reward_inflight_bytes{service="s"}'
    with budget.share() as first:
        await receive_body(request(b"x" * 60, length="60"), 1000, first)
        assert f"{series} 60.0" in metrics.text().decode()
        with budget.share() as second, pytest.raises(QueueFull, match="60"):
            await receive_body(request(b"x" * 60, length=length), 1000, second)
    assert f"{series} 0.0" in metrics.text().decode()
    with budget.share() as third:
        await receive_body(request(b"x" * 100, length="100"), 1000, third)
