"""What Prometheus is shown of a run, and for how long."""

import re
import socket
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port
from trainer.exporter import MetricsExporter
from trainer.stops import ConfigError
from trainer.tracking import METRICS, MetricsLog, metrics_of


def shown(port: int) -> dict[str, str]:
    """Metric → its value, of the run `test`."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return dict(re.findall(r'(?m)^ddpo_(\w+){run="test"} (\S+)$', text))


def test_every_metric_is_shown_and_none_is_made_up() -> None:
    port = free_port()
    with MetricsExporter("127.0.0.1", port, "test", METRICS) as exporter:
        assert shown(port) == dict.fromkeys(METRICS, "NaN")
        exporter.show({"epoch": 3, "reward_mean": -2.5, "loss": None})
        assert {name: value for name, value in shown(port).items() if value != "NaN"} == {
            "epoch": "3.0",
            "reward_mean": "-2.5",
        }


def test_each_of_several_rewards_has_its_own_series() -> None:
    port, metrics = free_port(), metrics_of(["size", "taste"])
    with MetricsExporter("127.0.0.1", port, "test", metrics) as exporter:
        exporter.show({"epoch": 3, "reward_mean/size": -2.5, "reward_mean/taste": 5.25})
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    series = dict(re.findall(r'(?m)^ddpo_reward_mean{reward="(\w+)",run="test"} (\S+)$', text))
    assert series == {"size": "-2.5", "taste": "5.25"}
    assert 'ddpo_epoch{run="test"} 3.0' in text
    assert 'ddpo_reward_std{reward="size",run="test"} NaN' in text


def test_it_ends_with_the_run() -> None:
    port = free_port()
    with MetricsExporter("127.0.0.1", port, "test", METRICS):
        shown(port)
    with pytest.raises(httpx.ConnectError):
        shown(port)


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"prometheus_port {port} on 127.0.0.1 cannot be"):
            MetricsExporter("127.0.0.1", port, "test", METRICS)


def test_it_shows_the_latest_record_that_of_a_resumed_run_at_once(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "metrics.jsonl"
    with (
        MetricsExporter("127.0.0.1", port, "test", METRICS) as exporter,
        MetricsLog(path, None, length=0, epoch=0, exporter=exporter) as log,
    ):
        log.append({"epoch": 1, "reward_mean": -2.0})
        length = log.length()
        log.append({"epoch": 2, "reward_mean": -1.5})
        assert shown(port)["reward_mean"] == "-1.5"
    port = free_port()
    with (
        MetricsExporter("127.0.0.1", port, "test", METRICS) as exporter,
        MetricsLog(path, None, length=length, epoch=1, exporter=exporter),
    ):
        assert (shown(port)["epoch"], shown(port)["reward_mean"]) == ("1.0", "-2.0")
