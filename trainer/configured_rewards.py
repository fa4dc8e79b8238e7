"""From the sections of a configuration that name rewards to their services."""

import os
from collections.abc import Callable, Mapping

from trainer.reward_service import RewardSource
from trainer.rewards import RewardServices
from trainer.sections import ScoringSection, ServiceSection
from trainer.stops import ConfigError


def services_of(
    kind: str,
    sections: Mapping[str, ServiceSection],
    scoring: ScoringSection,
    notify: Callable[[str], None],
) -> RewardServices:
    """The services of some rewards, not yet connected.

    Args:
        kind: the section of the configuration that they stand in.
        sections: name → where its service is.
        scoring: how long to wait for them.
        notify: gets one line for the person at the terminal when an outage begins or ends.

    Raises:
        ConfigError: a key that a service needs is not in the environment.
    """
    sources = []
    for name, section in sections.items():
        key = None
        if section.api_key_env is not None:
            key = os.environ.get(section.api_key_env)
            if not key:
                raise ConfigError(
                    f"{kind}.{name}.api_key_env names {section.api_key_env}, which is not set in "
                    "the environment; export it, or remove the setting"
                )
        sources.append(RewardSource(name, section.urls, key))
    return RewardServices(
        sources,
        deadline_s=scoring.deadline_s,
        max_outage_s=scoring.max_outage_s,
        notify=notify,
    )
