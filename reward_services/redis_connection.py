"""Connections to one Redis, and what its faults mean to the service.

Two pools, because redis-py closes a connection that is silent for longer than its socket timeout:
a blocking read needs more than its block. Neither retries: a command whose answer was lost may
have been executed, so whoever sent it decides whether repeating is harmless.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from reward_services.redis_reader import RedisReader
from shared.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0
LONGEST_BLOCK_S = 1.0
"""Longest wait in one blocking read; it bounds how long a lost wake-up goes unnoticed."""
MOST_CONNECTIONS = 16


class RedisConnection:
    """Clients for one URL; they connect when they are first used.

    Replies are bytes. To redis-py's types they may be anything, so none are declared.

    Attributes:
        commands: for everything that answers at once.
        blocking: for reads that block for at most `LONGEST_BLOCK_S`.
        reader: for reading megabytes.
    """

    commands: Any
    blocking: Any

    def __init__(self, url: str) -> None:
        self.commands = _client(url, COMMAND_TIMEOUT_S, MOST_CONNECTIONS)
        self.blocking = _client(url, LONGEST_BLOCK_S + 5.0, 1024)
        self.reader = RedisReader(url, COMMAND_TIMEOUT_S)

    async def close(self) -> None:
        """Close every connection."""
        await self.commands.aclose()
        await self.blocking.aclose()
        await self.reader.close()


def _client(url: str, timeout_s: float, most: int) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=most,
        timeout=COMMAND_TIMEOUT_S,
        socket_timeout=timeout_s,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        # Replies of one shape, whatever the server and the library would agree on.
        protocol=2,
    )
    return Redis.from_pool(pool)


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn what Redis or the way to it may raise into the error of a service.

    Raises:
        BrokerUnavailable: the cause is in the log, since it names machines.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        logger.warning("redis: %s: %s", type(error).__name__, error)
        raise BrokerUnavailable("the job queue is away: try again later", retry_after=2) from error
