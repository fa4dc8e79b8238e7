"""The Lua scripts of the queue: each is one step that happens wholly or not at all."""

from functools import cache
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from reward_services.dead_letters import LETTER_TTL_S, MOST_LETTERS
from reward_services.job_queue import QueueLimits, Throughput, given_up
from reward_services.redis_connection import RedisConnection, broker_errors

GROUP = "workers"
GRACE_S = 60.0
"""How long keys of a job outlive its deadline."""
SHARED_TTL_S = 3600.0
"""How long the keys that all jobs share outlive the last use."""
FETCH_TTL_S = 120.0
"""How long an outcome waits for the API process that was told of it."""
API_SILENT_AFTER_S = 30.0
"""When the room reserved by an API process is given back unless it has shown life."""

Argument = str | bytes | int | float


class RedisScripts:
    """Runs the scripts of one queue on its keys."""

    def __init__(self, connection: RedisConnection, reward: str, limits: QueueLimits) -> None:
        self.prefix = key_prefix(reward)
        self._client = connection.commands
        self._constants = _constants(limits)
        self._hashes: dict[str, str] = {}

    async def run(self, name: str, *arguments: Argument) -> Any:
        """Run `lua/<name>.lua`.

        Raises:
            BrokerUnavailable: whether it has run is not known.
        """
        with broker_errors():
            known = self._hashes.get(name)
            if known is not None:
                try:
                    return await self._client.evalsha(known, 1, self.prefix, *arguments)
                except NoScriptError:
                    pass
            text = self._constants + _text(name)
            self._hashes[name] = await self._client.script_load(text)
            return await self._client.evalsha(self._hashes[name], 1, self.prefix, *arguments)


def key_prefix(reward: str) -> str:
    """What all keys of a reward begin with; the braces keep them in one slot of a cluster."""
    return f"rw:{{{reward}}}:"


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least one: 0 would mean for ever, or not at all."""
    return max(1, round(seconds * 1000))


@cache
def _text(name: str) -> str:
    folder = resources.files("reward_services") / "lua"
    parts = ("_prelude", "_reaping", name) if name in ("take", "reap") else ("_prelude", name)
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)


def _constants(limits: QueueLimits) -> str:
    fault = given_up(0).error
    assert fault is not None
    values: dict[str, int | float | str] = {
        "GROUP": f"'{GROUP}'",
        "MAX_ITEMS": limits.max_items,
        "MAX_DELIVERIES": limits.max_deliveries,
        "LEASE_MS": milliseconds(limits.lease_s),
        "RESULT_MS": milliseconds(limits.result_ttl_s),
        "GRACE_MS": milliseconds(GRACE_S),
        "SHARED_MS": milliseconds(SHARED_TTL_S),
        "FETCH_MS": milliseconds(FETCH_TTL_S),
        "API_MS": milliseconds(API_SILENT_AFTER_S),
        "LETTER_MS": milliseconds(LETTER_TTL_S),
        "MOST_LETTERS": MOST_LETTERS,
        "DECAY": Throughput.DECAY,
        "LOST_REASON": f"'{fault.message.removeprefix('0')}'",
    }
    return "".join(f"local {name} = {value}\n" for name, value in values.items())
