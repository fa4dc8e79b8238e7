"""The series of a service."""

from reward_services.metrics import Metrics


def test_services_in_one_process_do_not_share_series() -> None:
    first, second = Metrics("first"), Metrics("second")
    first.expired.inc()
    assert 'reward_expired_total{service="first"} 1.0' in first.text().decode()
    assert 'reward_expired_total{service="second"} 0.0' in second.text().decode()


def test_counts_of_the_queue_are_taken_over_once() -> None:
    metrics = Metrics("s")
    for redelivered, dead in ((2, 0), (5, 1), (5, 1)):
        metrics.observe_queue(
            waiting_items={"interactive": 1, "bulk": 3},
            leased_items=5,
            reserved_items=9,
            redelivered=redelivered,
            dead=dead,
        )
    text = metrics.text().decode()
    assert 'reward_redelivered_total{service="s"} 5.0' in text
    assert 'reward_dead_letter_total{service="s"} 1.0' in text
    assert 'reward_queue_items{lane="interactive",service="s"} 1.0' in text
    assert 'reward_queue_items{lane="bulk",service="s"} 3.0' in text
    assert 'reward_leased_items{service="s"} 5.0' in text
    assert 'reward_inflight_items{service="s"} 9.0' in text


def test_every_series_has_the_prefix_the_label_and_a_text() -> None:
    families = list(Metrics("s").registry.collect())
    assert len(families) > 15
    for family in families:
        assert family.name.startswith("reward_")
        assert family.documentation
        assert all(sample.labels["service"] == "s" for sample in family.samples)
