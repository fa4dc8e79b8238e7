"""Where settings come from, and which are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from reward_services.settings import (
    ServiceSettings,
    SettingsError,
    given_settings,
    refuse_unknown_variables,
)


def test_the_environment_comes_before_defaults_and_arguments_before_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ServiceSettings().port == 8000
    monkeypatch.setenv("REWARD_PORT", "9000")
    assert ServiceSettings().port == 9000
    assert ServiceSettings(port=9001).port == 9001


def test_keys_are_separated_by_commas_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_API_KEYS", "key-one, key-two,,")
    settings = ServiceSettings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["key-one", "key-two"]
    assert "key-one" not in repr(settings)


def test_keys_of_a_file_count_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("of-file\nsecond, third\n\n")
    monkeypatch.setenv("REWARD_API_KEYS_FILE", str(file))
    assert ServiceSettings().keys == ("of-file", "second", "third")
    assert ServiceSettings.model_validate({"api_keys": "own"}).keys[0] == "own"
    ServiceSettings(host="0.0.0.0").require_safe_address()


def test_an_empty_file_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").touch()
    settings = ServiceSettings(host="0.0.0.0", api_keys_file=tmp_path / "keys")
    assert settings.keys == ()
    with pytest.raises(SettingsError, match="put a key into REWARD_API_KEYS_FILE"):
        settings.require_safe_address()


def test_a_file_of_keys_that_cannot_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REWARD_API_KEYS_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match=r"REWARD_API_KEYS_FILE: .*cannot be read: .*No such"):
        given_settings({})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_alone_needs_no_keys(host: str) -> None:
    ServiceSettings(host=host).require_safe_address()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.5", "example.org", ""])
def test_other_machines_need_keys(host: str) -> None:
    with pytest.raises(SettingsError, match="REWARD_API_KEYS"):
        ServiceSettings(host=host).require_safe_address()
    ServiceSettings(host=host, insecure=True).require_safe_address()
    ServiceSettings.model_validate({"host": host, "api_keys": "key"}).require_safe_address()


def test_a_misspelt_variable_is_named() -> None:
    refuse_unknown_variables({"REWARD_PORT": "1", "PATH": "/bin"})
    with pytest.raises(SettingsError, match=r"REWARD_PROT: did you mean REWARD_PORT\?"):
        refuse_unknown_variables({"REWARD_PROT": "1"})


def test_the_real_environment_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unknown_variables()
    monkeypatch.setenv("REWARD_NOTHING_LIKE_IT", "1")
    with pytest.raises(SettingsError, match="REWARD_NOTHING_LIKE_IT"):
        refuse_unknown_variables()


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 70_000), ("max_items", 0), ("deadline_s", 0), ("max_wait_ms", -1), ("prot", 1)],
)
def test_values_that_make_no_sense(name: str, value: int) -> None:
    with pytest.raises(ValidationError, match=name):
        ServiceSettings.model_validate({name: value})


def test_every_setting_is_explained() -> None:
    assert all(field.description for field in ServiceSettings.model_fields.values())


def test_options_of_the_reward_come_from_variables_and_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REWARD_OPTIONS__DEVICE", "cpu")
    monkeypatch.setenv("REWARD_OPTIONS__MODEL", "here")
    refuse_unknown_variables()
    assert ServiceSettings().options == {"device": "cpu", "model": "here"}
    assert given_settings({"options": {"model": "there", "dtype": "fp32"}}).options == {
        "device": "cpu",
        "model": "there",
        "dtype": "fp32",
    }
