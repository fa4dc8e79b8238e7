"""Services are made as a configuration names them, keys included."""

from pathlib import Path
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


def test_a_key_of_all_services_comes_from_a_file(
    own_service: "ServiceProcess", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_service.kill()
    file = tmp_path / "keys"
    file.write_text("first\nsecond\n")
    monkeypatch.setenv("REWARD_API_KEYS_FILE", str(file))
    own_service.start()
    section = RewardSection(urls=(own_service.url,))
    scoring = SCORING.model_copy(update={"api_key_file": str(file)})
    with services_of("rewards", {"jpeg": section}, scoring, print) as services:
        services.connect()
    file.write_text("")
    with (
        services_of("rewards", {"jpeg": section}, scoring, print) as services,
        pytest.raises(RunStopped, match="API key"),
    ):
        services.connect()
    file.unlink()
    with pytest.raises(ConfigError, match=r"scoring\.api_key_file .* cannot be read"):
        services_of("rewards", {"jpeg": section}, scoring, print)
    services_of("monitors", {}, scoring, print)


def test_a_key_of_one_service_goes_before_that_of_all(
    own_service: "ServiceProcess", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_service.kill()
    monkeypatch.setenv("REWARD_API_KEYS", "own")
    own_service.start()
    (tmp_path / "key").write_text("common")
    scoring = SCORING.model_copy(update={"api_key_file": str(tmp_path / "key")})
    monkeypatch.setenv("JUDGE_KEY", "own")
    section = RewardSection(urls=(own_service.url,), api_key_env="JUDGE_KEY")
    with services_of("monitors", {"judge": section}, scoring, print) as services:
        services.connect()
