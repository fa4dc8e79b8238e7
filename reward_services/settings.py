"""Settings of a reward service: command line before environment (REWARD_*) before default."""

import difflib
import os
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.schema import Limits

PREFIX = "REWARD_"
NESTED = "__"
OPTIONS = {"worker_port": "port"}
"""Settings whose option on the command line has another name."""


class SettingsError(Exception):
    """A setting that cannot be used; the message names it and says what to change."""


class ServiceSettings(BaseSettings):
    """Everything about a service that is not the reward itself."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    options: dict[str, str] = {}
    """Options of the reward itself, each in a variable that ends in its name, such as \
`REWARD_OPTIONS__DEVICE`, or by `--set NAME=VALUE`."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than a loopback address needs API keys or `insecure`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one and prints it."""
    insecure: bool = False
    """Accept requests from other machines without an API key."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys, separated by commas, one of which a request must carry as `Authorization: Bearer`."""
    api_keys_file: Path | None = None
    """File with such keys, separated by commas or lines, as secrets are mounted in containers. An
    empty one adds none."""
    broker_url: str = "memory://"
    """Where jobs wait: `memory://` keeps them in this process, `redis://`, `rediss://` (TLS) or
    `unix://` (a socket) share them with API processes and workers anywhere."""
    blob_url: str | None = None
    """Where pictures wait, if not in the broker's Redis: another Redis that writes nothing to a
    disk, or `file:///dev/shm/…`, a folder that API and workers of one machine share."""

    max_items: PositiveInt = 1024
    """Most pictures in one request (413 above)."""
    max_body_bytes: PositiveInt = 256 * 1024 * 1024
    """Most bytes in one request (413 above)."""
    max_pixels: PositiveInt = 4096 * 4096
    """Most pixels in one picture (an item error above)."""
    max_inflight_bytes: PositiveInt = 1024 * 1024 * 1024
    """Most bytes of request bodies held at the same time (429 above)."""
    queue_items: PositiveInt = 4096
    """Most pictures waiting or being scored (429 above)."""
    interactive_items: NonNegativeInt = 4
    """Requests of at most so many pictures do not queue behind larger ones (see `X-Lane`)."""

    max_batch_items: PositiveInt | None = None
    """Most pictures scored together; the reward's own limit when not set."""
    max_wait_ms: NonNegativeFloat = 5.0
    """How long the first job of a batch waits for company."""
    deadline_s: PositiveFloat = 120.0
    """How long a request may take; a request may name a shorter time."""
    job_deadline_s: PositiveFloat = 3600.0
    """How long a job of `POST /jobs` may take; a request may name a shorter time."""
    lease_s: PositiveFloat = 30.0
    """How long a worker may be silent before its jobs go to another."""
    max_deliveries: PositiveInt = 3
    """How many workers a job may lose before it is given up."""
    result_ttl_s: PositiveFloat = 600.0
    """How long the result of a job, or of a request with an `Idempotency-Key`, is kept."""
    max_batch_seconds: PositiveFloat = 600.0
    """A batch that takes longer hangs: its worker gives its jobs up and ends its process."""
    worker_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of a `reward-services worker` for /livez, /readyz and /metrics; 0 takes a free one."""
    tracing: bool = False
    """Send OpenTelemetry traces (extra `otel`); where to is said by the OTEL_* variables."""

    drain_delay_s: NonNegativeFloat = 1.0
    """After SIGTERM: how long /readyz answers 503 while requests are still taken."""
    drain_timeout_s: PositiveFloat = 60.0
    """After that: how long requests in flight may take to finish."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if isinstance(value, str):
            return _separated(value)
        return value

    @field_validator("api_keys_file")
    @classmethod
    def _can_be_read(cls, value: Path | None) -> Path | None:
        if value is not None:
            _keys_in(value)
        return value

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """All API keys, those of the file as they were when this was first asked."""
        given = tuple(key.get_secret_value() for key in self.api_keys)
        return given + (_keys_in(self.api_keys_file) if self.api_keys_file else ())

    @property
    def limits(self) -> Limits:
        """The largest request that the API takes."""
        return Limits(
            max_items=min(self.max_items, self.queue_items),
            max_body_bytes=min(self.max_body_bytes, self.max_inflight_bytes),
            max_pixels=self.max_pixels,
        )

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the address."""
        if self.host == "localhost":
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return True

    def require_safe_address(self) -> None:
        """Refuse to listen to other machines without keys.

        Raises:
            SettingsError: a public address, no API keys, and not `insecure`.
        """
        if self.is_public and not self.keys and not self.insecure:
            raise SettingsError(
                f"{self.host} can be reached from other machines: set REWARD_API_KEYS or put a key "
                "into REWARD_API_KEYS_FILE, listen on 127.0.0.1, or pass --insecure"
            )


def _separated(keys: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in keys.replace("\n", ",").split(",") if key.strip())


def _keys_in(file: Path) -> tuple[str, ...]:
    try:
        return _separated(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the keys cannot be read: {error}") from None


def refuse_unknown_variables(environment: Mapping[str, str] | None = None) -> None:
    """A misspelt variable would be ignored without a word, so name it.

    Raises:
        SettingsError: a REWARD_* variable that is no setting.
    """
    known = {f"{PREFIX}{name.upper()}" for name in ServiceSettings.model_fields}
    for name in os.environ if environment is None else environment:
        if name.upper().startswith(f"{PREFIX}OPTIONS{NESTED}"):
            continue  # the reward knows its options
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f": did you mean {close[0]}?" if close else ""
            raise SettingsError(f"there is no setting {name}{hint}")


def given_settings(given: Mapping[str, Any]) -> ServiceSettings:
    """The settings of a process whose command line says `given`.

    Raises:
        SettingsError: a variable that is no setting, or a value that cannot be used.
    """
    refuse_unknown_variables()
    try:
        return ServiceSettings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        where = f"--{OPTIONS.get(name, name)}" if name in given else f"{PREFIX}{name.upper()}"
        raise SettingsError(f"{where}: {first['msg']}, not {first['input']!r}") from None
