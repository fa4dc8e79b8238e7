"""From the sections of a configuration that name rewards to their services."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from trainer.reward_service import RewardSource
from trainer.rewards import RewardServices
from trainer.sections import ScoringSection, ServiceSection
from trainer.stops import ConfigError


def services_of(
    kind: str,
    sections: Mapping[str, ServiceSection],
    scoring: ScoringSection,
    notify: Callable[[str], None],
    processes: int = 1,
) -> RewardServices:
    """The services of some rewards, not yet connected.

    Args:
        kind: the section of the configuration that they stand in.
        sections: name → where its service is.
        scoring: how long to wait for them.
        notify: gets one line for the person at the terminal when an outage begins or ends.
        processes: who ask them.

    Raises:
        ConfigError: a key that a service needs is not in the environment, or not in its file.
    """
    return RewardServices(
        sources_of(kind, sections, scoring),
        deadline_s=scoring.deadline_s,
        max_outage_s=scoring.max_outage_s,
        notify=notify,
        processes=processes,
    )


def sources_of(
    kind: str, sections: Mapping[str, ServiceSection], scoring: ScoringSection
) -> list[RewardSource]:
    """The addresses of some rewards with their keys; arguments and errors as of `services_of`."""
    sources = []
    common = _key_in(scoring.api_key_file) if sections and scoring.api_key_file else None
    for name, section in sections.items():
        key = common
        if section.api_key_env is not None:
            key = os.environ.get(section.api_key_env)
            if not key:
                raise ConfigError(
                    f"{kind}.{name}.api_key_env names {section.api_key_env}, which is not set in "
                    "the environment; export it, or remove the setting"
                )
        sources.append(RewardSource(name, section.urls, key))
    return sources


def _key_in(file: str) -> str | None:
    """The first key in a file that may hold as many as a service takes."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"scoring.api_key_file {file!r} cannot be read ({error}); write the services' API key "
            "into it, or remove the setting"
        ) from None
    return next((key for key in re.split(r"[,\s]+", text) if key), None)
