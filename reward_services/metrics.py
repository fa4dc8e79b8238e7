"""Every Prometheus series of a service, declared in one place.

All carry the label `service`, the name of the reward. Durations are in seconds. What is said of the
queue (`queue_items`, `leased_items`, `inflight_items`, `workers`, `redelivered_total`,
`dead_letter_total`) is the same in every API process of a queue: take the maximum, not the sum.
"""

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shared.schema import ItemResult

# 5 ms to 164 s, doubling: a JPEG and a slow vision-language model fit the same axis.
SECONDS = tuple(0.005 * 2**k for k in range(16))
ITEMS = tuple(float(2**k) for k in range(11))
PARTS = tuple(part / 8 for part in range(1, 9))
BYTES = tuple(float(4**k) for k in range(5, 15))


class Metrics:
    """The series of one service, in a registry of their own.

    A series without labels of its own is ready to use; the others want
    `.labels(metrics.service, ...)`.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self._declare_requests()
        self._declare_queue()
        self._declare_worker()
        self._redelivered_before = 0
        self._dead_before = 0

    def _declare_requests(self) -> None:
        self.requests = self._counter(
            "requests_total", "Answered requests", "route", "code", "codec"
        )
        self.items = self._counter(
            "items_total", "Pictures answered, outcome: scored or error", "outcome"
        )
        self.rejected = self._counter(
            "rejected_total", "Requests to /score answered with an error, by its code", "reason"
        )
        self.request_duration = self._histogram(
            "request_duration_seconds", "From the head of a request to its answer", SECONDS, "route"
        )
        self.receive = self._histogram(
            "receive_seconds", "Receiving a request body", SECONDS
        ).labels(self.service)
        self.decode = self._histogram(
            "decode_seconds", "From request body to pixels", SECONDS, "codec"
        )
        self.payload = self._histogram("payload_bytes", "Size of request bodies", BYTES).labels(
            self.service
        )
        self.inflight_bytes = self._gauge("inflight_bytes", "Request bodies held in memory").labels(
            self.service
        )
        self.expired = self._counter("expired_total", "Requests that passed their deadline").labels(
            self.service
        )
        self.cancelled = self._counter("cancelled_total", "Requests whose client went away").labels(
            self.service
        )
        self.ready = self._gauge("model_ready", "1 when the service is ready, else 0").labels(
            self.service
        )

    def _declare_queue(self) -> None:
        self.submit = self._histogram(
            "submit_seconds", "Handing the decoded pictures of a request to the queue", SECONDS
        ).labels(self.service)
        self.queue_items = self._gauge("queue_items", "Pictures waiting for a worker", "lane")
        self.leased_items = self._gauge("leased_items", "Pictures at a worker").labels(self.service)
        self.inflight_items = self._gauge(
            "inflight_items", "Pictures admitted and not yet finished"
        ).labels(self.service)
        self.workers = self._gauge("workers", "Workers that have shown life lately").labels(
            self.service
        )
        self.redelivered = self._counter(
            "redelivered_total", "Jobs leased again after their worker went silent"
        ).labels(self.service)
        self.dead_letter = self._counter(
            "dead_letter_total", "Pictures given up after too many deliveries"
        ).labels(self.service)
        self.broker_disruptions = self._counter(
            "broker_disruptions_total", "Times this process found the job queue away"
        ).labels(self.service)

    def _declare_worker(self) -> None:
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "Jobs waiting for a worker", SECONDS
        ).labels(self.service)
        self.batch_wait = self._histogram(
            "batch_wait_seconds", "Jobs waiting at their worker for their batch", SECONDS
        ).labels(self.service)
        self.load = self._histogram(
            "load_seconds", "Fetching the pictures of one batch from the queue", SECONDS
        ).labels(self.service)
        self.inference = self._histogram("inference_seconds", "Scoring one batch", SECONDS).labels(
            self.service
        )
        self.finish = self._histogram(
            "finish_seconds", "Handing the results of one batch to the queue", SECONDS
        ).labels(self.service)
        self.batch_items = self._histogram("batch_items", "Pictures per batch", ITEMS).labels(
            self.service
        )
        self.batch_jobs = self._histogram("batch_jobs", "Jobs per batch", ITEMS).labels(
            self.service
        )
        self.batch_fill = self._histogram(
            "batch_fill_ratio", "Pictures per batch, as a part of the most there may be", PARTS
        ).labels(self.service)
        self.heartbeat = self._gauge(
            "worker_last_heartbeat_timestamp_seconds", "Last sign of life of the worker, Unix time"
        ).labels(self.service)

    def observe_queue(
        self,
        *,
        waiting_items: Mapping[str, int],
        leased_items: int,
        reserved_items: int,
        redelivered: int,
        dead: int,
    ) -> None:
        """Take over the queue's own numbers; the last two count from its start.

        Args:
            waiting_items: by lane.
            leased_items: at workers.
            reserved_items: admitted and not yet finished.
            redelivered: jobs leased again.
            dead: pictures given up.
        """
        for lane, items in waiting_items.items():
            self.queue_items.labels(self.service, lane).set(items)
        self.leased_items.set(leased_items)
        self.inflight_items.set(reserved_items)
        self.redelivered.inc(max(0, redelivered - self._redelivered_before))
        self.dead_letter.inc(max(0, dead - self._dead_before))
        self._redelivered_before, self._dead_before = redelivered, dead

    def count_items(self, results: Sequence[ItemResult]) -> int:
        """Count pictures that were answered; returns how many of them have no score."""
        failed = sum(result.error is not None for result in results)
        self.items.labels(self.service, "error").inc(failed)
        self.items.labels(self.service, "scored").inc(len(results) - failed)
        return failed

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"reward_{name}", text, ("service", *labels), registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"reward_{name}", text, ("service", *labels), registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"reward_{name}", text, ("service", *labels), buckets=buckets, registry=self.registry
        )
