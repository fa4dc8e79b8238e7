"""One address of a reward service, and what may be asked there."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

from shared import answers
from shared.errors import InvalidRequest, InvalidServiceUrl, ProtocolError, ServiceUnreachable
from shared.schema import (
    DEADLINE,
    IDEMPOTENCY_KEY,
    SAFETENSORS,
    ScoreResponse,
    ServiceInfo,
)
from shared.wire import EncodedBatch

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 4.0
"""Below the five seconds after which uvicorn closes an idle connection: a request sent at that
very moment would be lost and tried again."""


class Endpoint:
    """Sends one request at a time as often as it is asked to, and tries nothing again.

    Args:
        url: address such as `http://localhost:8001`.
        api_key: sent as bearer token.
        transport: replaces the network.
        max_connections: pooled connections.

    Raises:
        InvalidServiceUrl: `url` is not an http(s) address.
        InvalidRequest: the key cannot be sent.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        transport: httpx.AsyncBaseTransport | None,
        max_connections: int,
    ) -> None:
        self.url = _checked_url(url)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=_headers(api_key),
            transport=transport,
            # The caller's deadline bounds everything but the connect, where another try may help
            # earlier.
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=max_connections, keepalive_expiry=KEEPALIVE_S),
            trust_env=False,
        )

    async def info(self) -> ServiceInfo:
        """What the service says about itself.

        Raises:
            ServiceUnavailable, RequestError, ContractError: see `shared.errors`.
        """
        return answers.read_info(self.url, await self._request("GET", "/info", {}, None))

    async def score(self, part: EncodedBatch, key: str, left_s: float) -> ScoreResponse:
        """One result per picture of `part`, in order.

        Args:
            part: the body.
            key: names this request for the service, which answers a repetition from its store.
            left_s: seconds for which the answer is still wanted.

        Raises:
            ServiceUnavailable, RequestError, ContractError: see `shared.errors`.
        """
        headers = {
            "Content-Type": SAFETENSORS,
            # Given, so that the body is not sent chunked: the service can refuse it unread.
            "Content-Length": str(part.nbytes),
            IDEMPOTENCY_KEY: key,
            DEADLINE: f"{left_s:.3f}",
        }
        response = await self._request("POST", "/score", headers, _stream(part))
        return answers.read_scores(self.url, response, part.count)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        content: AsyncIterator[bytes] | None,
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, headers=headers, content=content)
        except httpx.LocalProtocolError:
            raise  # a bug on this side, which no other try cures
        except httpx.DecodingError as error:
            raise ProtocolError(
                f"{self.url} sent a body that cannot be unpacked: {error}"
            ) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachable(
                f"{self.url} cannot be reached ({reason}): is it running?"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise answers.refusal(self.url, response)
        return response


async def _stream(part: EncodedBatch) -> AsyncIterator[bytes]:
    """The body in pieces of 1 MB: whole, httpx and the socket would copy the rest at every send."""
    for chunk in part.chunks():
        yield bytes(chunk)


def _headers(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    if not api_key.isascii() or not api_key.isprintable() or not api_key.strip():
        raise InvalidRequest("the API key must be printable ASCII characters: check for line ends")
    return {"Authorization": f"Bearer {api_key}"}


def _checked_url(url: str) -> str:
    """`url` without a slash at its end."""
    example = "write it like http://localhost:8001"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for anything but a port number
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidServiceUrl(f"reward service URL {url!r}: {error}; {example}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(map(str.isspace, url)):
        raise InvalidServiceUrl(f"reward service URL {url!r} is no http(s) address: {example}")
    if parts.query or parts.fragment or parts.username is not None:
        raise InvalidServiceUrl(
            f"reward service URL at {parts.hostname!r} has a user, query or fragment: {example} "
            "and give a key as api_key"
        )
    return url.rstrip("/")
