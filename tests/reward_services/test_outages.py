"""An outage is said once, and so is its end."""

import structlog

from reward_services.metrics import Metrics
from reward_services.outages import Outage
from shared.errors import BrokerUnavailable


def test_an_outage_has_one_beginning_and_one_end() -> None:
    metrics = Metrics("n")
    outage = Outage(metrics)
    with structlog.testing.capture_logs() as lines:
        outage.end()
        for _ in range(3):
            outage.begin(BrokerUnavailable("gone"))
        errors = [outage.error]
        outage.end()
        outage.end()
        errors.append(outage.error)
        outage.begin(BrokerUnavailable("gone again"))
    assert [str(error) for error in errors] == ["gone", "None"]
    assert [line["event"] for line in lines] == [
        "the job queue is away",
        "the job queue is back",
        "the job queue is away",
    ]
    assert 'reward_broker_disruptions_total{service="n"} 2.0' in metrics.text().decode()
