"""What docker-compose.yml and the files beside it promise, as far as it shows without an engine.

`make compose-test` starts them for real.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reward_services.loading import load_scorer
from reward_services.metrics import Metrics
from reward_services.settings import ServiceSettings
from tests.compose_checks import VICTIMS
from tests.stack import REWARDS
from trainer.config import Config
from trainer.exporter import PREFIX
from trainer.recipe_files import recipe_names
from trainer.tracking import METRICS

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
STACK: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())
SERVICES = STACK["services"]
OURS = [name for name in SERVICES if name.endswith(("-api", "-worker", "trainer"))]
# Read by a person's tools, or versions that only somebody without a registry changes.
UNDOCUMENTED = {"REDIS_VERSION", "PROMETHEUS_VERSION", "GRAFANA_VERSION"}
NEEDS_NO_MODEL = ("jpeg", "incompressibility")


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_as_little_power_as_it_can(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_for_this_machine_alone(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert bool(ports) == name.endswith(("-api", "prometheus", "grafana"))


def test_redis_is_reached_by_apis_and_workers_alone() -> None:
    assert SERVICES["redis"]["networks"] == ["queue"]
    assert STACK["networks"]["queue"] == {"internal": True}
    inside = {name for name in SERVICES if "queue" in SERVICES[name]["networks"]}
    assert inside == {"redis", *(name for name in OURS if name != "trainer")}
    command = SERVICES["redis"]["command"]
    for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert option in command


def test_every_reward_has_an_api_and_workers() -> None:
    assert {f"{name}-{part}" for name in REWARDS for part in ("api", "worker")} == {
        name for name in OURS if name != "trainer"
    }
    for name, reward in REWARDS.items():
        assert SERVICES[f"{name}-api"]["command"] == ["api", reward]
        assert SERVICES[f"{name}-worker"]["command"] == ["worker", reward]
        assert f"{reward}=http://{name}-api:8000" in (ROOT / ".env.example").read_text()
    for name in NEEDS_NO_MODEL:
        load_scorer(REWARDS[name])
        assert SERVICES[f"{name}-worker"]["build"]["target"] == "worker"


def test_no_two_services_build_the_same_image() -> None:
    """Compose labels an image with its service: the last to be built would replace the others, and
    their containers would be made anew by the next command."""
    assert not [name for name in OURS if "image" in SERVICES[name]]


def test_containers_may_take_as_long_to_stop_as_their_services() -> None:
    settings = ServiceSettings()
    longest = settings.drain_delay_s + settings.drain_timeout_s
    for name in OURS:
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > longest


def test_settings_of_services_and_of_the_trainer_exist() -> None:
    for name in OURS:
        for variable in SERVICES[name].get("environment", {}):
            if variable.startswith("REWARD_") and not variable.startswith("REWARD_OPTIONS__"):
                assert variable.removeprefix("REWARD_").lower() in ServiceSettings.model_fields
            if variable.startswith("DDPO_"):
                section, key = variable.removeprefix("DDPO_").lower().split("__")
                annotation = Config.model_fields[section].annotation
                assert annotation is not None
                assert key in annotation.model_fields


def test_what_can_be_set_is_in_the_example_and_nothing_else() -> None:
    files = COMPOSE.read_text() + (ROOT / "docker-compose.gpu.yml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", files))
    example = (ROOT / ".env.example").read_text()
    assert used - UNDOCUMENTED == set(re.findall(r"(?m)^#([A-Z_]+)=", example))
    recipes = re.findall(r"(?m)^#TRAINER_RECIPE=(\w+)", example)
    assert recipes
    assert set(recipes) <= set(recipe_names())


def test_the_example_shows_the_defaults() -> None:
    defaults = dict(re.findall(r"\$\{([A-Z_]+):?-([^}]+)\}", COMPOSE.read_text()))
    shown = dict(
        re.findall(r"(?m)^#([A-Z]+_PORT|LEASE_S)=(.*)$", (ROOT / ".env.example").read_text())
    )
    assert len(shown) > 5
    assert shown == {name: defaults[name] for name in shown}


def test_prometheus_looks_at_every_container_of_ours() -> None:
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    looked_at = {
        name: job["job_name"]
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    assert looked_at == {name: name.rpartition("-")[2] for name in OURS}
    assert set(VICTIMS) == {"redis", *OURS}


def series() -> set[str]:
    """Every series that there is, as Prometheus names it."""
    found = {f"{PREFIX}{name}" for name in METRICS}
    for family in Metrics("all").registry.collect():
        if family.type == "counter":
            found.add(f"{family.name}_total")
        elif family.type == "histogram":
            found |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            found.add(family.name)
    return found


def queries() -> Iterator[str]:
    """Every query of the dashboards and alerts."""
    for file in (ROOT / "docker" / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            yield from (target["expr"] for target in panel["targets"])
    alerts = yaml.safe_load((ROOT / "docker" / "prometheus" / "alerts.yml").read_text())
    for group in alerts["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_dashboards_and_alerts_ask_for_series_that_exist() -> None:
    asked = {name for query in queries() for name in re.findall(r"\b(?:reward|ddpo)_\w+", query)}
    assert len(asked) > 20
    assert asked <= series()


def test_every_alert_is_explained() -> None:
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "docker/prometheus/alerts.yml").read_text())
    page = (ROOT / "docs" / "operations.md").read_text()
    assert alerts
    assert not [name for name in alerts if f"| `{name}` |" not in page]


def test_images_are_built_by_any_engine_as_nobody_s_root() -> None:
    assert not DOCKERFILE.startswith("# syntax=")
    stages = re.split(r"(?m)^FROM ", DOCKERFILE)[1:]
    final = {stage.split()[2]: stage for stage in stages if "image.title" in stage}
    assert set(final) == {"api", "worker", "learned-worker", "trainer"}
    assert {SERVICES[name]["build"]["target"] for name in OURS} == set(final)
    for name in ("learned-worker", "trainer"):
        assert "\nUSER app\n" in final[name]
    (service,) = (stage for stage in stages if stage.split()[2] == "service")
    assert "\nUSER app\n" in service


def test_nothing_reaches_an_image_unless_it_is_named() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert all((ROOT / path).exists() for path in let_in)
    assert "emoji_world" not in let_in
    assert "." not in let_in
