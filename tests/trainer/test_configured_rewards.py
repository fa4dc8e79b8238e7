"""Services are made as a configuration names them, keys included."""

from typing import TYPE_CHECKING

import pytest

from trainer.configured_rewards import services_of
from trainer.sections import RewardSection, ScoringSection
from trainer.stops import ConfigError, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

SCORING = ScoringSection(deadline_s=20.0, max_outage_s=20.0)


def test_every_section_becomes_a_service(service: "ServiceProcess") -> None:
    section = RewardSection.model_validate(service.url)
    with services_of("monitors", {"a": section, "b": section}, SCORING, print) as services:
        services.connect()
        assert list(services.identities) == ["a", "b"]


def test_a_key_comes_from_the_environment(
    own_service: "ServiceProcess", monkeypatch: pytest.MonkeyPatch
) -> None:
    own_service.kill()
    monkeypatch.setenv("REWARD_API_KEYS", "secret")
    own_service.start()
    section = RewardSection(urls=(own_service.url,), api_key_env="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with services_of("monitors", {"judge": section}, SCORING, print) as services:
        services.connect()
    monkeypatch.setenv("JUDGE_KEY", "wrong")
    with (
        services_of("monitors", {"judge": section}, SCORING, print) as services,
        pytest.raises(RunStopped, match="API key"),
    ):
        services.connect()
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match=r"monitors\.judge\.api_key_env names JUDGE_KEY, which"):
        services_of("monitors", {"judge": section}, SCORING, print)
