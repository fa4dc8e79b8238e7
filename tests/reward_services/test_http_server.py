"""Taking a port; how it is closed is seen in test_service.py and tests/test_redis_service.py."""

import socket

import pytest

from reward_services.http_server import address, bind
from reward_services.settings import SettingsError


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "[::1]:")])
def test_a_free_port_is_taken_before_it_is_opened(host: str, url: str) -> None:
    with bind(host, 0) as listener:
        assert url in address(listener)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.getsockname()[:2])


def test_an_address_that_cannot_be_taken_is_named() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SettingsError, match=f"http://127.0.0.1:{taken.getsockname()[1]}"),
    ):
        bind(*taken.getsockname())
    with pytest.raises(SettingsError, match=r"http://192\.0\.2\.1:1"):
        bind("192.0.2.1", 1)
