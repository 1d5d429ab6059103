"""OpenTelemetry traces, sent to a collector where `HALLMARK_TRACES__ENDPOINT` names one.

A request is a span named by its route; a batch is one with its number of rows. No input and no id is in a span.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from bentos.settings import TraceSettings


class Traces(Protocol):
    """Records spans."""

    def span(self, name: str, start_ns: int, end_ns: int, attributes: Mapping[str, Any]) -> None:
        """Record a span that has ended; times since 1970 in nanoseconds."""

    def close(self) -> None:
        """Send what is left."""


class NoTraces:
    """Records nothing."""

    def span(self, name: str, start_ns: int, end_ns: int, attributes: Mapping[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class CollectorTraces:
    """Sends spans to a collector by OTLP over HTTP, in the background; what it does not take is dropped.

    Args:
        endpoint: such as `http://collector:4318/v1/traces`.
        resource: describes the service.
    """

    def __init__(self, endpoint: str, resource: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self.provider = TracerProvider(resource=Resource(dict(resource)))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
        self.tracer = self.provider.get_tracer("hallmark")

    def span(self, name: str, start_ns: int, end_ns: int, attributes: Mapping[str, Any]) -> None:
        """See `Traces.span`."""
        span = self.tracer.start_span(name, attributes=dict(attributes), start_time=start_ns)
        span.end(end_ns)

    def close(self) -> None:
        """See `Traces.close`."""
        self.provider.shutdown()


def make_traces(settings: TraceSettings, resource: Mapping[str, str]) -> Traces:
    """Make what the settings ask for."""
    return NoTraces() if settings.endpoint is None else CollectorTraces(settings.endpoint, resource)
