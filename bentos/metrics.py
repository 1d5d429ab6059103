"""Prometheus metrics of one service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, Summary, generate_latest

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Metrics of a service; each service has a registry of its own. Labels never hold ids or paths of a client."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # CPU seconds, memory, open files
        self.requests = Counter(
            "hallmark_requests", "HTTP requests by route and status", ("route", "status"), registry=registry
        )
        self.latency = Histogram(
            "hallmark_request_seconds", "time of a request", ("route",), buckets=LATENCY, registry=registry
        )
        self.predictions = Counter(
            "hallmark_predictions",
            "answered rows by version, status and the model that answered",
            ("version", "status", "served_by"),
            registry=registry,
        )
        self.row_seconds = Histogram(
            "hallmark_row_seconds",
            "computing time of a row by version; `kind` is answered or shadow",
            ("version", "kind"),
            buckets=LATENCY,
            registry=registry,
        )
        self.shadows = Counter(
            "hallmark_shadow", "rows that a challenger computed for nobody", ("version", "status"), registry=registry
        )
        self.outcome_loss = Summary(
            "hallmark_outcome_loss", "errors of answers whose outcome is known", ("version", "error"), registry=registry
        )
        self.fallbacks = Counter(
            "hallmark_fallbacks", "rows that a simpler model answered", ("version",), registry=registry
        )
        self.failures = Counter(
            "hallmark_failures", "rows that could not be computed", ("version", "error"), registry=registry
        )
        self.queue_rows = Gauge("hallmark_queue_rows", "rows that wait", registry=registry)
        self.batch_rows = Histogram("hallmark_batch_rows", "rows of a batch", buckets=ROWS, registry=registry)
        self.batch_seconds = Histogram("hallmark_batch_seconds", "time of a batch", buckets=LATENCY, registry=registry)
        self.records_pending = Gauge(
            "hallmark_records_pending", "records that are not in the database yet", registry=registry
        )
        self.damaged_files = Gauge(
            "hallmark_damaged_files", "files of the bundle that are missing or changed", registry=registry
        )
        self.replays = Counter("hallmark_replays", "answers that were computed again", registry=registry)
        self.replay_mismatches = Counter(
            "hallmark_replay_mismatches", "answers that were computed again and differed", registry=registry
        )
        self.wrong_adapters = Counter(
            "hallmark_wrong_adapters", "answers whose weights were not those of their subject", registry=registry
        )
        self.wrong_adapter_rate = Gauge(
            "hallmark_wrong_adapter_rate_upper_95",
            "upper bound of the share of answers with wrong weights, 95% confidence, from the replayed answers",
            registry=registry,
        )
        self.wrong_adapter_rate.set(1.0)  # nothing was replayed yet: nothing is known

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Write all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
