"""Traces reach a collector, and hold nothing of a request."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.bentos.server import running
from tests.toys import ROOT

CANARY = "CANARY-31337"


def test_spans_are_named_by_route_and_hold_no_id_and_no_input(bundle: Path, tmp_path: Path) -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
    with running(bundle, tmp_path, {}, traces={"endpoint": endpoint}) as server:
        body = (ROOT / "examples" / "glucose.json").read_bytes()
        answered = server.call("POST", "/v1/predict", content=body, headers={"content-type": "application/json"})
        key = answered.json()["rows"][0]["prediction_id"]
        server.call("GET", f"/v1/predictions/{key}")
        server.call("GET", f"/v1/predictions/{CANARY}?{CANARY}=1")
    collector.shutdown()
    spans = []
    for message in received:
        for resource in ExportTraceServiceRequest.FromString(message).resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            assert attributes["service.name"] == "hallmark-glucose"
            spans += [span.name for scope in resource.scope_spans for span in scope.spans]
    assert "POST /v1/predict" in spans
    assert "batch" in spans
    everything = b"".join(received)
    assert CANARY.encode() not in everything
    assert key.encode() not in everything
    assert b"sim-010" not in everything
