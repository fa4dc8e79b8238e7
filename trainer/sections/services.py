"""The sections about reward services."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from trainer.sections.section import Count, NonNegative, Positive, Section, Url


class ServiceSection(Section):
    """Where a reward's service is. Written short as just the URL, or a list of URLs."""

    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Base URL of the reward service, or those of its replicas, as a list or with commas. All must
    serve the same version; the run goes on while one of them is up."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the service's API key; before
    `scoring.api_key_file`."""

    @model_validator(mode="before")
    @classmethod
    def _from_urls(cls, value: object) -> object:
        return {"urls": value} if isinstance(value, str | list | tuple) else value

    @field_validator("urls", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: object) -> object:
        return tuple(url.strip() for url in value.split(",")) if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _no_url_twice(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if len({url.rstrip("/") for url in urls}) < len(urls):
            raise ValueError("a URL is given twice, which would count one replica as two: keep one")
        return urls


class RewardSection(ServiceSection):
    """One reward: where its service is. Written short as just the URL, or a list of URLs."""

    weight: Positive = 1.0
    """How much it counts beside the other rewards of the run; only the ratios of the weights
    matter. Every reward is normalised first, so a weight is free of units."""


class ScoringSection(Section):
    """How rewards are asked for, and what happens when one does not come."""

    deadline_s: Positive = 120.0
    """Seconds one request may take, retries included, before it is sent again as if lost."""
    max_outage_s: NonNegative = 3600.0
    """Seconds an unreachable or overloaded service is waited for before the run saves a
    checkpoint and exits."""
    api_key_file: str | None = None
    """File that holds the API key of all services, as secrets are mounted in containers; the first
    of several keys is taken, and an empty file means that no service wants one."""
    min_valid_per_prompt: Count = 1
    """A prompt with fewer scored samples in an epoch is left out of that epoch."""
    max_invalid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of an epoch's samples that may stay without a score before the run stops."""
