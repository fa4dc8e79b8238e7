"""What arrives before there is a request, or is none, on a real connection."""

import json
import socket
from typing import Any

import httpx
import pytest

from reward_services.http_protocol import MOST_HEAD_BYTES

HEAD = b"GET /info HTTP/1.1\r\nhost: x\r\n"
SCORE = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = SCORE + b"transfer-encoding: chunked\r\n\r\n"
# More than the kernel keeps between two processes, so that the answer comes before the end.
FAR_TOO_MUCH = 200 * MOST_HEAD_BYTES


def answered(service: Any, *pieces: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to bytes as they are; sending stops when nobody listens."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass  # answered, and closed
        answer = b""
        try:
            while block := connection.recv(65536):
                answer += block
        except ConnectionError:
            pass  # closed while something was still on its way to it
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def endless(piece: bytes) -> list[bytes]:
    return [piece * (MOST_HEAD_BYTES // len(piece))] * (FAR_TOO_MUCH // MOST_HEAD_BYTES)


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD, b"x: ", *endless(b"a")],
        [HEAD, *endless(b"x: a\r\n")],
        [b"GET /", *endless(b"a")],
        [CHUNKED + b"1;", *endless(b"a")],
        [CHUNKED + b"1\r\n{\r\n0\r\nx: ", *endless(b"a")],
    ],
    ids=["one header", "many headers", "the path", "a chunk extension", "a trailer"],
)
def test_nothing_but_a_body_may_be_long(service: Any, pieces: list[bytes]) -> None:
    status, body = answered(service, *pieces)
    assert status == 400
    assert str(MOST_HEAD_BYTES).encode() in body or b"Invalid HTTP" in body
    assert httpx.get(f"{service.url}/info").status_code == 200


def test_a_long_head_below_the_limit_is_taken(service: Any) -> None:
    headers = {f"x-{number}": "a" * 1000 for number in range(50)}
    assert httpx.get(f"{service.url}/info", headers=headers).status_code == 200


def test_a_long_body_is_none_of_its_business(service: Any) -> None:
    """In chunks too; the route tells what is wrong with it."""

    def chunks() -> Any:
        yield from endless(b"x")

    for content in (b"".join(endless(b"x")), chunks()):
        answer = httpx.post(
            f"{service.url}/score", content=content, headers={"content-type": "application/json"}
        )
        assert answer.json()["code"] == "malformed_request"


def test_one_connection_takes_many_requests(service: Any) -> None:
    """The count begins anew with each."""
    with httpx.Client(base_url=service.url, headers={"x": "a" * (MOST_HEAD_BYTES // 4)}) as client:
        assert {client.get("/info").status_code for _ in range(8)} == {200}


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /info HTTP/9.9\r\n\r\n",
        b"CONNECT other:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        HEAD + b"x: a\0b\r\n\r\n",
        SCORE + b"content-length: -1\r\n\r\n",
        SCORE + b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        SCORE + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        SCORE + b"content-length: 1180591620717411303424\r\n\r\n",
        CHUNKED + b"ZZ\r\n",
    ],
    ids=[
        "TLS",
        "HTTP/2",
        "HTTP/9.9",
        "a proxy request",
        "NUL in a header",
        "a negative length",
        "two lengths",
        "a length and chunks",
        "a length of 2**70",
        "a broken chunk",
    ],
)
def test_what_is_no_http_is_answered_400(service: Any, bytes_: bytes) -> None:
    assert answered(service, bytes_)[0] == 400
    assert httpx.get(f"{service.url}/info").status_code == 200


def test_a_body_that_is_announced_too_long_is_refused_unread(service: Any) -> None:
    close = b"connection: close\r\n"
    status, body = answered(service, SCORE + close + b"content-length: 99999999999999\r\n\r\n")
    assert (status, json.loads(body)["code"]) == (413, "body_too_large")
