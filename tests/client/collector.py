"""A collector of OTLP over HTTP: prints each span that it gets as a line of JSON. `python collector.py PORT`."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for of_resource in request.resource_spans:
            resource = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    seen = {
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "kind": span.kind,
                        "links": [link.span_id.hex() for link in span.links],
                        "service": resource["service.name"],
                        "status": span.status.code,
                        "events": [event.name for event in span.events],
                        "attributes": {
                            one.key: one.value.string_value or one.value.int_value for one in span.attributes
                        },
                    }
                    print(json.dumps(seen), flush=True)
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as it is called there
        """Says nothing."""

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector).serve_forever()
